"""Depthwise convolution: one weight a channel and tap, vectorized over channels."""

from __future__ import annotations

from ..instruction import Element
from ..jit import jit
from ..memory import load_i8, load_i16, load_i32, load_u8, store_32
from ..opcodes import columns
from .common import BLOCK_BYTES, BLOCKS, at, size_of
from .product import copy_i32
from .tiles import requant_codes

_CONV = columns("conv")
_I16 = int(Element.I16)


@jit
def is_depthwise(row: int) -> bool:
    """As many groups as input and output channels."""
    return at(row, _CONV.groups) == at(row, _CONV.in_c) and at(row, _CONV.groups) == at(row, _CONV.out_c)


@jit
def _tap(acc: int, x: int, element: int, w: int, count: int) -> None:
    if element == _I16:
        for c in range(count):
            store_32(acc, c, load_i32(acc, c) + load_i16(x, c) * load_i8(w, c))
    else:
        for c in range(count):
            store_32(acc, c, load_i32(acc, c) + load_u8(x, c) * load_i8(w, c))


@jit
def _padding(acc: int, value: int, w: int, count: int) -> None:
    for c in range(count):
        store_32(acc, c, load_i32(acc, c) + value * load_i8(w, c))


@jit
def _window(row: int, acc: int, image: int, oy: int, ox: int) -> None:
    channels, height, width, kernel_w = at(row, _CONV.in_c), at(row, _CONV.in_h), at(row, _CONV.in_w), at(row, _CONV.kernel_w)
    element, w = at(row, _CONV.x_type), at(row, _CONV.w)
    size = size_of(element)
    copy_i32(acc, at(row, _CONV.bias), channels)
    for ky in range(at(row, _CONV.kernel_h)):
        iy = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top) + ky * at(row, _CONV.dilation_h)
        for kx in range(kernel_w):
            ix = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left) + kx * at(row, _CONV.dilation_w)
            weights = w + (ky * kernel_w + kx) * channels
            if 0 <= iy < height and 0 <= ix < width:
                _tap(acc, at(row, _CONV.x) + ((image * height + iy) * width + ix) * channels * size, element, weights, channels)
            else:
                _padding(acc, at(row, _CONV.x_zp), weights, channels)


@jit
def depthwise_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` where every channel is its own group."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, channels, element = at(row, _CONV.out_h), at(row, _CONV.out_w), at(row, _CONV.out_c), at(row, _CONV.y_type)
    m, n, y_zp, lo, hi = at(row, _CONV.m), at(row, _CONV.n), at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi)
    for pixel in range(at(row, _CONV.batch) * height * width):
        _window(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        requant_codes(at(row, _CONV.y) + pixel * channels * size_of(element), element, acc, m, n, channels, y_zp, lo, hi)
