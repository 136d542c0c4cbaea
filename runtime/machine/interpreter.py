"""The interpreter: one compiled function that walks an instruction table and calls kernels."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import FORM_COLUMN, PACKED_COLUMN, WIDTH, Form
from ..instructions.opcodes import BY_NAME
from ..kernels.convolution import conv, conv_transpose, packed_conv_transpose
from ..kernels.depthwise import depthwise_conv, is_depthwise, scaled_conv
from ..kernels.elementwise import binary, requantize, table
from ..kernels.logic import compare, logic, where
from ..kernels.movement import cast, fill, gather, move, resize_linear, scatter
from ..kernels.normalization import layernorm, softmax
from ..kernels.packed import coded_gemm, is_coded, packed_conv, packed_gemm
from ..kernels.piecewise import piecewise
from ..kernels.pooling import average_pool, max_pool
from ..kernels.product import gemm, matmul
from ..kernels.recurrent import gru, lstm
from ..kernels.reductions import argmax, reduce, topk
from ..kernels.transformed import transformed_conv
from ..kernels.wide import is_wide, wide_matmul
from ..vector.memory import load_i64

ROW_BYTES = 8 * WIDTH
_TRANSFORMED, _SCALED = int(Form.TRANSFORMED), int(Form.SCALED)

(
    _CONV,
    _CONV_TRANSPOSE,
    _GEMM,
    _MATMUL,
    _BINARY,
    _WHERE,
    _COMPARE,
    _LOGIC,
    _TABLE,
    _REQUANT,
    _CAST,
    _MAX_POOL,
    _AVERAGE_POOL,
    _REDUCE,
    _SOFTMAX,
    _LAYERNORM,
    _MOVE,
    _FILL,
    _GATHER,
    _RESIZE,
    _LSTM,
    _GRU,
    _ARGMAX,
    _PIECEWISE,
    _TOPK,
    _SCATTER,
) = (
    BY_NAME[name].number
    for name in (
        "conv",
        "conv_transpose",
        "gemm",
        "matmul",
        "binary",
        "where",
        "compare",
        "logic",
        "table",
        "requant",
        "cast",
        "max_pool",
        "average_pool",
        "reduce",
        "softmax",
        "layernorm",
        "move",
        "fill",
        "gather",
        "resize_linear",
        "lstm",
        "gru",
        "argmax",
        "piecewise",
        "topk",
        "scatter",
    )
)


@jit
def _convolve(packed: bool, row: int, scratch: int) -> None:
    if not packed:
        conv(row, scratch)
    elif load_i64(row, FORM_COLUMN) == _TRANSFORMED:
        transformed_conv(row, scratch)
    elif load_i64(row, FORM_COLUMN) == _SCALED:
        scaled_conv(row, scratch)
    elif is_depthwise(row):
        depthwise_conv(row, scratch)
    else:
        packed_conv(row, scratch)


@jit
def _product(opcode: int, row: int, scratch: int) -> None:
    packed = load_i64(row, PACKED_COLUMN) != 0
    if opcode == _CONV:
        _convolve(packed, row, scratch)
    elif opcode == _GEMM:
        if packed and is_coded(row):
            coded_gemm(row, scratch)
        elif packed:
            packed_gemm(row, scratch)
        else:
            gemm(row, scratch)
    elif opcode == _MATMUL:
        if is_wide(row):
            wide_matmul(row, scratch)
        else:
            matmul(row, scratch)
    elif opcode == _CONV_TRANSPOSE:
        if packed:
            packed_conv_transpose(row, scratch)
        else:
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
    elif opcode == _TOPK:
        topk(row, scratch)
    elif opcode == _PIECEWISE:
        piecewise(row, scratch)


@jit
def step(row: int, scratch: int) -> int:
    """Run one instruction; not 0: it met an index out of range."""
    opcode = load_i64(row, 0)
    if opcode == _GATHER:
        return gather(row, scratch)
    if opcode == _SCATTER:
        return scatter(row, scratch)
    if opcode in (_CONV, _CONV_TRANSPOSE, _GEMM, _MATMUL, _LSTM, _GRU):
        _product(opcode, row, scratch)
    elif opcode in (_BINARY, _WHERE, _COMPARE, _LOGIC, _TABLE, _REQUANT, _CAST):
        _elementwise(opcode, row, scratch)
    else:
        _other(opcode, row, scratch)
    return 0


@jit
def execute(table: int, first: int, last: int, scratch: int) -> int:
    """Run the instructions ``first`` to ``last - 1`` of a linked table.

    Args:
        table: address of an int64 table [rows, WIDTH] whose operands are addresses; proved by `bind.py`.
        first: index of the first instruction.
        last: index behind the last instruction.
        scratch: address of scratch memory.

    Returns:
        0, or 1 + the index of the instruction that stopped the run (an index out of range in a gather or scatter).
    """
    for index in range(first, last):
        if step(table + index * ROW_BYTES, scratch) != 0:
            return index + 1
    return 0
