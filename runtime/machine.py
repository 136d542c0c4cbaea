"""The interpreter: one compiled function that walks an instruction table and calls kernels."""

from __future__ import annotations

from .instruction import ISA_COLUMN, PACKED_COLUMN, WIDTH
from .jit import cached, jit
from .kernels.convolution import conv, conv_transpose
from .kernels.depthwise import depthwise_conv, is_depthwise
from .kernels.elementwise import binary, cast, compare, logic, requantize, table, where
from .kernels.movement import fill, gather, move, resize_linear
from .kernels.normalization import layernorm, softmax
from .kernels.packed import packed_conv, packed_gemm
from .kernels.pooling import argmax, average_pool, max_pool, reduce
from .kernels.product import gemm, matmul
from .kernels.recurrent import gru, lstm
from .kernels.wide import is_wide, wide_matmul
from .memory import load_i64
from .opcodes import BY_NAME
from .simd import Isa

_ROW_BYTES = 8 * WIDTH
_PLAIN = int(Isa.PLAIN)
(
    _CONV, _CONV_TRANSPOSE, _GEMM, _MATMUL, _BINARY, _WHERE, _COMPARE, _LOGIC, _TABLE, _REQUANT, _CAST, _MAX_POOL, _AVERAGE_POOL, _REDUCE,
    _SOFTMAX, _LAYERNORM, _MOVE, _FILL, _GATHER, _RESIZE, _LSTM, _GRU, _ARGMAX,
) = (
    BY_NAME[name].number
    for name in (
        "conv", "conv_transpose", "gemm", "matmul", "binary", "where", "compare", "logic", "table", "requant", "cast", "max_pool",
        "average_pool", "reduce", "softmax", "layernorm", "move", "fill", "gather", "resize_linear", "lstm", "gru", "argmax",
    )
)


@jit
def _convolve(packed: bool, row: int, scratch: int) -> None:
    if packed:
        packed_conv(row, scratch)
    elif load_i64(row, ISA_COLUMN) != _PLAIN and is_depthwise(row):
        depthwise_conv(row, scratch)
    else:
        conv(row, scratch)


@jit
def _product(opcode: int, row: int, scratch: int) -> None:
    packed = load_i64(row, PACKED_COLUMN) != 0
    if opcode == _CONV:
        _convolve(packed, row, scratch)
    elif opcode == _GEMM:
        if packed:
            packed_gemm(row, scratch)
        else:
            gemm(row, scratch)
    elif opcode == _MATMUL:
        if is_wide(row):
            wide_matmul(row, scratch)
        else:
            matmul(row, scratch)
    elif opcode == _CONV_TRANSPOSE:
        conv_transpose(row, scratch)
    elif opcode == _LSTM:
        lstm(row, scratch)
    elif opcode == _GRU:
        gru(row, scratch)


@jit
def _elementwise(opcode: int, row: int, scratch: int) -> None:
    if opcode == _BINARY:
        binary(row, scratch)
    elif opcode == _WHERE:
        where(row, scratch)
    elif opcode == _COMPARE:
        compare(row, scratch)
    elif opcode == _LOGIC:
        logic(row, scratch)
    elif opcode == _TABLE:
        table(row, scratch)
    elif opcode == _REQUANT:
        requantize(row, scratch)
    elif opcode == _CAST:
        cast(row, scratch)


@jit
def _other(opcode: int, row: int, scratch: int) -> None:
    if opcode == _MAX_POOL:
        max_pool(row, scratch)
    elif opcode == _AVERAGE_POOL:
        average_pool(row, scratch)
    elif opcode == _REDUCE:
        reduce(row, scratch)
    elif opcode == _SOFTMAX:
        softmax(row, scratch)
    elif opcode == _LAYERNORM:
        layernorm(row, scratch)
    elif opcode == _MOVE:
        move(row, scratch)
    elif opcode == _FILL:
        fill(row, scratch)
    elif opcode == _RESIZE:
        resize_linear(row, scratch)
    elif opcode == _ARGMAX:
        argmax(row, scratch)


@cached
def execute(table_address: int, first: int, last: int, scratch: int) -> int:
    """Run the instructions ``first`` to ``last - 1`` of a linked table.

    Args:
        table_address: address of an int64 table [instructions, WIDTH] whose operands are addresses; proved by `plan.py`.
        first: index of the first instruction.
        last: index behind the last instruction.
        scratch: address of scratch memory.

    Returns:
        0, or 1 + the index of the instruction that stopped the run (an index out of range in a gather).
    """
    for index in range(first, last):
        row = table_address + index * _ROW_BYTES
        opcode = load_i64(row, 0)
        if opcode == _GATHER:
            if gather(row, scratch) != 0:
                return index + 1
        elif opcode <= _MATMUL or opcode in (_LSTM, _GRU):
            _product(opcode, row, scratch)
        elif opcode <= _CAST:
            _elementwise(opcode, row, scratch)
        else:
            _other(opcode, row, scratch)
    return 0
