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

With ``lengths``, sequence b has ``lengths[b]`` steps (limited to [0, steps]); the outputs behind them are the code of 0,
``clamp(y_zp, lo, hi)``. ``reverse`` runs the steps of each sequence from its last to its first; the output of a step
stands at the position of its input.
"""

from __future__ import annotations

from ..jit import jit
from ..memory import load_i16, load_i32, store_32
from ..opcodes import columns
from .common import BLOCK_BYTES, BLOCKS, at, clamp, fetch, put, rounding
from .product import accumulate, copy_i32

_LSTM, _GRU = columns("lstm"), columns("gru")
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
def _project(acc: int, bias: int, values: int, element: int, start: int, weights: int, rows: int, stride: int, count: int) -> None:
    """``acc = bias + values @ weights[:, :count]``; ``weights`` has rows of ``stride``."""
    copy_i32(acc, bias, count)
    for i in range(rows):
        accumulate(acc, weights + i * stride, fetch(values, element, start + i), count)


@jit
def _steps_of(lengths: int, element: int, present: int, sequence: int, steps: int) -> int:
    if present == 0:
        return steps
    return clamp(fetch(lengths, element, sequence), 0, steps)


@jit
def _lstm_cells(row: int, acc_w: int, acc_r: int, sequence: int, target: int) -> None:
    """The gates of one sequence at one step: updates c and h, writes y."""
    hidden, state, element = at(row, _LSTM.hidden), at(row, _LSTM.h), at(row, _LSTM.y_type)
    m_h, n_h, y_zp, lo, hi = at(row, _LSTM.m_h), at(row, _LSTM.n_h), at(row, _LSTM.y_zp), at(row, _LSTM.lo), at(row, _LSTM.hi)
    m_w, n_w, m_r, n_r = at(row, _LSTM.m_w), at(row, _LSTM.n_w), at(row, _LSTM.m_r), at(row, _LSTM.n_r)
    table_f, cells = at(row, _LSTM.table_f), at(row, _LSTM.c)
    for j in range(hidden):
        o_at, f_at, g_at, cell = hidden + j, 2 * hidden + j, 3 * hidden + j, sequence * hidden + j
        i = _activate(table_f, _requant32(acc_w, j, m_w, n_w) + _requant32(acc_r, j, m_r, n_r))
        o = _activate(table_f, _requant32(acc_w, o_at, m_w, n_w) + _requant32(acc_r, o_at, m_r, n_r))
        f = _activate(table_f, _requant32(acc_w, f_at, m_w, n_w) + _requant32(acc_r, f_at, m_r, n_r))
        g = _activate(at(row, _LSTM.table_g), _requant32(acc_w, g_at, m_w, n_w) + _requant32(acc_r, g_at, m_r, n_r))
        c = clamp((f * load_i32(cells, cell) + 2 * i * g + (1 << 14)) >> 15, -_INT32_MAX - 1, _INT32_MAX)
        store_32(cells, cell, c)
        h = o * _activate(at(row, _LSTM.table_h), (c + 16) >> 5)
        code = clamp(((h * m_h + rounding(n_h)) >> n_h) + y_zp, lo, hi)
        put(state, element, cell, code)
        put(at(row, _LSTM.y), element, target + j, code)


@jit
def _pad_output(y: int, element: int, target: int, count: int, code: int) -> None:
    for j in range(count):
        put(y, element, target + j, code)


@jit
def lstm(row: int, scratch: int) -> None:
    """One direction of an LSTM."""
    steps, batch, inputs, hidden = at(row, _LSTM.steps), at(row, _LSTM.batch), at(row, _LSTM.inputs), at(row, _LSTM.hidden)
    wide, element, reverse = 4 * hidden, at(row, _LSTM.y_type), at(row, _LSTM.reverse) != 0
    acc_w = scratch + BLOCKS * BLOCK_BYTES
    acc_r = acc_w + 4 * wide
    for step in range(steps):
        for sequence in range(batch):
            length = _steps_of(at(row, _LSTM.lengths), at(row, _LSTM.lengths_type), at(row, _LSTM.has_lengths), sequence, steps)
            position = length - 1 - step if reverse and step < length else step
            target = at(row, _LSTM.y_offset) + position * at(row, _LSTM.y_step) + sequence * at(row, _LSTM.y_row)
            if step >= length:
                _pad_output(at(row, _LSTM.y), element, target, hidden, clamp(at(row, _LSTM.y_zp), at(row, _LSTM.lo), at(row, _LSTM.hi)))
                continue
            x_start = (position * batch + sequence) * inputs
            _project(acc_w, at(row, _LSTM.bias_w), at(row, _LSTM.x), at(row, _LSTM.x_type), x_start, at(row, _LSTM.w), inputs, wide, wide)
            _project(acc_r, at(row, _LSTM.bias_r), at(row, _LSTM.h), element, sequence * hidden, at(row, _LSTM.r), hidden, wide, wide)
            _lstm_cells(row, acc_w, acc_r, sequence, target)


@jit
def _gru_reset_state(row: int, acc_w: int, acc_r: int, reset: int, sequence: int) -> None:
    """linear_before_reset = 0: the state's codes scaled by the reset gate, int32 in ``reset``."""
    hidden, y_zp = at(row, _GRU.hidden), at(row, _GRU.y_zp)
    m_w, n_w, m_r, n_r = at(row, _GRU.m_w), at(row, _GRU.n_w), at(row, _GRU.m_r), at(row, _GRU.n_r)
    for j in range(hidden):
        gate = _activate(at(row, _GRU.table_f), _requant32(acc_w, hidden + j, m_w, n_w) + _requant32(acc_r, hidden + j, m_r, n_r))
        distance = fetch(at(row, _GRU.h), at(row, _GRU.h_type), sequence * hidden + j) - y_zp
        store_32(reset, j, clamp(((gate * distance + (1 << 14)) >> 15) + y_zp, at(row, _GRU.lo), at(row, _GRU.hi)))


