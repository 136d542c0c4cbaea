"""LSTM and GRU. This docstring is their definition; the roundings happen in this order and nowhere else.

Notation: ``R(a, m, n) = (a*m + 2^(n-1)) >> n``; ``sat16``, ``sat32`` saturate; ``out(v) = min(max(v + y_zp, lo), hi)``.
Tables hold 65536 int16: the activation of the Q11 number ``index - 32768``, in Q15 (so 1.0 is 32767).

For every step, with x the input codes and h the state's codes (on the grid of y)::

    w_j = R(bias_w[j] + sum_i x_i W[i, j], m_w[j], n_w[j])                # Q11; x's zero point is folded into bias_w
    r_j = R(bias_r[j] + sum_i h_i R[i, j], m_r[j], n_r[j])                # Q11; y_zp is folded into bias_r

LSTM, gates in the order i, o, f, c, cell state c an int32 in Q16::

    i, o, f = table_f[sat16(w + r)];   g = table_g[sat16(w + r)]
    c = sat32((f*c + 2*i*g + 2^14) >> 15)
    h = out(R(o * table_h[sat16((c + 2^4) >> 5)], m_h, n_h))              # m_h, n_h: Q30 -> codes

GRU, gates in the order z, r, h::

    z, r = table_f[sat16(w + r)]
    linear_before_reset = 1:  g = table_g[sat16(w_h + ((r * r_h + 2^14) >> 15))]
    linear_before_reset = 0:  k = clamp(y_zp + ((r * (h - y_zp) + 2^14) >> 15), lo, hi), and r_h from k instead of h;
                              g = table_g[sat16(w_h + r_h)]
    h = out(R(z * R(h - y_zp, m_s, n_s) + (32768 - z) * g, m_h, n_h))     # m_s, n_s: state codes -> Q15

With ``lengths``, sequence b has ``lengths[b]`` steps (limited to [0, steps]); the outputs behind them are the code of
0, ``clamp(y_zp, lo, hi)``. ``reverse`` runs the steps of each sequence from its last to its first; the output of a step
stands at the position of its input.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import ISA_COLUMN, PACKED_COLUMN, SCALE_VECTORS, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_i32, store_8, store_16, store_32, store_64
from ..vector.sum_tiles import LANES
from .bands import gather_run, layout_of
from .common import BLOCK_BYTES, BLOCKS, at, clamp, fetch, put, rounding, size_of
from .product import accumulate, copy_i32
from .tiles import QUAD, group_size, packed_bytes, run_single

_LSTM, _GRU = columns("lstm"), columns("gru")
_I16 = int(Element.I16)
_INT32_MAX = (1 << 31) - 1


@jit
def _sat16(value: int) -> int:
    return clamp(value, -32768, 32767)


@jit
def _activate(table: int, value: int) -> int:
    """An activation of a Q11 number, saturated to 16 bits, in Q15."""
    return load_i16(table, _sat16(value) + 32768)


@jit
def _requant32(acc: int, j: int, m: int, n: int) -> int:
    shift = load_i32(n, j)
    return (load_i32(acc, j) * load_i32(m, j) + rounding(shift)) >> shift


@jit
def _area(wide: int) -> int:
    """Bytes of a part of the scratch memory: int32 for all gates, in whole vectors."""
    return (4 * (wide + LANES) + 63) // 64 * 64


@jit
def _project(
    acc: int, bias: int, values: int, element: int, start: int, weights: int, rows: int, stride: int, count: int
) -> None:
    """``acc = bias + values @ weights[:, :count]``; ``weights`` has rows of ``stride``."""
    copy_i32(acc, bias, count)
    for i in range(rows):
        accumulate(acc, weights + i * stride, fetch(values, element, start + i), count)


@jit
def _steps(layout: int, k: int) -> int:
    return (k + 3) // 4 if layout == QUAD else (k + 1) // 2


@jit
def _multiply(
    isa: int, scratch: int, run: int, source: int, element: int, k: int, packed: int, cols: int, acc: int
) -> int:
    """``acc = bias + codes @ weights`` with packed weights; the address behind them. The codes are copied to ``run``
    as tiles want them.
    """
    layout, panels = layout_of(isa, element), (cols + LANES - 1) // LANES
    steps, head = _steps(layout, k), panels * LANES * 4
    panel_bytes = steps * LANES * (4 if layout == QUAD else 2)
    gather_run(run, source, layout, element, k)
    store_64(scratch, 0, run)
    store_64(scratch, 1, 0)
    first = 0
    while first < panels:
        group = group_size(isa, panels - first)
        weights, column = packed + (1 + SCALE_VECTORS) * head + first * panel_bytes, first * LANES * 4
        run_single(isa, layout, group, scratch, scratch + 8, weights, panel_bytes, steps, packed + column, acc + column)
        first += group
    return packed + packed_bytes(layout, steps, cols)


@jit
def _steps_of(lengths: int, element: int, present: int, sequence: int, steps: int) -> int:
    if present == 0:
        return steps
    return clamp(fetch(lengths, element, sequence), 0, steps)


@jit
def _gate_indices(indices: int, acc_w: int, acc_r: int, m_w: int, n_w: int, m_r: int, n_r: int, count: int) -> None:
    """Where the activations of the gates stand in their tables: int32."""
    for j in range(count):
        store_32(indices, j, _sat16(_requant32(acc_w, j, m_w, n_w) + _requant32(acc_r, j, m_r, n_r)) + 32768)


@jit
def _look_up(values: int, table: int, count: int) -> None:
    """Replace int32 indices by the int16 of a table."""
    for j in range(count):
        store_32(values, j, load_i16(table, load_i32(values, j)))


@jit
def _update_cells(cells: int, gates: int, indices: int, hidden: int) -> None:
    """c = sat32((f*c + 2*i*g + 2^14) >> 15), and where its activation stands in the table."""
    i, f, g = gates, gates + 8 * hidden, gates + 12 * hidden
    for j in range(hidden):
        total = load_i32(f, j) * load_i32(cells, j) + 2 * load_i32(i, j) * load_i32(g, j)
        c = clamp((total + (1 << 14)) >> 15, -_INT32_MAX - 1, _INT32_MAX)
        store_32(cells, j, c)
        store_32(indices, j, _sat16((c + 16) >> 5) + 32768)


@jit
def _state_codes(codes: int, gate: int, count: int, m: int, n: int, zero_point: int, lo: int, hi: int) -> None:
    """``out(R(gate * codes, m, n))``, in place."""
    half = rounding(n)
    for j in range(count):
        store_32(codes, j, clamp(((load_i32(gate, j) * load_i32(codes, j) * m + half) >> n) + zero_point, lo, hi))


@jit
def _store_codes(base: int, element: int, start: int, codes: int, count: int) -> None:
    """The low bits of ``count`` int32."""
    target = base + start * size_of(element)
    if element == _I16:
        for j in range(count):
            store_16(target, j, load_i32(codes, j))
    else:
        for j in range(count):
            store_8(target, j, load_i32(codes, j))


@jit
def _lstm_cells(row: int, acc_w: int, acc_r: int, gates: int, sequence: int, target: int) -> None:
    """The gates of one sequence at one step: updates c and h, writes y."""
    hidden, element = at(row, _LSTM.hidden), at(row, _LSTM.y_type)
    codes = gates + _area(4 * hidden)
    _gate_indices(
        gates, acc_w, acc_r, at(row, _LSTM.m_w), at(row, _LSTM.n_w), at(row, _LSTM.m_r), at(row, _LSTM.n_r), 4 * hidden
    )
    _look_up(gates, at(row, _LSTM.table_f), 3 * hidden)
    _look_up(gates + 12 * hidden, at(row, _LSTM.table_g), hidden)
    _update_cells(at(row, _LSTM.c) + 4 * sequence * hidden, gates, codes, hidden)
    _look_up(codes, at(row, _LSTM.table_h), hidden)
    m_h, n_h, y_zp, lo, hi = (
        at(row, _LSTM.m_h),
        at(row, _LSTM.n_h),
        at(row, _LSTM.y_zp),
        at(row, _LSTM.lo),
        at(row, _LSTM.hi),
    )
    _state_codes(codes, gates + 4 * hidden, hidden, m_h, n_h, y_zp, lo, hi)
    _store_codes(at(row, _LSTM.h), element, sequence * hidden, codes, hidden)
    _store_codes(at(row, _LSTM.y), element, target, codes, hidden)


@jit
def _pad_output(y: int, element: int, target: int, count: int, code: int) -> None:
    for j in range(count):
        put(y, element, target + j, code)


@jit
def _lstm_step(row: int, scratch: int, position: int, sequence: int, target: int) -> None:
    batch, inputs, hidden, element = (
        at(row, _LSTM.batch),
        at(row, _LSTM.inputs),
        at(row, _LSTM.hidden),
        at(row, _LSTM.h_type),
    )
    wide, packed = 4 * hidden, at(row, PACKED_COLUMN)
    acc_w = scratch + BLOCKS * BLOCK_BYTES
    acc_r = acc_w + _area(wide)
    gates, run = acc_r + _area(wide), acc_r + 3 * _area(wide)
    x_type, x_start, h_start = at(row, _LSTM.x_type), (position * batch + sequence) * inputs, sequence * hidden
    if packed != 0:
        isa, x, h = (
            at(row, ISA_COLUMN),
            at(row, _LSTM.x) + x_start * size_of(x_type),
            at(row, _LSTM.h) + h_start * size_of(element),
        )
        packed = _multiply(isa, scratch, run, x, x_type, inputs, packed, wide, acc_w)
        _multiply(isa, scratch, run, h, element, hidden, packed, wide, acc_r)
    else:
        _project(acc_w, at(row, _LSTM.bias_w), at(row, _LSTM.x), x_type, x_start, at(row, _LSTM.w), inputs, wide, wide)
        _project(acc_r, at(row, _LSTM.bias_r), at(row, _LSTM.h), element, h_start, at(row, _LSTM.r), hidden, wide, wide)
    _lstm_cells(row, acc_w, acc_r, gates, sequence, target)


@jit
def lstm(row: int, scratch: int) -> None:
    """One direction of an LSTM."""
    steps, batch, hidden = at(row, _LSTM.steps), at(row, _LSTM.batch), at(row, _LSTM.hidden)
    reverse = at(row, _LSTM.reverse) != 0
    for step in range(steps):
        for sequence in range(batch):
            length = _steps_of(
                at(row, _LSTM.lengths), at(row, _LSTM.lengths_type), at(row, _LSTM.has_lengths), sequence, steps
            )
            position = length - 1 - step if reverse and step < length else step
            target = at(row, _LSTM.y_offset) + position * at(row, _LSTM.y_step) + sequence * at(row, _LSTM.y_row)
            if step >= length:
                zero = clamp(at(row, _LSTM.y_zp), at(row, _LSTM.lo), at(row, _LSTM.hi))
                _pad_output(at(row, _LSTM.y), at(row, _LSTM.y_type), target, hidden, zero)
            else:
                _lstm_step(row, scratch, position, sequence, target)


@jit
def _gru_reset_state(row: int, acc_w: int, acc_r: int, reset: int, sequence: int) -> None:
    """linear_before_reset = 0: the state's codes scaled by the reset gate, int32 in ``reset``."""
    hidden, y_zp = at(row, _GRU.hidden), at(row, _GRU.y_zp)
    m_w, n_w, m_r, n_r = at(row, _GRU.m_w), at(row, _GRU.n_w), at(row, _GRU.m_r), at(row, _GRU.n_r)
    for j in range(hidden):
        gate = _activate(
            at(row, _GRU.table_f), _requant32(acc_w, hidden + j, m_w, n_w) + _requant32(acc_r, hidden + j, m_r, n_r)
        )
        distance = fetch(at(row, _GRU.h), at(row, _GRU.h_type), sequence * hidden + j) - y_zp
        store_32(reset, j, clamp(((gate * distance + (1 << 14)) >> 15) + y_zp, at(row, _GRU.lo), at(row, _GRU.hi)))


