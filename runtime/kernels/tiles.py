"""Register tiles by instruction set, and the products of whole blocks of rows that are made of them."""

from __future__ import annotations

from collections.abc import Callable

from ..cpu import isa as isas
from ..cpu.jit import jit
from ..instructions.instruction import FIRST_PANEL_COLUMN, PANELS_COLUMN, SCALE_VECTORS, TILE_BYTES, Element
from ..vector.byte_tiles import byte_tile
from ..vector.memory import store_64
from ..vector.product_tiles import product_tile
from ..vector.sum_tiles import (
    BYTES_256,
    LANES,
    PAIR_256,
    PAIR_512,
    PAIR_ANY,
    QUAD_256,
    QUAD_512,
    TILE_ROWS,
    WIDE_256,
    WIDE_512,
    WIDE_ANY,
    Flavour,
    Isa,
    Tile,
    coded,
    make_tile,
)
from .common import at

TILES: dict[Tile, tuple[Flavour, int, int]] = {}
"""Every tile that ends in sums, with its flavour, rows and panels."""

QUAD, PAIR, WIDE = 0, 1, 2
_AVX512, _AVX_VNNI, _AVX2 = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI), int(Isa.AVX2)
I16 = int(Element.I16)
_SOME_ROWS, _FEW_ROWS = 4, 3
coded_panels = jit(isas.coded_panels)

