"""Random small models calibrated on few numbers: regressors of one-row feeds, and embeddings of few tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.exact_members import Feed, Member, model_of, weight_of

TAILS = ("normal", "laplace", "uniform", "skewed")


def _rows(rng: np.random.Generator, tail: str, rows: int, width: int) -> Any:
    draw: Any = {
        "normal": rng.standard_normal, "laplace": lambda size: rng.laplace(size=size) / np.sqrt(2),
        "uniform": lambda size: rng.uniform(-1.7, 1.7, size), "skewed": lambda size: rng.gamma(2.0, 0.7, size) - 1.4,
    }[tail]  # fmt: skip
    return draw((rows, width)).astype(np.float32)


def regressor(rng: np.random.Generator, how: str) -> Member:
    """Two or three layers, 64 feeds of one row."""
    width, hidden, outputs = (int(rng.integers(low, high)) for low, high in ((4, 16), (16, 48), (1, 4)))
    activation = str(rng.choice(["Relu", "Tanh", "LeakyRelu"]))
    text = f"g (float[N, {width}] x) => (float[N, {outputs}] y) {{ a = MatMul(x, u)  b = Add(a, c) "
    text += f"r = {activation}(b) "
    constants = {"u": weight_of(rng, width, hidden), "c": 0.3 * rng.standard_normal(hidden).astype(np.float32)}
    last = "r"
    if rng.random() < 0.5:
        text, last = text + f"d = MatMul(r, v)  s = {activation}(d) ", "s"
        constants["v"] = weight_of(rng, hidden, hidden)
    constants |= {"w": weight_of(rng, hidden, outputs), "o": rng.standard_normal(outputs)}
    text += "e = MatMul(LAST, w)  y = Add(e, o) }".replace("LAST", last)
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    feeds: list[Feed] = [{"x": _rows(rng, how, 1, width)} for _ in range(64)]
    return Member(model_of(text, constants), feeds, [{"x": _rows(rng, how, 512, width)}], {"y": 25.0})


def embedder(rng: np.random.Generator, how: str) -> Member:
    """The mean of looked-up rows through a layer of gates; 24 feeds of a few tokens."""
    tokens, width = int(rng.integers(50, 400)), int(rng.integers(16, 48))
    text = """g (int64[N, T] ids) => (float[N, 8] y) { e = Gather(table, ids)  h = MatMul(e, u)  s = Sigmoid(h)
        g0 = Mul(h, s)  m = ReduceMean <axes = [1], keepdims = 0> (g0)  y = MatMul(m, w) }"""
    constants = {"table": _rows(rng, how, tokens, width), "w": weight_of(rng, 2 * width, 8)}
    constants["u"] = 1.5 * weight_of(rng, width, 2 * width)
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}

    def feed(rows: int, length: int) -> Feed:
        return {"ids": rng.integers(0, tokens, (rows, length))}

    calibration = [feed(1, int(rng.integers(1, 5))) for _ in range(24)]
    trial = [feed(16, int(rng.integers(1, 9))) for _ in range(8)]
    return Member(model_of(text, constants), calibration, trial, {"y": 20.0})