@jit
def _gru_cells(row: int, acc_w: int, acc_r: int, sequence: int, target: int) -> None:
    """The gates of one sequence at one step: updates h, writes y."""
    hidden, state, element, after = at(row, _GRU.hidden), at(row, _GRU.h), at(row, _GRU.y_type), at(row, _GRU.linear_before_reset) != 0
    m_s, n_s, m_h, n_h, y_zp = at(row, _GRU.m_s), at(row, _GRU.n_s), at(row, _GRU.m_h), at(row, _GRU.n_h), at(row, _GRU.y_zp)
    m_w, n_w, m_r, n_r = at(row, _GRU.m_w), at(row, _GRU.n_w), at(row, _GRU.m_r), at(row, _GRU.n_r)
    table_f = at(row, _GRU.table_f)
    for j in range(hidden):
        r_at, h_at, cell = hidden + j, 2 * hidden + j, sequence * hidden + j
        z = _activate(table_f, _requant32(acc_w, j, m_w, n_w) + _requant32(acc_r, j, m_r, n_r))
        recurrent = _requant32(acc_r, h_at, m_r, n_r)
        if after:
            gate = _activate(table_f, _requant32(acc_w, r_at, m_w, n_w) + _requant32(acc_r, r_at, m_r, n_r))
            recurrent = (gate * recurrent + (1 << 14)) >> 15
        g = _activate(at(row, _GRU.table_g), _requant32(acc_w, h_at, m_w, n_w) + recurrent)
        old = ((fetch(state, element, cell) - y_zp) * m_s + rounding(n_s)) >> n_s
        mixed = z * old + (32768 - z) * g
        code = clamp(((mixed * m_h + rounding(n_h)) >> n_h) + y_zp, at(row, _GRU.lo), at(row, _GRU.hi))
        put(state, element, cell, code)
        put(at(row, _GRU.y), element, target + j, code)


@jit
def _gru_step(row: int, acc_w: int, position: int, sequence: int, target: int) -> None:
    batch, inputs, hidden = at(row, _GRU.batch), at(row, _GRU.inputs), at(row, _GRU.hidden)
    wide = 3 * hidden
    acc_r = acc_w + 4 * wide
    reset = acc_r + 4 * wide
    x_start, weights = (position * batch + sequence) * inputs, at(row, _GRU.r)
    _project(acc_w, at(row, _GRU.bias_w), at(row, _GRU.x), at(row, _GRU.x_type), x_start, at(row, _GRU.w), inputs, wide, wide)
    _project(acc_r, at(row, _GRU.bias_r), at(row, _GRU.h), at(row, _GRU.h_type), sequence * hidden, weights, hidden, wide, wide)
    if at(row, _GRU.linear_before_reset) == 0:
        _gru_reset_state(row, acc_w, acc_r, reset, sequence)
        start = 2 * hidden
        _project(acc_r + 4 * start, at(row, _GRU.bias_r) + 4 * start, reset, 3, 0, weights + start, hidden, wide, hidden)
    _gru_cells(row, acc_w, acc_r, sequence, target)


@jit
def gru(row: int, scratch: int) -> None:
    """One direction of a GRU."""
    steps, batch, hidden = at(row, _GRU.steps), at(row, _GRU.batch), at(row, _GRU.hidden)
    reverse, acc_w = at(row, _GRU.reverse) != 0, scratch + BLOCKS * BLOCK_BYTES
    for step in range(steps):
        for sequence in range(batch):
            length = _steps_of(at(row, _GRU.lengths), at(row, _GRU.lengths_type), at(row, _GRU.has_lengths), sequence, steps)
            position = length - 1 - step if reverse and step < length else step
            target = at(row, _GRU.y_offset) + position * at(row, _GRU.y_step) + sequence * at(row, _GRU.y_row)
            if step >= length:
                zero = clamp(at(row, _GRU.y_zp), at(row, _GRU.lo), at(row, _GRU.hi))
                _pad_output(at(row, _GRU.y), at(row, _GRU.y_type), target, hidden, zero)
            else:
                _gru_step(row, acc_w, position, sequence, target)
