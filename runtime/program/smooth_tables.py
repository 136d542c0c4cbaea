"""Tables of smooth 16-bit functions as their differences.

A table of 65,536 int16 has many values, but the first or second differences of neighbours have few where the function
is smooth. They are stored in the table's place, and summed up once or twice, modulo 2^16, when it is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ORDERS = (1, 2)
"""How often differences are summed up."""


def fewest_differences(table: Array, most: int) -> tuple[int, Array, Array] | None:
    """Order, differences [n] and their values, ascending: those with the fewest values of int16 [n].

    None for other arrays, and where all orders have more than ``most`` values. The first difference is that from 0.
    """
    if table.ndim != 1 or table.dtype != np.int16:
        return None
    found, differences = [], table
    for order in ORDERS:
        differences = np.diff(differences, prepend=np.int16(0))
        values = np.unique(differences)
        if len(values) <= most:
            found.append((order, differences, values))
    return min(found, key=lambda each: len(each[2]), default=None)


def summed(differences: Array, order: int) -> Array:
    """What has these differences of an order; 0: they are the values themselves."""
    for _ in range(order):
        differences = np.cumsum(differences, dtype=differences.dtype)
    return differences
