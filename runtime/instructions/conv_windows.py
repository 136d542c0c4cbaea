"""How a convolution reads its image: windows as segments, and the band of padded lines that is copied to scratch
memory.

A window is read as *segments*: whole lines of the kernel where a window's pixels lie side by side, else single taps. An
image that needs padding (or whose codes must become int16) is copied band by band: the lines that some rows of the
output need, padded with the zero point on all sides, so that every window lies at a fixed distance from its pixel.
A transposed convolution multiplies whole lines of the image by lines of the kernel and adds the results up in a line of
sums. Plain arithmetic: the kernels compile these functions.
"""

from __future__ import annotations

from .instruction import TILE_BYTES, ZERO_BYTES, Element, Values

BAND_BYTES = 1 << 18
"""A band larger than this holds the lines of a single row of the output: it should stay in the second cache."""

MOST_BAND_BYTES = 1 << 27
"""Larger lines (an absurd stride) are left to the plain kernel."""

SLACK = 64
"""Bytes behind a band that the last step of a window may read."""


def reads_lines(groups: int, dilation_w: int) -> bool:
    """Whether a segment is a line of the kernel, not a single tap."""
    return groups == 1 and dilation_w == 1


def segment_count(kernel_h: int, kernel_w: int, by_lines: bool) -> int:
    """Segments in a window."""
    return kernel_h if by_lines else kernel_h * kernel_w


def padded_width(out_w: int, kernel_w: int, stride_w: int, dilation_w: int) -> int:
    """Pixels that the windows of a row of the output cover."""
    return (out_w - 1) * stride_w + (kernel_w - 1) * dilation_w + 1


def band_lines(rows: int, kernel_h: int, stride_h: int, dilation_h: int) -> int:
    """Lines of the image that ``rows`` rows of the output need."""
    return (rows - 1) * stride_h + (kernel_h - 1) * dilation_h + 1


def band_rows(out_h: int, line_bytes: int, kernel_h: int, stride_h: int, dilation_h: int) -> int:
    """Rows of the output whose lines fit a band; at least one."""
    lines = BAND_BYTES // max(line_bytes, 1) - (kernel_h - 1) * dilation_h - 1
    return min(max(lines // stride_h + 1, 1), out_h)


def band_bytes(f: Values) -> int:
    """Scratch memory for a band of int16 codes."""
    line = 2 * f["in_c"] * padded_width(f["out_w"], f["kernel_w"], f["stride_w"], f["dilation_w"])
    one, all_rows = (
        line * band_lines(rows, f["kernel_h"], f["stride_h"], f["dilation_h"]) for rows in (1, max(f["out_h"], 1))
    )
    return min(all_rows, max(one, BAND_BYTES))


def is_banded(f: Values) -> bool:
    """Whether the bands of a convolution are of a sane size."""
    return band_bytes(f) <= MOST_BAND_BYTES


def summed_pixels(in_w: int, out_w: int, kernel_w: int, stride_w: int, pad_left: int) -> int:
    """Pixels in a line of sums of a transposed convolution: those that the image reaches, and those of the output."""
    return max((in_w - 1) * stride_w + kernel_w, pad_left + out_w)


def summed_line_bytes(in_w: int, in_c: int) -> int:
    """A line of the image as int16, each pixel in whole pairs."""
    return (in_w * ((in_c + 1) // 2) * 4 + 63) // 64 * 64


def summed_bytes(f: Values) -> int:
    """Scratch memory of a transposed convolution for a tile, zeros, a line of the image and a line of sums."""
    pixels = summed_pixels(f["in_w"], f["out_w"], f["kernel_w"], f["stride_w"], f["pad_left"])
    sums = (4 * pixels * f["out_c"] + 63) // 64 * 64
    return TILE_BYTES + ZERO_BYTES + summed_line_bytes(f["in_w"], f["in_c"]) + sums


def is_summed(f: Values) -> bool:
    """Whether a transposed convolution can be computed by lines: the taps of a kernel's line side by side, codes that
    fit int16 without their zero point, lines of a sane size.
    """
    fits = f["x_zp"] == 0 or (f["x_type"] == Element.U8 and 0 <= f["x_zp"] < 1 << 8)
    dense = f["groups"] == 1 and f["dilation_w"] == 1 and min(f["in_c"], f["out_c"]) > 0
    return fits and dense and summed_bytes(f) <= MOST_BAND_BYTES
