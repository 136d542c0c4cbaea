"""The interpreter: one compiled function that walks an instruction table and calls kernels."""

from __future__ import annotations

from .atomics import exchange_if, fetch_add, load_acquire, pause, store_release
from .instruction import DONE, DUE, ENDED, GROUPS, HELPER, PACKED_COLUMN, PART_BITS, WIDTH
from .jit import jit
from .kernels.convolution import conv, conv_transpose
from .kernels.depthwise import depthwise_conv, is_depthwise
from .kernels.elementwise import binary, cast, compare, logic, requantize, table, where
from .kernels.movement import fill, gather, move, resize_linear
from .kernels.normalization import layernorm, softmax
from .kernels.packed import packed_conv, packed_gemm
from .kernels.piecewise import piecewise
from .kernels.pooling import argmax, average_pool, max_pool, reduce
from .kernels.product import gemm, matmul
from .kernels.recurrent import gru, lstm
from .kernels.wide import is_wide, wide_matmul
from .memory import load_i64, store_64
from .opcodes import BY_NAME

_ROW_BYTES = 8 * WIDTH
_PART_MASK = (1 << PART_BITS) - 1
_NOTHING, _AGAIN = -2, -3
_PATIENCE = 1000
"""Looks at the control block, some 20 ns each, before a thread that waits offers its core to others."""

(
    _CONV, _CONV_TRANSPOSE, _GEMM, _MATMUL, _BINARY, _WHERE, _COMPARE, _LOGIC, _TABLE, _REQUANT, _CAST, _MAX_POOL, _AVERAGE_POOL, _REDUCE,
    _SOFTMAX, _LAYERNORM, _MOVE, _FILL, _GATHER, _RESIZE, _LSTM, _GRU, _ARGMAX, _PIECEWISE,
) = (
    BY_NAME[name].number
    for name in (
        "conv", "conv_transpose", "gemm", "matmul", "binary", "where", "compare", "logic", "table", "requant", "cast", "max_pool",
        "average_pool", "reduce", "softmax", "layernorm", "move", "fill", "gather", "resize_linear", "lstm", "gru", "argmax", "piecewise",
    )
)


@jit
def _convolve(packed: bool, row: int, scratch: int) -> None:
    if not packed:
        conv(row, scratch)
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
    elif opcode == _PIECEWISE:
        piecewise(row, scratch)


@jit
def step(row: int, scratch: int) -> int:
    """Run one instruction; not 0: it met an index out of range."""
    opcode = load_i64(row, 0)
    if opcode == _GATHER:
        return gather(row, scratch)
    if opcode <= _MATMUL or opcode in (_LSTM, _GRU):
        _product(opcode, row, scratch)
    elif opcode <= _CAST:
        _elementwise(opcode, row, scratch)
    else:
        _other(opcode, row, scratch)
    return 0


@jit
def _claim(control: int) -> int:
    """Take the next part of the instruction that is shared out: the index of its row; or ENDED, NOTHING, or AGAIN."""
    word: int = load_acquire(control)
    if word == ENDED:
        return ENDED
    index, part = word >> PART_BITS, word & _PART_MASK
    if part >= load_i64(control + GROUPS, 2 * index + 1):
        return _NOTHING
    if exchange_if(control, word, word + 1) == 0:
        return _AGAIN
    return load_i64(control + GROUPS, 2 * index) + part


@jit
def _share(table: int, index: int, scratch: int, control: int) -> None:
    """Run an instruction in parts together with the helpers; return when all parts are taken."""
    store_64(control + DUE, 0, load_acquire(control + DONE) + load_i64(control + GROUPS, 2 * index + 1))
    store_release(control, index << PART_BITS)
    claimed = _AGAIN
    while claimed != _NOTHING:
        claimed = _claim(control)
        if claimed >= 0:
            step(table + claimed * _ROW_BYTES, scratch)
            fetch_add(control + DONE, 1)


@jit
def _all_done(control: int) -> bool:
    """Wait for the helpers to finish their parts, not for long."""
    for _ in range(_PATIENCE):
        if load_acquire(control + DONE) == load_i64(control + DUE, 0):
            return True
        pause()
    return False


@jit
def _help(table: int, scratch: int, control: int) -> int:
    """Run parts until the run ends (0) or has had nothing to share for a while (1)."""
    idle = 0
    while idle < _PATIENCE:
        claimed = _claim(control)
        if claimed == ENDED:
            return 0
        if claimed >= 0:
            step(table + claimed * _ROW_BYTES, scratch)
            fetch_add(control + DONE, 1)
            idle = 0
        else:
            pause()
            idle += 1
    return 1


@jit
def _lead(table: int, first: int, last: int, scratch: int, control: int) -> int:
    """All instructions in order, those that have parts together with the helpers."""
    if first > 0 and not _all_done(control):
        return -first
    for index in range(first, last):
        if load_i64(control + GROUPS, 2 * index + 1) > 0:
            _share(table, index, scratch, control)
            if not _all_done(control):
                return -(index + 1)
        elif step(table + index * _ROW_BYTES, scratch) != 0:
            store_release(control, ENDED)
            return index + 1
    store_release(control, ENDED)
    return 0


@jit
def execute(table: int, first: int, last: int, scratch: int, control: int) -> int:
    """Run the instructions ``first`` to ``last - 1`` of a linked table.

    Several threads share a run through a control block: int64 words that say which part of which instruction is next
    (`ENDED`: none, the run is over), how many parts were ever done (at `DONE`) and should be (at `DUE`), and for every instruction the first row
    and the number of its parts (at `GROUPS`; behind the last instruction a pair of zeros). One thread leads; the others
    may come late, or never: whoever is there takes the next part. A part is an instruction on some rows of the output.

    Args:
        table: address of an int64 table [rows, WIDTH] whose operands are addresses; proved by `plan.py`.
        first: index of the first instruction; with a control block 0, where to go on, or HELPER.
        last: index behind the last instruction.
        scratch: address of scratch memory, each thread's own.
        control: address of the control block; 0: run alone.

    Returns:
        0, or 1 + the index of the instruction that stopped the run (an index out of range in a gather); or, negative, the
        index to go on with when helpers have finished their parts. A helper: 1 when the run goes on, but had no work for a while.
    """
    if control != 0:
        return _help(table, scratch, control) if first == HELPER else _lead(table, first, last, scratch, control)
    for index in range(first, last):
        if step(table + index * _ROW_BYTES, scratch) != 0:
            return index + 1
    return 0