@jit
def _gru_cells(row: int, acc_w: int, acc_r: int, gates: int, sequence: int, target: int) -> None:
    """The gates of one sequence at one step: updates h, writes y."""
    hidden, state, element, after = (
        at(row, _GRU.hidden),
        at(row, _GRU.h),
        at(row, _GRU.y_type),
        at(row, _GRU.linear_before_reset) != 0,
    )
    m_s, n_s, m_h, n_h, y_zp = (
        at(row, _GRU.m_s),
        at(row, _GRU.n_s),
        at(row, _GRU.m_h),
        at(row, _GRU.n_h),
        at(row, _GRU.y_zp),
    )
    m_w, n_w, m_r, n_r = at(row, _GRU.m_w), at(row, _GRU.n_w), at(row, _GRU.m_r), at(row, _GRU.n_r)
    _gate_indices(gates, acc_w, acc_r, m_w, n_w, m_r, n_r, 2 * hidden)
    _look_up(gates, at(row, _GRU.table_f), 2 * hidden)
    for j in range(hidden):
        h_at, cell, z = 2 * hidden + j, sequence * hidden + j, load_i32(gates, j)
        recurrent = _requant32(acc_r, h_at, m_r, n_r)
        if after:
            recurrent = (load_i32(gates, hidden + j) * recurrent + (1 << 14)) >> 15
        g = _activate(at(row, _GRU.table_g), _requant32(acc_w, h_at, m_w, n_w) + recurrent)
        old = ((fetch(state, element, cell) - y_zp) * m_s + rounding(n_s)) >> n_s
        mixed = z * old + (32768 - z) * g
        code = clamp(((mixed * m_h + rounding(n_h)) >> n_h) + y_zp, at(row, _GRU.lo), at(row, _GRU.hi))
        put(state, element, cell, code)
        put(at(row, _GRU.y), element, target + j, code)


