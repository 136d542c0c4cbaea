"""The proof that no accumulator of a layer overflows, for any input codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.lowering.code_grid import Coded
from qcompiler.lowering.factors import ACCUMULATOR_LIMIT


def signed_sums(weights: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of the positive and of the negative elements of each row, without a wide copy of the weights."""
    positive: NDArray[np.int64] = weights.sum(axis=1, dtype=np.int64, where=weights > 0)
    return positive, weights.sum(axis=1, dtype=np.int64) - positive


def prove_accumulator(weights: NDArray[np.int8], bias: NDArray[np.int64], x: Coded) -> None:
    """Refuse a layer whose int32 accumulator could overflow.

    The bound is exact: per output, the extreme of ``sum w*(x - x_zp)`` over every code that can occur, plus the bias.
    A padded position counts as ``x - x_zp = 0``, so the interval always includes 0.

    Args:
        weights: int8, shape [outputs, products per output].
        bias: integer bias, shape [outputs].
        x: the layer's input.

    Raises:
        UnsupportedError: the bound reaches 2^31.
    """
    low, high = min(0, x.lo - x.grid.zero_point), max(0, x.hi - x.grid.zero_point)
    positive, negative = signed_sums(weights)
    top, bottom = positive * high + negative * low, positive * low + negative * high
    folded = (positive + negative) * x.grid.zero_point
    worst = max(
        int(np.abs(top + bias).max(initial=0)), int(np.abs(bottom + bias).max(initial=0)),
        int(np.abs(bias).max(initial=0)), int(np.abs(bias - folded).max(initial=0)),
    )
    if worst >= ACCUMULATOR_LIMIT:
        raise UnsupportedError(
            f"its accumulator may reach {worst}, beyond int32; use 8-bit codes for its input, or smaller weight codes"
        )
