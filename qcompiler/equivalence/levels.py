"""How fine the grids are that a transform is chosen for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Levels"]


@dataclass(frozen=True)
class Levels:
    """Steps of an activation's range, and steps up to a weight's largest magnitude; infinite: no noise."""

    activation: float = 255
    weight: float = 127
