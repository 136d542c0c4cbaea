"""Convolutions on NHWC images, plain: the reference that the packed kernels are tested equal to."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.opcodes import columns
from .common import BLOCK_BYTES, BLOCKS, at, at_or, fetch
from .product import accumulate, copy_i32, store_row

_CONV, _TRANSPOSED = columns("conv"), columns("conv_transpose")


@jit
def _conv_tap(row: int, acc: int, pixel: int, tap: int) -> None:
    """Add one kernel position to the accumulators of a pixel; ``pixel`` < 0: padding, which counts as the zero
    point.
    """
    groups, channels, outputs = at(row, _CONV.groups), at(row, _CONV.in_c), at(row, _CONV.out_c)
    per_group, width = channels // groups, outputs // groups
    x, element, zero_point = at(row, _CONV.x), at(row, _CONV.x_type), at(row, _CONV.x_zp)
    for c in range(channels):
        value = zero_point if pixel < 0 else fetch(x, element, pixel * channels + c)
        group = c // per_group
        weights = at(row, _CONV.w) + (tap * per_group + c - group * per_group) * outputs + group * width
        accumulate(acc + 4 * group * width, weights, value, width)


@jit
def _conv_pixel(row: int, acc: int, image: int, oy: int, ox: int) -> None:
    copy_i32(acc, at(row, _CONV.bias), at(row, _CONV.out_c))
    height, width, kernel_w = at(row, _CONV.in_h), at(row, _CONV.in_w), at(row, _CONV.kernel_w)
    for ky in range(at(row, _CONV.kernel_h)):
        iy = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top) + ky * at(row, _CONV.dilation_h)
        for kx in range(kernel_w):
            ix = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left) + kx * at(row, _CONV.dilation_w)
            inside = 0 <= iy < height and 0 <= ix < width
            _conv_tap(row, acc, (image * height + iy) * width + ix if inside else -1, ky * kernel_w + kx)


@jit
def conv(row: int, scratch: int) -> None:
    """Convolution; x's zero point is in the bias, padding reads as the zero point."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, outputs = at(row, _CONV.out_h), at(row, _CONV.out_w), at(row, _CONV.out_c)
    pitch = at_or(row, _CONV.y_pitch, outputs)
    for pixel in range(at(row, _CONV.batch) * height * width):
        _conv_pixel(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        store_row(
            at(row, _CONV.y),
            at(row, _CONV.y_type),
            at(row, _CONV.y_offset) + pixel * pitch,
            acc,
            at(row, _CONV.m),
            at(row, _CONV.n),
            outputs,
            at(row, _CONV.y_zp),
            at(row, _CONV.lo),
            at(row, _CONV.hi),
        )


@jit
def _transposed_tap(row: int, acc: int, pixel: int, tap: int) -> None:
    groups, channels = at(row, _TRANSPOSED.groups), at(row, _TRANSPOSED.in_c)
    per_group, width = channels // groups, at(row, _TRANSPOSED.out_c) // groups
    x, element, zero_point = at(row, _TRANSPOSED.x), at(row, _TRANSPOSED.x_type), at(row, _TRANSPOSED.x_zp)
    for c in range(channels):
        value = fetch(x, element, pixel * channels + c) - zero_point
        accumulate(
            acc + 4 * (c // per_group) * width, at(row, _TRANSPOSED.w) + (tap * channels + c) * width, value, width
        )


@jit
def _transposed_pixel(row: int, acc: int, image: int, oy: int, ox: int) -> None:
    copy_i32(acc, at(row, _TRANSPOSED.bias), at(row, _TRANSPOSED.out_c))
    height, width, kernel_w = at(row, _TRANSPOSED.in_h), at(row, _TRANSPOSED.in_w), at(row, _TRANSPOSED.kernel_w)
    stride_h, stride_w = at(row, _TRANSPOSED.stride_h), at(row, _TRANSPOSED.stride_w)
    for ky in range(at(row, _TRANSPOSED.kernel_h)):
        down = oy + at(row, _TRANSPOSED.pad_top) - ky * at(row, _TRANSPOSED.dilation_h)
        if down < 0 or down % stride_h != 0 or down // stride_h >= height:
            continue
        for kx in range(kernel_w):
            right = ox + at(row, _TRANSPOSED.pad_left) - kx * at(row, _TRANSPOSED.dilation_w)
            if right >= 0 and right % stride_w == 0 and right // stride_w < width:
                _transposed_tap(
                    row, acc, (image * height + down // stride_h) * width + right // stride_w, ky * kernel_w + kx
                )


@jit
def conv_transpose(row: int, scratch: int) -> None:
    """Transposed convolution, gathered: each output pixel collects the inputs that reach it."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, outputs = at(row, _TRANSPOSED.out_h), at(row, _TRANSPOSED.out_w), at(row, _TRANSPOSED.out_c)
    for pixel in range(at(row, _TRANSPOSED.batch) * height * width):
        _transposed_pixel(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        store_row(
            at(row, _TRANSPOSED.y),
            at(row, _TRANSPOSED.y_type),
            pixel * outputs,
            acc,
            at(row, _TRANSPOSED.m),
            at(row, _TRANSPOSED.n),
            outputs,
            at(row, _TRANSPOSED.y_zp),
            at(row, _TRANSPOSED.lo),
            at(row, _TRANSPOSED.hi),
        )
