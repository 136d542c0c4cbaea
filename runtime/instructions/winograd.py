"""Sizes and matrices of 3x3 convolutions by Winograd's F(4x4, 3x3); `winograd_tiles.py` says why they are exact.

Rows of tiles are done together as long as their transformed codes stay in the cache. Plain arithmetic: the kernels
compile these functions.
"""

from __future__ import annotations

from ..cpu.isa import LANES, Isa
from .instruction import Element, Values

TAPS, SIDE = 6, 4
"""Pixels on a side of a tile of the input, of the output."""

PLANES = TAPS * TAPS

INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
WEIGHTS = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 12))
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 2))
"""``OUTPUT ((WEIGHTS w WEIGHTS') * (INPUT x INPUT')) OUTPUT'`` is 576 times the convolution."""

LARGEST_DISTANCE = 1 << 25
"""Sums of weights times codes must be nearer to the middle of those that can occur."""

MOST_TILES = 28
"""Tiles that are transformed together, where a row of them is not longer."""

CHANNELS = 16
"""Input channels are a multiple of these, output channels of `LANES`."""

SPARE_ROWS = 5
"""Rows that the last tile of a product may read and write behind the others."""

_INPUT_COST, _OUTPUT_COST, _WEIGHT_COST, _START_COST = 500, 800, 12, 600_000
"""Of transforming the channels of a tile, of reading a weight from memory (there are eight times as many bytes of
them), of an instruction.
"""


def can_transform(f: Values) -> bool:
    """Whether a convolution has the shape for the transform: 3x3, dense, uint8 codes, whole vectors of channels."""
    shape = (f["kernel_h"], f["kernel_w"], f["stride_h"], f["stride_w"], f["dilation_h"], f["dilation_w"], f["groups"])
    whole = (
        f["in_c"] % CHANNELS == 0 and f["out_c"] % LANES == 0 and min(f["in_c"], f["out_c"], f["out_h"], f["out_w"]) > 0
    )
    return shape == (3, 3, 1, 1, 1, 1, 1) and f["x_type"] == Element.U8 and whole and f["in_w"] <= 1 << 12


def pays(f: Values, isa: Isa, fitting: int = 0) -> bool:
    """Whether the transform is faster, counted in multiplications of int16 pairs; the constants are measured.
    ``fitting``: steps of byte products that may be added in int16.
    """
    tiles, pixels = tiles_of(f["out_h"]) * tiles_of(f["out_w"]), f["out_h"] * f["out_w"]
    channels, outputs = f["in_c"], f["out_c"]
    direct = int(pixels * 9 * channels * outputs / (2 if isa.has_quads else byte_speed(fitting)))
    transforms = tiles * (_INPUT_COST * channels + _OUTPUT_COST * outputs) + _START_COST
    return direct > tiles * PLANES * channels * outputs + transforms + _WEIGHT_COST * PLANES * channels * outputs


def byte_speed(fitting: int) -> float:
    """Speed of byte products added in int16, int16 pairs = 1: where multiplications are the limit, a run of n
    steps takes n + 1 of them, and 2n without.
    """
    return 2 * fitting / (fitting + 1) if fitting else 1.0


def tiles_of(size: int) -> int:
    """Tiles along one side of the output."""
    return (size + SIDE - 1) // SIDE


def tile_rows(across: int, down: int) -> int:
    """Rows of tiles, each of ``across``, that are done together."""
    return min(max(MOST_TILES // across, 1), down)


def transformed_parts(in_c: int, across: int, rows: int) -> tuple[int, int, int, int]:
    """Bytes of: tables, padded lines of int16, transformed codes, products, for ``rows`` rows of ``across`` tiles."""
    tiles = rows * across + SPARE_ROWS
    lines = (SIDE * rows + 2) * (SIDE * across + 2) * 2 * in_c
    return (
        512 + (tiles * 8 + 63) // 64 * 64,
        (lines + 63) // 64 * 64,
        PLANES * tiles * 2 * in_c,
        PLANES * tiles * 64 * 4,
    )


def transformed_bytes(f: Values) -> int:
    """Scratch memory of a transformed convolution."""
    across, down = tiles_of(f["out_w"]), tiles_of(f["out_h"])
    return sum(transformed_parts(f["in_c"], across, tile_rows(across, down)))
