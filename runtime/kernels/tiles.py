"""Register tiles by instruction set, and the products of whole blocks of rows that are made of them."""

from __future__ import annotations

from ..epilogue import requantize_i16_1, requantize_i16_6, requantize_u8_1, requantize_u8_6
from ..instruction import Element
from ..jit import jit
from ..memory import prefetch_write, store_64
from ..simd import (
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
    make_tile,
)

TILES: dict[Tile, tuple[Flavour, int, int]] = {}
"""Every tile with its flavour, rows and panels."""


def _tile(flavour: Flavour, rows: int, panels: int) -> Tile:
    tile = make_tile(flavour, rows, panels)
    TILES[tile] = (flavour, rows, panels)
    return tile


_quad512_6x1, _quad512_6x2, _quad512_6x4 = (_tile(QUAD_512, TILE_ROWS, p) for p in (1, 2, 4))
_quad512_1x1, _quad512_1x2, _quad512_1x4 = (_tile(QUAD_512, 1, p) for p in (1, 2, 4))
_pair512_6x1, _pair512_6x2, _pair512_6x4 = (_tile(PAIR_512, TILE_ROWS, p) for p in (1, 2, 4))
_pair512_1x1, _pair512_1x2, _pair512_1x4 = (_tile(PAIR_512, 1, p) for p in (1, 2, 4))
_wide512_6x1, _wide512_6x2, _wide512_6x4 = (_tile(WIDE_512, TILE_ROWS, p) for p in (1, 2, 4))
_quad256_6, _quad256_1 = (_tile(QUAD_256, rows, 1) for rows in (TILE_ROWS, 1))
_pair256_6, _pair256_1 = (_tile(PAIR_256, rows, 1) for rows in (TILE_ROWS, 1))
_pairany_6, _pairany_1 = (_tile(PAIR_ANY, rows, 1) for rows in (TILE_ROWS, 1))
_wide256_6, _wideany_6 = _tile(WIDE_256, TILE_ROWS, 1), _tile(WIDE_ANY, TILE_ROWS, 1)

QUAD, PAIR, WIDE = 0, 1, 2
_AVX512, _AVX_VNNI, _AVX2 = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI), int(Isa.AVX2)
_I16 = int(Element.I16)


@jit
def group_size(isa: int, left: int) -> int:
    """Panels that the next tile takes when ``left`` remain."""
    if isa != _AVX512 or left == 1:
        return 1
    return 4 if left >= 4 else 2


