"""LSTM and GRU against their definition, written once more on Python integers; and against the float recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.runtime import requant as spec
from qcompiler.runtime.program import coded_constants
from tests.runtime.checked import build_one, run_one

Q11 = np.arange(-32768, 32768) / 2048.0
SIGMOID = np.clip(np.rint(32768 / (1 + np.exp(-Q11))), 0, 32767).astype(np.int16)
TANH = np.clip(np.rint(32768 * np.tanh(Q11)), -32767, 32767).astype(np.int16)
X_SCALE, W_SCALE, H_SCALE = 0.02, 0.01, 2 / 255
X_ZP, H_ZP = 120, 128
OUT = spec.Range(H_ZP, 0, 255)


def activate(table: Any, value: int) -> int:
    return int(table[spec.clip16(value) + 32768])


class Net:
    """Random weights, their multipliers, and the fields that LSTM and GRU share."""

    def __init__(self, gates: int, seed: int, steps: int = 5, batch: int = 3, inputs: int = 4, hidden: int = 6) -> None:
        rng = np.random.default_rng(seed)
        self.steps, self.batch, self.inputs, self.hidden, self.wide = steps, batch, inputs, hidden, gates * hidden
        self.x = rng.integers(0, 256, (steps, batch, inputs)).astype(np.uint8)
        self.h = rng.integers(0, 256, (batch, hidden)).astype(np.uint8)
        self.w = rng.integers(-127, 128, (inputs, self.wide)).astype(np.int8)
        self.r = rng.integers(-127, 128, (hidden, self.wide)).astype(np.int8)
        self.bias_w, self.bias_r = rng.integers(-3000, 3000, (2, self.wide))
        self.mw, self.mr = spec.multiplier(X_SCALE * W_SCALE * 2048), spec.multiplier(H_SCALE * W_SCALE * 2048)
        self.mh = spec.multiplier(2.0**-30 / H_SCALE)
        self.ms = spec.multiplier(H_SCALE * 32768)

    def fields(self, reverse: int) -> dict[str, Any]:
        ones = np.ones(self.wide, np.int64)
        folded_w = self.bias_w - X_ZP * self.w.astype(np.int64).sum(axis=0)
        folded_r = self.bias_r - H_ZP * self.r.astype(np.int64).sum(axis=0)
        return {
            "w": self.w,
            "r": self.r,
            "bias_w": folded_w,
            "m_w": ones * self.mw[0],
            "n_w": ones * self.mw[1],
            "bias_r": folded_r,
            "m_r": ones * self.mr[0],
            "n_r": ones * self.mr[1],
            "table_f": SIGMOID,
            "table_g": TANH,
            "steps": self.steps,
            "batch": self.batch,
            "inputs": self.inputs,
            "hidden": self.hidden,
            "reverse": reverse,
            "y_step": 2 * self.batch * self.hidden,
            "y_row": self.hidden,
            "y_offset": self.batch * self.hidden,
            "x_zp": X_ZP,
            "m_h": self.mh[0],
            "n_h": self.mh[1],
            "y_zp": H_ZP,
        }

    def project(self, position: int, b: int) -> list[int]:
        sums = [int(v) for v in (self.x[position, b].astype(np.int64) - X_ZP) @ self.w.astype(np.int64) + self.bias_w]
        return [spec.requant(s, *self.mw) for s in sums]

    def recur(self, h: list[int]) -> list[int]:
        sums = [int(v) for v in (np.array(h, np.int64) - H_ZP) @ self.r.astype(np.int64) + self.bias_r]
        return [spec.requant(s, *self.mr) for s in sums]

    def positions(self, length: int, reverse: int) -> list[int]:
        return list(range(length - 1, -1, -1) if reverse else range(length))


def expected_lstm(net: Net, c0: Any, lengths: list[int], reverse: int) -> tuple[Any, Any, Any]:
    y = np.full((net.steps, net.batch, net.hidden), H_ZP)
    hs, cs = net.h.astype(int).tolist(), c0.astype(int).tolist()
    n = net.hidden
    for b in range(net.batch):
        for position in net.positions(lengths[b], reverse):
            gate = [a + r for a, r in zip(net.project(position, b), net.recur(hs[b]), strict=True)]
            for j in range(n):
                i, o, f = (activate(SIGMOID, gate[k * n + j]) for k in range(3))
                g = activate(TANH, gate[3 * n + j])
                cs[b][j] = spec.clip32((f * cs[b][j] + 2 * i * g + (1 << 14)) >> 15)
                hs[b][j] = OUT.code(spec.requant(o * activate(TANH, (cs[b][j] + 16) >> 5), *net.mh))
            y[position, b] = hs[b]
    return y, hs, cs


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("lengths", [None, [5, 2, 0]])
def test_lstm(reverse: int, lengths: list[int] | None) -> None:
    net = Net(4, reverse)
    c0 = np.random.default_rng(9).integers(-(2**17), 2**17, (3, 6)).astype(np.int32)
    inputs: dict[str, Any] = {"x": net.x, "h": net.h, "c": c0}
    more: dict[str, Any] = {"has_lengths": 0}
    if lengths is not None:
        inputs["lengths"], more = np.array(lengths, np.int32), {"has_lengths": 1}
    outputs = {"y": ((5, 2, 3, 6), np.uint8), "h": ((3, 6), np.uint8), "c": ((3, 6), np.int32)}
    result = run_one("lstm", inputs, outputs, table_h=TANH, **net.fields(reverse), **more)
    y, h, c = expected_lstm(net, c0, lengths or [5] * 3, reverse)
    np.testing.assert_array_equal(result["y"][:, 1], y)
    np.testing.assert_array_equal(result["h"], h)
    np.testing.assert_array_equal(result["c"], c)


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (5, 21), (9, 40)])
def test_lstm_of_many_panels(inputs: int, hidden: int) -> None:
    net = Net(4, 5, steps=2, batch=1, inputs=inputs, hidden=hidden)
    c0 = np.random.default_rng(9).integers(-(2**17), 2**17, (1, hidden)).astype(np.int32)
    outputs = {"y": ((2, 2, 1, hidden), np.uint8), "h": ((1, hidden), np.uint8), "c": ((1, hidden), np.int32)}
    result = run_one("lstm", {"x": net.x, "h": net.h, "c": c0}, outputs, table_h=TANH, **net.fields(0))
    y, h, c = expected_lstm(net, c0, [2], 0)
    np.testing.assert_array_equal(result["y"][:, 1], y)
    np.testing.assert_array_equal(result["h"], h)
    np.testing.assert_array_equal(result["c"], c)


def test_lstm_with_tables_of_few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are stored in codes, and read beside the packed weights."""
    net, steps = Net(4, 6), (np.arange(65536) >> 12).astype(np.int16)
    c0 = np.random.default_rng(9).integers(-(2**17), 2**17, (3, 6)).astype(np.int32)
    inputs, outputs = (
        {"x": net.x, "h": net.h, "c": c0},
        {"y": ((5, 2, 3, 6), np.uint8), "h": ((3, 6), np.uint8), "c": ((3, 6), np.int32)},
    )
    fields = net.fields(0) | {"table_f": 2047 * steps, "table_g": 4000 * steps - 32000, "table_h": 4096 * (steps - 8)}
    program, _ = build_one("lstm", inputs, outputs, **fields, has_lengths=0)
    assert sum(info.coding is not None for info in program.constants) == 3
    coded = run_one("lstm", inputs, outputs, **fields, has_lengths=0)
    monkeypatch.setattr(coded_constants, "SMALLEST", 1 << 40)
    for name, value in run_one("lstm", inputs, outputs, **fields, has_lengths=0).items():
        np.testing.assert_array_equal(coded[name], value)
    assert len(np.unique(coded["y"])) > 3