@jit
def _gru_step(row: int, scratch: int, position: int, sequence: int, target: int) -> None:
    batch, inputs, hidden, element = (
        at(row, _GRU.batch),
        at(row, _GRU.inputs),
        at(row, _GRU.hidden),
        at(row, _GRU.h_type),
    )
    wide, packed = 3 * hidden, at(row, PACKED_COLUMN)
    acc_w = scratch + BLOCKS * BLOCK_BYTES
    acc_r = acc_w + _area(wide)
    gates, reset, run = acc_r + _area(wide), acc_r + 2 * _area(wide), acc_r + 3 * _area(wide)
    x_type, x_start, h_start, weights = (
        at(row, _GRU.x_type),
        (position * batch + sequence) * inputs,
        sequence * hidden,
        at(row, _GRU.r),
    )
    if packed != 0:
        isa, x, h = (
            at(row, ISA_COLUMN),
            at(row, _GRU.x) + x_start * size_of(x_type),
            at(row, _GRU.h) + h_start * size_of(element),
        )
        packed = _multiply(isa, scratch, run, x, x_type, inputs, packed, wide, acc_w)
        _multiply(isa, scratch, run, h, element, hidden, packed, wide, acc_r)
    else:
        _project(acc_w, at(row, _GRU.bias_w), at(row, _GRU.x), x_type, x_start, at(row, _GRU.w), inputs, wide, wide)
        _project(acc_r, at(row, _GRU.bias_r), at(row, _GRU.h), element, h_start, weights, hidden, wide, wide)
    if at(row, _GRU.linear_before_reset) == 0:
        _gru_reset_state(row, acc_w, acc_r, reset, sequence)
        start = 2 * hidden
        _project(
            acc_r + 4 * start, at(row, _GRU.bias_r) + 4 * start, reset, 3, 0, weights + start, hidden, wide, hidden
        )
    _gru_cells(row, acc_w, acc_r, gates, sequence, target)


@jit
def gru(row: int, scratch: int) -> None:
    """One direction of a GRU."""
    steps, batch, hidden = at(row, _GRU.steps), at(row, _GRU.batch), at(row, _GRU.hidden)
    reverse = at(row, _GRU.reverse) != 0
    for step in range(steps):
        for sequence in range(batch):
            length = _steps_of(
                at(row, _GRU.lengths), at(row, _GRU.lengths_type), at(row, _GRU.has_lengths), sequence, steps
            )
            position = length - 1 - step if reverse and step < length else step
            target = at(row, _GRU.y_offset) + position * at(row, _GRU.y_step) + sequence * at(row, _GRU.y_row)
            if step >= length:
                zero = clamp(at(row, _GRU.y_zp), at(row, _GRU.lo), at(row, _GRU.hi))
                _pad_output(at(row, _GRU.y), at(row, _GRU.y_type), target, hidden, zero)
            else:
                _gru_step(row, scratch, position, sequence, target)
