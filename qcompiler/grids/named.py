"""Grids by the names that options use."""

from __future__ import annotations

import re
from collections.abc import Callable

from qcompiler.errors import OptionError, suggestion
from qcompiler.grids.blocks import BLOCKS, PAIR_SAFE_LEVEL
from qcompiler.grids.codebooks import floating, fp4_bnb, nf4, post, power
from qcompiler.grids.fitted import KMeansGrid, PowerGrid, SplitGrid
from qcompiler.grids.grid import LARGEST_LEVEL, GridFamily, uniform

__all__ = ["GRID_NAMES", "grid_label", "grid_named"]

GRID_NAMES = (
    "int2 … int8, power2 … power8, power4(0.5), post2 … post5, nf4, fp4 (fp4_e2m1), fp4_e1m2, fp4_e3m0, fp4_bnb, "
    "split1 … split6, kmeans2 … kmeans8"
)
"""Names of grids, for messages."""

_EXAMPLES = (
    "nf4", "fp4", "fp4_e2m1", "fp4_e1m2", "fp4_e3m0", "fp4_bnb", *(f"int{bits}" for bits in range(2, 9)),
    *(f"power{bits}" for bits in range(2, 9)), *(f"post{bits}" for bits in range(2, 6)),
    *(f"split{bits}" for bits in range(1, 7)), *(f"kmeans{bits}" for bits in range(2, 9)),
)  # fmt: skip
"""Names among which the nearest one is suggested."""

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
    """The grid of a name such as ``int4``, ``power3``, ``power4(0.5)``, ``nf4`` or ``kmeans4``; its ``fit`` gives the
    `Grid` of a layer.

    Args:
        text: the name, see `GRID_NAMES`; with ``/64`` behind it every 64 weights along K have a scale of their own.
        block: weights along K that share a scale, where the name says nothing about it; None: one scale per output
            channel.
        largest: largest magnitude of a level where levels are rounded fractions of it; None: `PAIR_SAFE_LEVEL` for up
            to 16 levels, which costs them next to nothing, and 127 for more.

    Raises:
        OptionError: no such grid, or no such block.
    """
    if "/" in text:
        return _grid_in_blocks(text, largest)
    if text in _FIXED:
        return _FIXED[text](block, largest or PAIR_SAFE_LEVEL)
    match = _NAME.fullmatch(text)
    if match is None or match["kind"] not in _BY_BITS or (match["exponent"] is not None and match["kind"] != "power"):
        raise OptionError(f"unknown grid '{text}'{suggestion(text, _EXAMPLES)}; known: {GRID_NAMES}")
    bits = int(match["bits"])
    few = bits <= (2 if match["kind"] == "split" else 4)
    limit = largest or (PAIR_SAFE_LEVEL if few else LARGEST_LEVEL)
    if match["exponent"] is not None:
        return power(float(match["exponent"]), bits, block, limit)
    return _BY_BITS[match["kind"]](bits, block, limit)


def grid_label(family: GridFamily) -> str:
    """The name by which `grid_named` finds a grid again, with its block."""
    return family.name if family.block is None else f"{family.name}/{family.block}"


def _grid_in_blocks(text: str, largest: int | None) -> GridFamily:
    name, _, size = text.partition("/")
    if size not in map(str, BLOCKS):
        raise OptionError(
            f"grid '{text}': a block has {', '.join(map(str, BLOCKS[:-1]))} or {BLOCKS[-1]} weights, not '{size}'"
        )
    family = grid_named(name, int(size), largest)
    if family.bits > (2 if isinstance(family, SplitGrid) else 4):
        raise OptionError(f"grid '{text}': blocks need a grid of at most 4 bits, such as int4 or nf4")
    return family
