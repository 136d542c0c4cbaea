"""Weights and factors in the order in which the kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cpu.isa import LANES, TABLE_BYTES, Isa, coded_panels
from ..instructions.instruction import SHIFT_BASE

Packed = NDArray[np.uint8]
ALIGNMENT = 64
"""Bytes: packed weights begin at lines of the cache."""

LEAST_FITTING, MOST_FITTING = 2, 64
"""Steps after which sums are widened: after each one it is no faster than pairs of int16; where more than 64 fit, 1% is
left to gain.
"""

_MOST_SUM = ((1 << 15) - 1) // 255
"""Of weights of one sign that are multiplied with the largest code and added in int16."""

_SAMPLE, _SUMMED = 256, 1 << 18
"""Weights of a column that are looked at before all are; weights whose sums are in memory at once."""


def scale_vectors(m: NDArray[Any], n: NDArray[Any]) -> list[NDArray[np.int32]]:
    """What `requantize.Scale` reads, for multipliers and shifts in the order of the sums.

    Multipliers are doubled as long as they fit: then a small shift means that all sums but small ones saturate every
    code.
    """
    m, n = m.astype(np.int64), n.astype(np.int64)
    bits = np.frexp(np.abs(m).astype(np.float64))[1]
    doublings = np.clip(np.minimum(31 - bits, 62 - n), 0, 30)
    m, n = m << doublings, n + doublings
    left = np.where(m == 0, 0, np.clip(SHIFT_BASE - n, 0, 30))
    n = np.maximum(n, SHIFT_BASE)
    odd = np.zeros_like(m)
    odd[::2] = m[1::2]
    return [values.astype(np.int32) for values in (m, odd, 1 << (n - SHIFT_BASE), n - 32, left)]


def joined(parts: list[Packed]) -> Packed:
    """One array, aligned to a vector."""
    raw = np.empty(sum(part.size for part in parts) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    result = raw[start : start + raw.size - ALIGNMENT]
    np.concatenate(parts, out=result)
    return result


def padded(values: NDArray[Any], fill: int, count: int) -> NDArray[np.int32]:
    """``values``, and ``fill`` after them up to ``count`` elements."""
    result = np.full(count, fill, np.int32)
    result[: values.size] = values
    return result


def pack_weights(weights: NDArray[Any], group: int, segments: int = 1) -> Packed:
    """``weights`` [k, cols] (int8 or codes) as bytes [panels, steps, 16, group], zero-padded at ends of k and cols."""
    k, cols = weights.shape
    length = k // segments
    steps, panels = -(-length // group), -(-cols // LANES)
    full = np.zeros((segments, steps, panels * LANES, group), weights.dtype)
    for place in range(group):  # long copies, as NumPy takes its time for each short one
        rows = weights.reshape(segments, length, cols)[:, place::group]
        full[:, : rows.shape[1], :cols, place] = rows
    blocks = full.reshape(-1).view(f"V{LANES * group * weights.itemsize}").reshape(segments * steps, panels)
    return np.ascontiguousarray(blocks.T).reshape(-1).view(np.uint8)


def fitting_steps(weights: NDArray[np.int8]) -> int:
    """Steps of four weights whose products with any uint8, added up by two of a step, fit int16 in every column; 0
    where they are fewer than `LEAST_FITTING`.

    Such runs begin at the first step of a segment and follow each other; the last may be shorter. An even number:
    a power of two up to `MOST_FITTING`, or no less than all steps of a segment.

    Args:
        weights: [segments, length, cols].
    """
    if _pair_sums(weights[:, :_SAMPLE]).max(initial=0) > _MOST_SUM:
        return 0
    together = max(_SUMMED // max(weights[:, :, :1].size, 1), 1)
    return min(_steps_of_columns(weights[:, :, i : i + together]) for i in range(0, weights.shape[2], together))


def _steps_of_columns(weights: NDArray[np.int8]) -> int:
    """`fitting_steps` of some columns."""
    length: int = weights.shape[1]
    steps, found = -(-length // 4), 1
    sums = _pair_sums(weights)
    while sums.max(initial=0) <= _MOST_SUM:
        if found >= steps:
            return steps + steps % 2
        if found >= MOST_FITTING:
            return found
        found *= 2
        odd = np.zeros((*sums.shape[:2], sums.shape[2] % 2, *sums.shape[3:]), sums.dtype)
        sums = np.concatenate([sums, odd], axis=2)
        sums = sums[:, :, ::2] + sums[:, :, 1::2]
    found //= 2
    return found if found >= LEAST_FITTING else 0


def _pair_sums(weights: NDArray[np.int8]) -> NDArray[np.uint16]:
    """Sums of the positive weights and of the negated negative ones in every pair: [2, segments, steps, 2, cols]."""
    segments, length, cols = weights.shape
    full = np.zeros((segments, -(-length // 4) * 4, cols), np.int8)
    full[:, :length] = weights
    sides = (np.maximum(full, 0), -np.minimum(full, 0))  # 128, as uint8, where the weight is -128
    pairs = [side.view(np.uint8).reshape(segments, -1, 2, 2, cols) for side in sides]
    return np.stack([np.add(pair[:, :, :, 0], pair[:, :, :, 1], dtype=np.uint16) for pair in pairs])


def pack_codes(codes: NDArray[np.uint8], levels: NDArray[Any], bits: int, group: int, isa: Isa) -> list[Packed]:
    """``codes`` [k, cols] in panel groups: ``levels`` repeated, then [blocks, panels, 16, group] bytes of codes."""
    (k, cols), together = codes.shape, 8 // bits
    whole = np.zeros((-(-k // (group * together)) * group * together, cols), np.uint8)
    whole[:k] = codes
    panels = pack_weights(whole, group).reshape(-(-cols // LANES), -1, together, group * LANES)
    blocks = np.bitwise_or.reduce(panels << np.arange(0, 8, bits, dtype=np.uint8)[:, None], axis=2)
    parts, first = [], 0
    while first < len(blocks):
        count = coded_panels(isa, len(blocks) - first)
        parts += [
            np.resize(levels.view(np.uint8), TABLE_BYTES),
            blocks[first : first + count].transpose(1, 0, 2).reshape(-1),
        ]
        first += count
    return parts
