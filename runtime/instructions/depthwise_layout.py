"""Sizes of a depthwise convolution: chunks of channels, interleaved lines, and the scratch memory for them.

Channels are cut into chunks of a vector of codes or less. For each chunk, one or two rows of the output at a time, the
lines of the image that they need are interleaved by groups (`depthwise_tiles.py`), pixels that lie ``stride_w`` apart
side by side in a *phase*: so every tap reads neighbouring pixels. Plain arithmetic: the kernels compile these
functions.
"""

from __future__ import annotations

from ..cpu.isa import Isa
from .conv_windows import MOST_BAND_BYTES, padded_width
from .instruction import Values

LONGEST_VECTOR, SHORTEST_CHUNK = 64, 16
"""Bytes."""

SPARE_PIXELS = 4
"""Pixels behind the phases that the last vector of a row may read."""

_AVX512, _AVX_VNNI, _AVX2 = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI), int(Isa.AVX2)


def is_depthwise(groups: int, in_c: int, out_c: int) -> bool:
    """As many groups as input and output channels."""
    return groups > 1 and groups == in_c and groups == out_c


def vector_bytes(isa: int) -> int:
    """Bytes of a vector of an instruction set."""
    if isa == _AVX512:
        return 64
    return 32 if isa in (_AVX_VNNI, _AVX2) else 16


def chunk_bytes(vector: int, left: int) -> int:
    """Bytes of a pixel's codes in the next chunk when ``left`` bytes remain: the largest part of a vector that is
    full, or the smallest.
    """
    chunk = vector
    while chunk > SHORTEST_CHUNK and chunk > left:
        chunk //= 2
    return chunk


def rows_at_once(stride_h: int, dilation_h: int) -> int:
    """Rows of the output that share interleaved lines."""
    return 2 if stride_h == 1 and dilation_h == 1 else 1


def line_groups(kernel_h: int, rows: int, group: int) -> int:
    """Groups of lines that ``rows`` rows of the output need."""
    return (kernel_h + rows - 1 + group - 1) // group


def phase_pixels(width: int, stride_w: int) -> int:
    """Pixels of one phase of a padded line of ``width`` pixels."""
    return (width + stride_w - 1) // stride_w


def tap_pixel(column: int, stride_w: int, dilation_w: int, phase: int) -> int:
    """Where the first pixel that a column of the kernel reads lies."""
    place = column * dilation_w
    return place % stride_w * phase + place // stride_w


def chunk_order(vector: int, chunk: int, group: int) -> list[list[int]]:
    """The channel of every int32 in a chunk's ``group`` vectors of sums."""
    in_lane, lanes = 4 * group, chunk // SHORTEST_CHUNK
    return [
        [in_lane * (lane % lanes) + 4 * v + i for lane in range(vector // SHORTEST_CHUNK) for i in range(4)]
        for v in range(group)
    ]


def depthwise_bytes(f: Values) -> int:
    """Scratch memory of a depthwise convolution: tables, a row of results, copied lines, interleaved lines."""
    width = padded_width(f["out_w"], f["kernel_w"], f["stride_w"], f["dilation_w"])
    return sum(
        depthwise_parts(
            f["out_w"], width, phase_pixels(width, f["stride_w"]), f["stride_w"], f["kernel_h"], f["kernel_w"]
        )
    )


def depthwise_parts(
    out_w: int, width: int, phase: int, stride_w: int, kernel_h: int, kernel_w: int
) -> tuple[int, int, int, int]:
    """Bytes of: tables, results, copied lines, interleaved lines; each the most that any instruction set needs."""
    pairs = (kernel_h + 2) // 2  # groups of two lines, for two rows
    tables = 4 * 64 + (pairs * kernel_w + 7) // 8 * 64
    results = 2 * (out_w + SPARE_PIXELS) * 2 * LONGEST_VECTOR
    copies = 4 * (width + 1) * LONGEST_VECTOR
    interleaved = (pairs + 1) * 2 * (stride_w * phase + SPARE_PIXELS) * LONGEST_VECTOR
    return tables, results, copies, interleaved


def is_depthwise_size(f: Values) -> bool:
    """Whether a depthwise convolution needs a sane amount of scratch memory."""
    return depthwise_bytes(f) <= MOST_BAND_BYTES
