"""Per-channel scaling of uint8 (a batch normalization, a 1-tap depthwise convolution) without 64-bit products.

A code of x has 256 values, so the code of y is a step function of x, and some line gives it: ``min(max((A*x + B) >> s,
lo), hi)`` with A of 31 bits and B of 47. `line_of` finds A, B and s for a channel and proves them on all 256 codes;
where there is none, the layer is left to `kernels/depthwise.py`. With ``A = 65536 * high + low``, low a signed 16-bit
number, and B split likewise, the sum is ``65536 * h + l`` with two products of 16 bits, and its floor by ``2^s``, s >=
16, is ``(h + (l >> 16)) >> (s - 16)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..instructions.depthwise_layout import chunk_bytes, is_depthwise
from ..instructions.instruction import Element, Values

CHANNELS = 16
"""Channels come in multiples of the shortest vector."""

_HALF = 16
_CODES = 256
_SLOPE_BITS, _MOST_SHIFT = 30, 38
_FARTHEST = 3 << 45
"""Magnitudes of B: the upper half of any sum fits 32 bits."""

Numbers = NDArray[np.int64]


class Lines(NamedTuple):
    """A, B and s of every channel."""

    slope: Numbers
    start: Numbers
    shift: Numbers


def can_scale(f: Values) -> bool:
    """Whether a convolution only scales whole vectors of channels of uint8."""
    pointwise = (
        all(f[name] == 1 for name in ("kernel_h", "kernel_w", "stride_h", "stride_w"))
        and f["pad_top"] == f["pad_left"] == 0
    )
    same = (f["in_h"], f["in_w"]) == (f["out_h"], f["out_w"]) and is_depthwise(f["groups"], f["in_c"], f["out_c"])
    bytes_only = f["x_type"] == f["y_type"] == Element.U8 and 0 <= f["lo"] <= f["hi"] < _CODES
    return pointwise and same and bytes_only and f["in_c"] % CHANNELS == 0


def lines_of(w: Numbers, bias: Numbers, m: Numbers, n: Numbers, y_zp: int, lo: int, hi: int) -> Lines | None:
    """Lines equal to ``min(max(requant(bias + w*x, m, n) + y_zp, lo), hi)`` for every x, arrays [channels]; or None."""
    x = np.arange(_CODES, dtype=np.int64)
    sums = bias[:, None] + w[:, None] * x
    if np.abs(sums).max() >= 1 << 31:
        return None
    codes = np.clip(((sums * m[:, None] + (1 << (n - 1))[:, None]) >> n[:, None]) + y_zp, lo, hi)
    lost = np.maximum.reduce([_bits(w * m) - _SLOPE_BITS, n - _MOST_SHIFT, np.zeros_like(n)])
    shift = n - lost
    if shift.min() < _HALF:
        return None
    slope = (w * m + ((1 << lost) >> 1)) >> lost
    far = np.int64(_FARTHEST) + 1
    least = np.where(codes > lo, (codes << shift[:, None]) - slope[:, None] * x, -far).max(axis=1)
    most = np.where(codes < hi, ((codes + 1) << shift[:, None]) - 1 - slope[:, None] * x, far).min(axis=1)
    start = np.select(
        [(least == -far) & (most == far), least == -far, most == far], [0, most, least], (least + most) >> 1
    )
    exact = (least <= most) & (np.abs(start) < far)
    return Lines(slope, start, shift) if exact.all() else None


def _bits(values: Numbers) -> Numbers:
    """The bits of the magnitudes."""
    return np.ceil(np.log2(np.abs(values).astype(np.float64) + 1)).astype(np.int64)


def scale_numbers(lines: Lines, vector: int) -> NDArray[np.int32]:
    """The numbers of all channels in the order that vector code of chunks of at most ``vector`` bytes reads them."""
    low = ((lines.slope + (1 << (_HALF - 1))) & 0xFFFF) - (1 << (_HALF - 1))
    high = (lines.slope - low) >> _HALF
    numbers = np.stack([high & 0xFFFF, low & 0xFFFF, lines.start >> _HALF, lines.start & 0xFFFF, lines.shift - _HALF])
    parts: list[NDArray[Any]] = []
    first = 0
    while first < lines.slope.size:
        chunk = chunk_bytes(vector, lines.slope.size - first)
        parts.append(numbers[:, first + np.array(quarters(chunk)).reshape(-1)].reshape(-1))
        first += chunk
    return np.concatenate(parts).astype(np.int32)


def quarters(size: int) -> list[list[int]]:
    """Which bytes each of the four int32 vectors takes of ``size`` bytes: by fours of every 128 bits."""
    return [[16 * lane + 4 * quarter + i for lane in range(size // 16) for i in range(4)] for quarter in range(4)]