ProductArguments = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""What every product tile is called with; see `product_tiles.product_tile`."""


TileArguments = tuple[int, int, int, int, int, int, int, int, int]
"""What every tile that ends in sums is called with; see `sum_tiles.make_tile`."""


def _tile(flavour: Flavour, rows: int, panels: int) -> Tile:
    tile = make_tile(flavour, rows, panels)
    TILES[tile] = (flavour, rows, panels)
    return tile


def _wide_tiles(flavour: Flavour, panels: int) -> Callable[[int, TileArguments], None]:
    """A compiled function that runs the tile of 6 or 4 rows."""
    all_, some = (_tile(flavour, rows, panels) for rows in (TILE_ROWS, _SOME_ROWS))

    @jit
    def run(rows: int, arguments: TileArguments) -> None:
        if rows == TILE_ROWS:
            all_(*arguments)
        else:
            some(*arguments)

    return run


_wide512_1, _wide512_2, _wide512_3, _wide512_4 = (_wide_tiles(WIDE_512, panels) for panels in (1, 2, 3, 4))
_wide256, _wideany = _wide_tiles(WIDE_256, 1), _wide_tiles(WIDE_ANY, 1)
_quad512_1x1, _quad512_1x2, _quad512_1x3, _quad512_1x4 = (_tile(QUAD_512, 1, p) for p in (1, 2, 3, 4))
_pair512_1x1, _pair512_1x2, _pair512_1x3, _pair512_1x4 = (_tile(PAIR_512, 1, p) for p in (1, 2, 3, 4))
_quad256_1, _pair256_1, _pairany_1 = (_tile(flavour, 1, 1) for flavour in (QUAD_256, PAIR_256, PAIR_ANY))


def _by_rows(flavour: Flavour, panels: int) -> Callable[[int, ProductArguments], None]:
    """A compiled function that runs the tile of 6, 4, 3 or 1 rows."""
    all_, some, few, one = (product_tile(flavour, rows, panels) for rows in (TILE_ROWS, _SOME_ROWS, _FEW_ROWS, 1))

    @jit
    def run(rows: int, arguments: ProductArguments) -> None:
        if rows == TILE_ROWS:
            all_(*arguments)
        elif rows == _SOME_ROWS:
            some(*arguments)
        elif rows == _FEW_ROWS:
            few(*arguments)
        else:
            one(*arguments)

    return run


_quad512_1, _quad512_2, _quad512_3, _quad512_4 = (_by_rows(QUAD_512, panels) for panels in (1, 2, 3, 4))
_pair512_1, _pair512_2, _pair512_3, _pair512_4 = (_by_rows(PAIR_512, panels) for panels in (1, 2, 3, 4))
_quad256, _pair256, _pairany = (_by_rows(flavour, 1) for flavour in (QUAD_256, PAIR_256, PAIR_ANY))


def _coded_tiles(flavour: Flavour, panels: int) -> Callable[[int, int, ProductArguments], None]:
    """A compiled function of (bits, rows, arguments) that runs the tile of 1 to 4 rows on codes of 4 bits, or of 1 or
    2 rows on those of 2.
    """
    one, two, three, four = (product_tile(coded(flavour, 4), rows, panels) for rows in (1, 2, 3, 4))
    one_small, two_small = (product_tile(coded(flavour, 2), rows, panels) for rows in (1, 2))

    @jit
    def run(bits: int, rows: int, arguments: ProductArguments) -> None:
        if bits == 2:
            if rows == 1:
                one_small(*arguments)
            else:
                two_small(*arguments)
        elif rows == 1:
            one(*arguments)
        elif rows == 2:
            two(*arguments)
        elif rows == 3:
            three(*arguments)
        else:
            four(*arguments)

    return run


def _byte_tiles(flavour: Flavour, counts: tuple[int, int, int, int]) -> Callable[[int, int, ProductArguments], None]:
    """A compiled function of (rows, steps that fit, arguments) that runs the tile of so many rows."""
    first, second, third, fourth = counts
    one, two, three, four = (byte_tile(flavour, rows) for rows in counts)

    @jit
    def run(rows: int, fitting: int, arguments: ProductArguments) -> None:
        room = arguments[2] - TILE_BYTES
        if rows == first:
            one(fitting, room, *arguments)
        elif rows == second:
            two(fitting, room, *arguments)
        elif rows == third:
            three(fitting, room, *arguments)
        elif rows == fourth:
            four(fitting, room, *arguments)

    return run


_bytes256 = _byte_tiles(BYTES_256, (TILE_ROWS, _SOME_ROWS, _FEW_ROWS, 1))
_bytes256_coded_4, _bytes256_coded_2 = (_byte_tiles(coded(BYTES_256, bits), (1, 2, 3, 4)) for bits in (4, 2))
_quad512_coded_1, _quad512_coded_4 = (_coded_tiles(QUAD_512, panels) for panels in (1, 4))
_pair512_coded_1, _pair512_coded_4 = (_coded_tiles(PAIR_512, panels) for panels in (1, 4))
_quad256_coded, _pair256_coded = (_coded_tiles(flavour, 1) for flavour in (QUAD_256, PAIR_256))


@jit
def group_size(isa: int, left: int) -> int:
    """Panels that the next tile takes when ``left`` remain: as few tiles of a single panel as possible."""
    if isa != _AVX512:
        return 1
    return 3 if left == 5 else min(left, 4)


@jit
def next_rows(left: int) -> int:
    """Rows of the next tile when ``left`` remain: as few tiles of a single row as possible."""
    if left in (5, 7, 8, 11):
        return _SOME_ROWS
    if left >= TILE_ROWS:
        return TILE_ROWS
    if left >= _SOME_ROWS:
        return _SOME_ROWS
    return _FEW_ROWS if left == _FEW_ROWS else 1


@jit
def next_blocks(left: int) -> int:
    """Tiles of so many rows, one behind the other."""
    if left < 2 * TILE_ROWS:
        return 1
    return left // TILE_ROWS - (1 if left % TILE_ROWS in (1, 2, 5) else 0)


@jit
def run_product(
    isa: int, layout: int, fitting: int, panels: int, rows: int, arguments: ProductArguments
) -> None:
    """Tiles of ``rows`` rows (as `next_rows` chose) and ``panels`` (as `group_size` chose). ``fitting``: steps whose
    byte products may be added in int16; then `TILE_BYTES` in front of the offsets of segments are at the tile's
    disposal.
    """
    if fitting > 0:
        _bytes256(rows, fitting, arguments)
    elif isa != _AVX512:
        _run_narrow(isa, layout, rows, arguments)
    elif layout == QUAD:
        if panels == 4:
            _quad512_4(rows, arguments)
        elif panels == 3:
            _quad512_3(rows, arguments)
        elif panels == 2:
            _quad512_2(rows, arguments)
        else:
            _quad512_1(rows, arguments)
    elif panels == 4:
        _pair512_4(rows, arguments)
    elif panels == 3:
        _pair512_3(rows, arguments)
    elif panels == 2:
        _pair512_2(rows, arguments)
    else:
        _pair512_1(rows, arguments)


@jit
def _run_narrow(isa: int, layout: int, rows: int, arguments: ProductArguments) -> None:
    """One panel, without 512-bit vectors."""
    if layout == QUAD:
        _quad256(rows, arguments)
    elif isa in (_AVX2, _AVX_VNNI):
        _pair256(rows, arguments)
    else:
        _pairany(rows, arguments)


@jit
def run_coded(
    isa: int, layout: int, fitting: int, bits: int, panels: int, rows: int, arguments: ProductArguments
) -> None:
    """A tile of a few rows and 1 or 4 panels of codes; ``fitting`` as for `run_product`."""
    if fitting > 0:
        if bits == 2:
            _bytes256_coded_2(rows, fitting, arguments)
        else:
            _bytes256_coded_4(rows, fitting, arguments)
    elif isa != _AVX512:
        if layout == QUAD:
            _quad256_coded(bits, rows, arguments)
        else:
            _pair256_coded(bits, rows, arguments)
    elif layout == QUAD:
        if panels == 4:
            _quad512_coded_4(bits, rows, arguments)
        else:
            _quad512_coded_1(bits, rows, arguments)
    elif panels == 4:
        _pair512_coded_4(bits, rows, arguments)
    else:
        _pair512_coded_1(bits, rows, arguments)


@jit
def wide_rows(left: int) -> int:
    """Rows of the next wide tile when ``left`` remain; a tile may compute more rows than there are."""
    return _SOME_ROWS if left <= _SOME_ROWS or left in (7, 8) else TILE_ROWS


@jit
def run_wide(
    isa: int,
    panels: int,
    rows: int,
    pointers: int,
    offsets: int,
    b: int,
    panel_bytes: int,
    steps: int,
    fetch: int,
    bias: int,
    acc: int,
) -> None:
    """One tile of ``rows`` rows (as `wide_rows` chose) and ``panels`` of int16 pairs; results int32 [rows, 16 *
    panels] at ``acc``.
    """
    arguments = (pointers, offsets, 1, b, panel_bytes, steps, fetch, bias, acc)
    if isa == _AVX512:
        if panels == 4:
            _wide512_4(rows, arguments)
        elif panels == 3:
            _wide512_3(rows, arguments)
        elif panels == 2:
            _wide512_2(rows, arguments)
        else:
            _wide512_1(rows, arguments)
    elif isa in (_AVX2, _AVX_VNNI):
        _wide256(rows, arguments)
    else:
        _wideany(rows, arguments)


@jit
def run_single(
    isa: int,
    layout: int,
    panels: int,
    pointers: int,
    offsets: int,
    b: int,
    panel_bytes: int,
    steps: int,
    bias: int,
    acc: int,
) -> None:
    """A single row and ``panels`` (as `group_size` chose); results int32 [16 * panels] at ``acc``."""
    if isa != _AVX512:
        if layout == QUAD:
            _quad256_1(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
        elif isa in (_AVX2, _AVX_VNNI):
            _pair256_1(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
        else:
            _pairany_1(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
    elif layout == QUAD:
        if panels == 4:
            _quad512_1x4(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
        elif panels == 3:
            _quad512_1x3(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
        elif panels == 2:
            _quad512_1x2(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
        else:
            _quad512_1x1(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
    elif panels == 4:
        _pair512_1x4(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
    elif panels == 3:
        _pair512_1x3(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
    elif panels == 2:
        _pair512_1x2(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)
    else:
        _pair512_1x1(pointers, offsets, 1, b, panel_bytes, steps, b, bias, acc)


@jit
def packed_bytes(layout: int, steps: int, cols: int) -> int:
    """Bytes of a group's packed weights with its bias and scale; ``steps`` of all segments together."""
    panels = (cols + LANES - 1) // LANES
    return panels * LANES * (4 * (1 + SCALE_VECTORS) + steps * (4 if layout == QUAD else 2))


@jit
def point_rows(pointers: int, start: int, stride: int, rows: int) -> None:
    """The addresses of the rows of a matrix, the last one repeated until a tile is full."""
    for r in range(rows + TILE_ROWS - 1):
        store_64(pointers, r, start + min(r, rows - 1) * stride)


@jit
def columns_of(row: int, cols: int, following: int) -> tuple[int, int, int, int]:
    """The columns that an instruction computes: of how many, the first panel, the one behind the last; and the weights
    that are needed next.
    """
    first, count, panels = at(row, FIRST_PANEL_COLUMN), at(row, PANELS_COLUMN), (cols + LANES - 1) // LANES
    end = first + count if count > 0 else panels
    return cols, first, end, following if end == panels else 0
