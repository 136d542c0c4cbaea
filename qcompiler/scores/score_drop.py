"""How much of a score may be lost: a share of it, or a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ScoreDrop"]


@dataclass(frozen=True)
class ScoreDrop:
    """What a score, higher being better, may lose.

    Attributes:
        amount: not negative; percent where ``is_share``, else in the unit of the score.
        is_share: it is a share of the float model's score (of its magnitude, since scores may be negative).
    """

    amount: float
    is_share: bool

    @classmethod
    def read(cls, text: str) -> ScoreDrop:
        """``0.5%`` or ``0.01``; ValueError for what is none of these."""
        amount = float(text.removesuffix("%"))
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(text)
        return cls(amount, text.endswith("%"))

    def least(self, score: float) -> float:
        """The least score that is still kept, where the float model has ``score``."""
        return score - (abs(score) * self.amount / 100 if self.is_share else self.amount)

    def __str__(self) -> str:
        return f"{self.amount:g}{'%' if self.is_share else ''}"
