"""From what was seen of a tensor to the range its grid covers.

An observer looks at exact counts over bins that were fixed before counting, so neither the order of the feeds nor how
samples are split into batches changes its answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ranges import Range

__all__ = [
    "BINS",
    "OBSERVERS",
    "Histogram",
    "ObserverName",
    "Range",
    "affine_grid",
    "beyond",
    "mse_range",
    "percentile_range",
]

BINS = 2048

UNSEEN_NUMBERS, UNSEEN_SHARE = 1e5, 8.0
"""Unseen values that a range leaves room for: at most this many, and at most this multiple of those seen."""

FEW_BLOCKS = 4
ObserverName = Literal["minmax", "percentile", "mse"]


@dataclass
class Histogram:
    """Counts over `BINS` equal bins of ``range``; values outside fall into the outer bins."""

    range: Range
    counts: NDArray[np.int64]

    @staticmethod
    def empty(extent: Range) -> Histogram:
        """Nothing counted yet."""
        return Histogram(extent, np.zeros(BINS, np.int64))

    @property
    def width(self) -> float:
        """Width of a bin."""
        return (self.range.hi - self.range.lo) / BINS

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        return np.asarray(self.range.lo + (np.arange(BINS) + 0.5) * self.width, np.float64)

    def add(self, values: NDArray[Any]) -> None:
        """Count ``values`` (any shape)."""
        if values.size == 0 or self.width <= 0:
            return
        bins = (np.clip(values.reshape(-1), self.range.lo, self.range.hi) - np.float32(self.range.lo)) * np.float32(
            1 / self.width
        )
        self.counts += np.bincount(np.clip(bins, 0, BINS - 1).astype(np.int64), minlength=BINS)


def affine_grid(extent: Range, levels: int = 256) -> tuple[float, int]:
    """Scale and zero point of the unsigned grid of ``levels`` codes over ``extent``; 0.0 is one of its values."""
    wide = extent.with_zero()
    scale = max((wide.hi - wide.lo) / (levels - 1), 2.0**-100) if wide.hi > wide.lo else 1.0
    return scale, int(np.clip(np.rint(-wide.lo / scale), 0, levels - 1))


def beyond(maxima: NDArray[Any], numbers: int) -> float:
    """How far above the largest value that was seen a range should reach, for values not yet seen.

    Above a high threshold the excess of most distributions is about exponential (Pickands 1975; Balkema and de Haan
    1974, with shape 0). With its mean ``b``, the largest of ``m`` further values exceeds the largest of ``n`` by about
    ``b ln(1 + m / n)``. Maxima of blocks (rows of a batch) have the same tail and are independent where values of one
    row are not, so ``b`` is their mean excess over their largest eighth.

    Args:
        maxima: largest value of each block, [blocks]; from fewer than `FEW_BLOCKS` nothing follows.
        numbers: values seen, ``n``; ``m`` is `UNSEEN_NUMBERS`, at most `UNSEEN_SHARE` times ``n``. Many values leave
            nothing to add.

    Returns:
        what to add, at least 0.
    """
    finite = np.sort(maxima[np.isfinite(maxima)])[::-1].astype(np.float64)
    if finite.size < FEW_BLOCKS or numbers < 1:
        return 0.0
    top = max(1, finite.size // 8)
    excess = float(finite[:top].mean() - finite[top])
    return excess * math.log1p(min(UNSEEN_NUMBERS / numbers, UNSEEN_SHARE))


def minmax_range(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return histogram.range


def percentile_range(histogram: Histogram, percentile: float = 99.99) -> Range:
    """The range that leaves ``100 - percentile`` per cent of the values out at each end."""
    total = histogram.counts.sum()
    if total == 0:
        return histogram.range
    share, edges = np.cumsum(histogram.counts) / total, histogram.range.lo + np.arange(BINS + 1) * histogram.width
    tail = 1 - percentile / 100
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return Range(float(edges[first]), float(edges[min(last + 1, BINS)]))


def mse_range(histogram: Histogram, levels: int = 256, steps: int = 40) -> Range:
    """The range whose grid of ``levels`` codes has the least squared error over the counted values.

    The ends are drawn in, by turns, over ``steps`` even fractions of the observed range; clipping error is exact over
    bins.
    """
    if not histogram.counts.any():
        return histogram.range
    best = histogram.range.with_zero()
    for _ in range(2):
        candidates = [Range(best.lo, best.hi * (1 - k / steps)) for k in range(steps)]
        best = min(candidates, key=lambda extent: _squared_error(histogram, extent, levels))
        candidates = [Range(best.lo * (1 - k / steps), best.hi) for k in range(steps)]
        best = min(candidates, key=lambda extent: _squared_error(histogram, extent, levels))
    return best


def _squared_error(histogram: Histogram, extent: Range, levels: int) -> float:
    scale, zero_point = affine_grid(extent, levels)
    values = histogram.centers
    nearest = np.clip(np.rint(values / scale) + zero_point, 0, levels - 1)
    error = (nearest - zero_point) * scale - values
    # inside a bin that is narrower than a step the rounding error is that of the step, not that of the centre
    inside = (nearest > 0) & (nearest < levels - 1)
    squared = np.where(
        inside, np.maximum(error * error, scale * scale / 12 if histogram.width < scale else 0), error * error
    )
    squared[np.abs(values) < histogram.width / 2] = 0.0  # an exact zero, as behind a ReLU
    return float((squared * histogram.counts).sum())


OBSERVERS: dict[ObserverName, Callable[[Histogram], Range]] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "mse": mse_range,
}