def test_lstm_follows_the_float_recurrence() -> None:
    net = Net(4, 3)
    c0 = np.zeros((3, 6), np.int32)
    y = run_one(
        "lstm",
        {"x": net.x, "h": net.h, "c": c0},
        {"y": ((5, 2, 3, 6), np.uint8), "h": ((3, 6), np.uint8)},
        table_h=TANH,
        **net.fields(0),
    )["y"][:, 1]
    h, c, n = (net.h.astype(float) - H_ZP) * H_SCALE, np.zeros((3, 6)), net.hidden
    for step in range(5):
        gate = ((net.x[step].astype(float) - X_ZP) @ net.w + net.bias_w) * X_SCALE * W_SCALE + (
            h @ net.r * W_SCALE + net.bias_r * H_SCALE * W_SCALE
        )
        i, o, f = (1 / (1 + np.exp(-gate[:, k * n : (k + 1) * n])) for k in range(3))
        c = f * c + i * np.tanh(gate[:, 3 * n :])
        h = o * np.tanh(c)
        assert np.abs((y[step].astype(float) - H_ZP) * H_SCALE - h).max() < 3 * H_SCALE


def expected_gru(net: Net, after: int, lengths: list[int], reverse: int) -> tuple[Any, Any]:
    y, hs, n = np.full((net.steps, net.batch, net.hidden), H_ZP), net.h.astype(int).tolist(), net.hidden
    for b in range(net.batch):
        for position in net.positions(lengths[b], reverse):
            w, r = net.project(position, b), net.recur(hs[b])
            z, reset = ([activate(SIGMOID, w[k * n + j] + r[k * n + j]) for j in range(n)] for k in range(2))
            if after:
                part = [(reset[j] * r[2 * n + j] + (1 << 14)) >> 15 for j in range(n)]
            else:
                scaled = [OUT.code((reset[j] * (hs[b][j] - H_ZP) + (1 << 14)) >> 15) for j in range(n)]
                part = net.recur(scaled)[2 * n :]
            g = [activate(TANH, w[2 * n + j] + part[j]) for j in range(n)]
            old = [spec.requant(hs[b][j] - H_ZP, *net.ms) for j in range(n)]
            hs[b] = [OUT.code(spec.requant(z[j] * old[j] + (32768 - z[j]) * g[j], *net.mh)) for j in range(n)]
            y[position, b] = hs[b]
    return y, hs


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("lengths", [None, [1, 5, 3]])
def test_gru(after: int, reverse: int, lengths: list[int] | None) -> None:
    net = Net(3, 10 + reverse)
    inputs: dict[str, Any] = {"x": net.x, "h": net.h}
    if lengths is not None:
        inputs["lengths"] = np.array(lengths, np.int64)
    outputs = {"y": ((5, 2, 3, 6), np.uint8), "h": ((3, 6), np.uint8)}
    result = run_one(
        "gru",
        inputs,
        outputs,
        linear_before_reset=after,
        m_s=net.ms[0],
        n_s=net.ms[1],
        has_lengths=int(lengths is not None),
        **net.fields(reverse),
    )
    y, h = expected_gru(net, after, lengths or [5] * 3, reverse)
    np.testing.assert_array_equal(result["y"][:, 1], y)
    np.testing.assert_array_equal(result["h"], h)
