"""What `vpmaddubsw` makes of products of uint8 and int8, in numpy: the oracle of kernels on x86 CPUs without VNNI."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INT16 = np.iinfo(np.int16)


def saturating_product(left: Array, right: Array) -> NDArray[np.int32]:
    """uint8 [M, K] times int8 [K, N]: products of neighbours along K are added in int16, which saturates, and those
    sums in int32.
    """
    padding = left.shape[1] % 2
    a = np.pad(left, ((0, 0), (0, padding))).astype(np.int32)
    b = np.pad(right, ((0, padding), (0, 0))).astype(np.int32)
    pairs = a[:, 0::2, None] * b[None, 0::2] + a[:, 1::2, None] * b[None, 1::2]
    return np.asarray(np.clip(pairs, INT16.min, INT16.max).sum(axis=1, dtype=np.int32))


def exact_in_any_order(codes: Array, largest_code: int = 255) -> bool:
    """True where no order of the products of a channel, int8 [C, K], and no activations up to ``largest_code``
    saturate a pair.
    """
    for sign in (1, -1):
        rows = -np.sort(-sign * codes.astype(np.int32), axis=1)  # the two largest of this sign meet
        active = np.where(rows > 0, largest_code, 0).astype(np.uint8)
        for row, inputs in zip((sign * rows).astype(np.int8), active, strict=True):
            exact = inputs.astype(np.int32) @ row.astype(np.int32)
            if saturating_product(inputs[None], row[:, None])[0, 0] != exact:
                return False
    return True
