"""What values lie in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Range"]


@dataclass(frozen=True)
class Range:
    """Smallest and largest finite value."""

    lo: float
    hi: float

    def join(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.lo, other.lo), max(self.hi, other.hi))

    def clamp(self, floor: float) -> Range:
        """The part above ``floor``."""
        return Range(max(self.lo, floor), max(self.hi, floor))

    def with_zero(self) -> Range:
        """The smallest range that holds this one and 0."""
        return Range(min(self.lo, 0.0), max(self.hi, 0.0))
