"""Convolutions that only scale channels of uint8; `channel_lines.py` has the arithmetic."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions import depthwise_layout
from ..instructions.instruction import ISA_COLUMN, PACKED_COLUMN, SCALE_NUMBERS
from ..instructions.opcodes import columns
from ..vector.add_multiply import scale_16, scale_32, scale_64
from .common import at, at_or

_CONV = columns("conv")
_PIXELS = 128
"""Pixels of which all channels are scaled before the next ones: their codes stay in the first cache."""

_vector_bytes, _chunk_bytes = jit(depthwise_layout.vector_bytes), jit(depthwise_layout.chunk_bytes)


@jit
def scaled_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` on the numbers of `channel_lines.scale_numbers`."""
    channels, vector = at(row, _CONV.in_c), _vector_bytes(at(row, ISA_COLUMN))
    pixels, pitch = (
        at(row, _CONV.batch) * at(row, _CONV.out_h) * at(row, _CONV.out_w),
        at_or(row, _CONV.y_pitch, channels),
    )
    for start in range(0, pixels, _PIXELS):
        x, y = at(row, _CONV.x) + start * channels, at(row, _CONV.y) + at(row, _CONV.y_offset) + start * pitch
        numbers, first = at(row, PACKED_COLUMN), 0
        while first < channels:
            chunk = _chunk_bytes(vector, channels - first)
            _scale(row, chunk, y + first, pitch, x + first, channels, min(_PIXELS, pixels - start), numbers)
            numbers += 4 * SCALE_NUMBERS * chunk
            first += chunk


@jit
def _scale(row: int, chunk: int, y: int, y_step: int, x: int, x_step: int, pixels: int, numbers: int) -> None:
    lo, hi = at(row, _CONV.lo), at(row, _CONV.hi)
    if chunk == 64:
        scale_64(y, y_step, x, x_step, pixels, numbers, lo, hi)
    elif chunk == 32:
        scale_32(y, y_step, x, x_step, pixels, numbers, lo, hi)
    else:
        scale_16(y, y_step, x, x_step, pixels, numbers, lo, hi)
