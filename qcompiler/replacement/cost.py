"""What a block of dense layers costs: multiply-accumulates of one row, and bytes at 8 bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Cost", "bundle_cost", "most_features"]

_BIAS_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What some layers cost.

    Attributes:
        macs: multiply-accumulates of one row (a token, a pixel).
        bytes: of weights with a byte each and of biases with four.
    """

    macs: int
    bytes: int

    @staticmethod
    def of(shapes: Iterable[tuple[int, int, bool]]) -> Cost:
        """That of dense layers (outputs, inputs, has a bias)."""
        layers = list(shapes)
        weights = sum(outputs * inputs for outputs, inputs, _ in layers)
        return Cost(weights, weights + _BIAS_BYTES * sum(outputs for outputs, _, bias in layers if bias))

    def within(self, other: Cost, share: float) -> bool:
        """True if both figures are at most ``share`` of the other's."""
        return self.macs <= share * other.macs and self.bytes <= share * other.bytes


def bundle_cost(inputs: int, features: int, outputs: int, *, factors: int = 1, skip: bool) -> Cost:
    """That of ``A φ(P x + c) + B x + b``; ``factors``: projections that make one feature."""
    layers = [(features, inputs, True)] * factors + [(outputs, features, True)] if features else []
    return Cost.of([*layers, *([(outputs, inputs, not layers)] if skip else [])])


def most_features(
    inputs: int, outputs: int, whole: Cost, share: float, *, factors: int = 1, skip: bool, most: int
) -> int:
    """Most features (at most ``most``) whose cost is within ``share`` of ``whole``; -1 if even 0 cost too much."""
    low, high = -1, most
    while low < high:
        middle = (low + high + 1) // 2
        fits = bundle_cost(inputs, middle, outputs, factors=factors, skip=skip).within(whole, share)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low - low % 8 if low >= 16 else low
