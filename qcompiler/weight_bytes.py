"""Bytes that a weight on a grid takes in a file, before there is one: the rules of `qcompiler.packing`, by numbers alone."""

from __future__ import annotations

import numpy as np

from qcompiler.grids.blocks import FACTORS
from qcompiler.packing import MOST_SHARE, SMALLEST, Coded

__all__ = ["stored_bytes"]


def stored_bytes(distinct: int, rows: int, products: int, block: int | None = None) -> int:
    """Bytes of the codes of a weight; scales, of which every grid has as many, are not counted.

    Args:
        distinct: number of levels of its grid.
        rows: output channels.
        products: of a row.
        block: products that have a table in common; the tables and their numbers count, then.
    """
    elements = rows * products
    if elements < SMALLEST:
        return elements
    bits = Coded(np.broadcast_to(np.uint8(0), elements), np.zeros(distinct, np.int8)).bits
    codes = -(-elements * bits // 8) if bits in (2, 4, 8) else 8 * -(-elements // (64 // bits))
    if block is None:
        return codes
    tables = -(-rows * -(-products // block) // 2) + len(FACTORS) * distinct
    return codes + tables if elements * bits // 8 + tables < MOST_SHARE * elements else elements