@jit
def _tile_quad512(
    panels: int, single: bool, pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int, acc: int
) -> None:
    if single:
        if panels == 4:
            _quad512_1x4(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        elif panels == 2:
            _quad512_1x2(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        else:
            _quad512_1x1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif panels == 4:
        _quad512_6x4(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif panels == 2:
        _quad512_6x2(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    else:
        _quad512_6x1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)


@jit
def _tile_pair512(
    panels: int, single: bool, pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int, acc: int
) -> None:
    if single:
        if panels == 4:
            _pair512_1x4(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        elif panels == 2:
            _pair512_1x2(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        else:
            _pair512_1x1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif panels == 4:
        _pair512_6x4(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif panels == 2:
        _pair512_6x2(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    else:
        _pair512_6x1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)


@jit
def _tile_wide(isa: int, panels: int, pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int, acc: int) -> None:
    if isa == _AVX512:
        if panels == 4:
            _wide512_6x4(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        elif panels == 2:
            _wide512_6x2(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        else:
            _wide512_6x1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif isa in (_AVX2, _AVX_VNNI):
        _wide256_6(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    else:
        _wideany_6(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)


@jit
def _tile_narrow(
    isa: int, layout: int, single: bool, pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int, acc: int
) -> None:
    """One panel, without 512-bit vectors."""
    if layout == QUAD:
        if single:
            _quad256_1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        else:
            _quad256_6(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif isa in (_AVX2, _AVX_VNNI):
        if single:
            _pair256_1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
        else:
            _pair256_6(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif single:
        _pairany_1(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    else:
        _pairany_6(pointers, offsets, segments, b, panel_bytes, steps, bias, acc)


@jit
def run_tile(
    isa: int, layout: int, panels: int, single: bool, pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int,
    acc: int,
) -> None:
    """One tile of six rows (or a single one) and ``panels`` (as `group_size` chose) panels; results int32 [6, 16 * panels] at ``acc``."""
    if layout == WIDE:
        _tile_wide(isa, panels, pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif isa != _AVX512:
        _tile_narrow(isa, layout, single, pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    elif layout == QUAD:
        _tile_quad512(panels, single, pointers, offsets, segments, b, panel_bytes, steps, bias, acc)
    else:
        _tile_pair512(panels, single, pointers, offsets, segments, b, panel_bytes, steps, bias, acc)


@jit
def requant_rows(
    y: int, y_stride: int, element: int, acc: int, acc_stride: int, rows: int, m: int, n: int, count: int, y_zp: int, lo: int, hi: int
) -> None:
    """Codes of up to six rows of int32 sums; sums, multipliers and shifts are padded to whole vectors."""
    if element == _I16:
        if rows == 1:
            requantize_i16_1(y, y_stride, acc, acc_stride, rows, m, n, count, y_zp, lo, hi)
        else:
            requantize_i16_6(y, y_stride, acc, acc_stride, rows, m, n, count, y_zp, lo, hi)
    elif rows == 1:
        requantize_u8_1(y, y_stride, acc, acc_stride, rows, m, n, count, y_zp, lo, hi)
    else:
        requantize_u8_6(y, y_stride, acc, acc_stride, rows, m, n, count, y_zp, lo, hi)


@jit
def packed_bytes(layout: int, steps: int, cols: int) -> int:
    """Bytes of a group's packed weights with its bias, m and n; ``steps`` of all segments together."""
    panels = (cols + LANES - 1) // LANES
    return panels * LANES * (12 + steps * (4 if layout == QUAD else 2))


@jit
def point_rows(pointers: int, start: int, stride: int, rows: int) -> None:
    """The addresses of the rows of a matrix, the last one repeated until a tile is full."""
    for r in range(rows + TILE_ROWS - 1):
        store_64(pointers, r, start + min(r, rows - 1) * stride)


@jit
def _fetch_rows(target: int, stride: int, rows: int, row_bytes: int) -> None:
    """Ask for the cache lines of a tile's results while it is multiplied: another core may have written there last."""
    for r in range(rows):
        prefetch_write(target + r * stride)
        prefetch_write(target + r * stride + row_bytes - 1)


@jit
def multiply_block(
    isa: int, layout: int, rows: int, pointers: int, offsets: int, segments: int, packed: int, cols: int, steps: int,
    out: tuple[int, int, int, int, int, int], acc: int, shared: bool,
) -> None:
    """``rows`` rows of activations times all columns of packed weights.

    ``pointers``: addresses of the rows, the last one repeated as `point_rows` does; ``offsets``: of their segments, ``steps`` steps each;
    ``out``: address of the first code, bytes between rows, element type, zero point, lo, hi; ``shared``: other cores write such codes, too.
    """
    y, y_stride, element, y_zp, lo, hi = out
    panels = (cols + LANES - 1) // LANES
    head = panels * LANES * 4
    panel_bytes = segments * steps * LANES * (4 if layout == QUAD else 2)
    size = 2 if element == _I16 else 1
    first = 0
    while first < panels:
        group = group_size(isa, panels - first)
        width = min(group * LANES, cols - first * LANES)
        column = packed + first * LANES * 4
        weights = packed + 3 * head + first * panel_bytes
        for top in range(0, rows, TILE_ROWS):
            count = min(TILE_ROWS, rows - top)
            target = y + top * y_stride + first * LANES * size
            if shared:
                _fetch_rows(target, y_stride, count, width * size)
            run_tile(isa, layout, group, count == 1, pointers + 8 * top, offsets, segments, weights, panel_bytes, steps, column, acc)
            requant_rows(target, y_stride, element, acc, group * LANES * 4, count, column + head, column + 2 * head, width, y_zp, lo, hi)
        first += group
