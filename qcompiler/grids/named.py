"""Grids by the names that options use."""

from __future__ import annotations

import re
from collections.abc import Callable

from qcompiler.errors import OptionError
from qcompiler.grids.codebooks import floating, fp4_bnb, nf4, post, power
from qcompiler.grids.fitted import KMeansGrid, PowerGrid, SplitGrid
from qcompiler.grids.grid import LARGEST_LEVEL, GridFamily, uniform

__all__ = ["GRID_NAMES", "grid_named"]

PAIR_SAFE_LEVEL = 64
"""Two weights of one sign then sum to at most 128, which int8 kernels that saturate multiply exactly."""

GRID_NAMES = (
    "int2 … int8, power2 … power8, power4(0.5), post2 … post5, nf4, fp4 (fp4_e2m1), fp4_e1m2, fp4_e3m0, fp4_bnb, split1 … split6, kmeans2 … kmeans8"
)
"""The names, for people."""

_NAME = re.compile(r"(?P<kind>[a-z]+)(?P<bits>\d)(?:\((?P<exponent>\d+(?:\.\d+)?|\.\d+)\))?")

_FIXED: dict[str, Callable[[int | None, int], GridFamily]] = {
    "nf4": nf4,
    "fp4": lambda block, _: floating(2, 1, block),
    "fp4_e2m1": lambda block, _: floating(2, 1, block),
    "fp4_e1m2": lambda block, _: floating(1, 2, block),
    "fp4_e3m0": lambda block, _: floating(3, 0, block),
    "fp4_bnb": fp4_bnb,
}

_BY_BITS: dict[str, Callable[[int, int | None, int], GridFamily]] = {
    "int": lambda bits, block, _: uniform(bits, block),
    "power": PowerGrid,
    "post": post,
    "split": SplitGrid,
    "kmeans": KMeansGrid,
}


def grid_named(text: str, block: int | None = None, largest: int | None = None) -> GridFamily:
    """The grid of a name such as ``int4``, ``power3``, ``power4(0.5)``, ``nf4`` or ``kmeans4``; its ``fit`` gives the `Grid` of a layer.

    Args:
        text: the name, see `GRID_NAMES`.
        block: products along a row that share a scale; None: the whole row.
        largest: largest magnitude of a level where levels are rounded fractions of it; None: `PAIR_SAFE_LEVEL` for up to 16 levels, which
            costs them next to nothing, and 127 for more.

    Raises:
        OptionError: no such grid.
    """
    if text in _FIXED:
        return _FIXED[text](block, largest or PAIR_SAFE_LEVEL)
    match = _NAME.fullmatch(text)
    if match is None or match["kind"] not in _BY_BITS or (match["exponent"] is not None and match["kind"] != "power"):
        raise OptionError(f"unknown grid '{text}'; known: {GRID_NAMES}")
    bits = int(match["bits"])
    few = bits <= (2 if match["kind"] == "split" else 4)
    limit = largest or (PAIR_SAFE_LEVEL if few else LARGEST_LEVEL)
    if match["exponent"] is not None:
        return power(float(match["exponent"]), bits, block, limit)
    return _BY_BITS[match["kind"]](bits, block, limit)
