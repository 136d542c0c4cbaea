"""Activations of 4 bits on a power curve (NUPES): a table from 8-bit codes to the 16 that are levels.

The levels on each side of zero are ``reach * (i / n)^(1/a)``, i = 1 ... n; the sides share the codes so that both have
the same curve. They are rounded to codes of a uint8 grid, so what a layer multiplies is uint8 as ever. A value goes to
its nearest level, in the domain of values: a table of thresholds, exact for every exponent, where the paper takes
integer roots. ``a = 1`` is uniform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.activations.range_search import SHRINK, TOGETHER, Array, Rows, refined
from qcompiler.calibration.observers import Range, affine_grid

EXPONENTS = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
NEIGHBOURS = (-0.05, 0.0, 0.05)
CODES = 256

BRACKET_ROWS = 512
"""Vectors on which exponents and ranges are tried together before the best is refined on all."""


@dataclass(frozen=True)
class PowerLevels:
    """``count`` codes over a range, on a curve.

    Attributes:
        extent: what the outermost codes stand for.
        exponent: ``a`` of the curve.
        count: number of codes, at least 2.
    """

    extent: Range
    exponent: float
    count: int

    @property
    def grid(self) -> tuple[float, int]:
        """Scale and zero point of the uint8 grid that holds the levels."""
        return affine_grid(self.extent, CODES)

    def table(self) -> NDArray[np.uint8]:
        """The nearest level of each code of that grid: uint8 [256]."""
        wide, (scale, zero_point) = self.extent.with_zero(), self.grid
        low, high = -wide.lo / scale, wide.hi / scale
        shares = low**self.exponent, high**self.exponent
        below = round((self.count - 1) * shares[0] / max(sum(shares), 1e-30))
        above = self.count - 1 - below
        steps = np.concatenate([-self._steps(low, below), [0.0], self._steps(high, above)])
        levels: NDArray[np.float64] = np.unique(np.clip(zero_point + steps, 0, CODES - 1))
        return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, np.arange(CODES))].astype(np.uint8)

    def _steps(self, reach: float, count: int) -> NDArray[np.float64]:
        """Distances of the levels of one side from zero, all different."""
        place = np.arange(1, count + 1)
        return np.maximum(np.rint(reach * (place / max(count, 1)) ** (1 / self.exponent)), place)

    def rounded(self, x: Array) -> Array:
        """``x`` on the levels."""
        scale, zero_point = self.grid
        values = ((self.table().astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)
        return np.asarray(values[np.clip(np.rint(x / np.float32(scale)) + zero_point, 0, CODES - 1).astype(np.int64)])


def least_power(rows: Sequence[Rows], extent: Range, count: int) -> tuple[PowerLevels, float]:
    """The curve and the range within ``extent`` of least error over the layers that read them, and that error."""
    whole = extent.with_zero()
    ranges = [Range(whole.lo * SHRINK**k, whole.hi * SHRINK**k) for k in range(0, TOGETHER, 2)]
    some = [_some(each) for each in rows]
    best = min(
        (PowerLevels(tried, exponent, count) for exponent in EXPONENTS for tried in ranges),
        key=lambda tried: _loss(some, tried),
    )
    best = replace(best, extent=refined(lambda tried: _loss(rows, replace(best, extent=tried)), best.extent, whole))
    near = [replace(best, exponent=min(best.exponent + step, 1.0)) for step in NEIGHBOURS]
    losses = [_loss(rows, tried) for tried in near]
    return near[losses.index(min(losses))], min(losses)


def _some(rows: Rows) -> Rows:
    """Some of the vectors of a layer, as many as decide about the bracket."""
    step = max(rows.x.shape[1] // BRACKET_ROWS, 1)
    return replace(rows, x=rows.x[:, ::step], energy=rows.energy / step)


def _loss(rows: Sequence[Rows], levels: PowerLevels) -> float:
    return sum(each.loss_of(levels.rounded(each.x)) for each in rows)
