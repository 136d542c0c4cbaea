"""Random small models with parts of different size in an input or an output: detectors, regressors of several units,
scaled features, pictures of bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.helpers.exact_members import Feed, Member, model_of, weight_of


def _scene(rng: np.random.Generator, rows: int, side: int) -> NDArray[Any]:
    """Pictures [rows, 3, side, side] between 0 and 1: a few smooth blobs on a ground, and noise."""
    place = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"))
    found = rng.uniform(0, 1, (rows, 3, 1, 1)) * np.ones((side, side))
    for _ in range(3):
        centre, width = rng.uniform(0, side, (rows, 1, 2, 1, 1)), rng.uniform(1, side / 3, (rows, 1, 1, 1))
        blob = np.exp(-np.square(place - centre).sum(axis=2) / width**2)
        found = found + rng.uniform(-1, 1, (rows, 3, 1, 1)) * blob
    return np.clip(found + 0.03 * rng.standard_normal(found.shape), 0, 1).astype(np.float32)


def detector(rng: np.random.Generator) -> Member:
    """Boxes in pixels beside scores between 0 and 1, in one output."""
    side, width, classes = 16, int(rng.integers(6, 17)), int(rng.integers(2, 9))
    text = f"""g (float[N, 3, {side}, {side}] x) => (float[N, C, A] y) {{
        a = Conv <kernel_shape = [3, 3], strides = [2, 2]> (x, u, c)  r = Relu(a)
        b = Conv <kernel_shape = [3, 3]> (r, v, d)  s = Relu(b)
        p = Conv <kernel_shape = [1, 1]> (s, w, f)  e = Relu(p)  m = Mul(e, size)
        q = Conv <kernel_shape = [1, 1]> (s, z, o)  t = Sigmoid(q)  j = Concat <axis = 1> (m, t)
        y = Reshape(j, flat) }}"""
    constants = {
        "u": weight_of(rng, 27, width).T.reshape(width, 3, 3, 3), "c": 0.1 * rng.standard_normal(width),
        "v": weight_of(rng, 9 * width, width).T.reshape(width, width, 3, 3), "d": 0.1 * rng.standard_normal(width),
        "w": weight_of(rng, width, 4).T.reshape(4, width, 1, 1), "f": rng.uniform(0.5, 1, 4),
        "z": 4 * weight_of(rng, width, classes).T.reshape(classes, width, 1, 1),
        "o": -rng.uniform(1, 4, classes), "size": 10.0 ** rng.uniform(2, 3),
    }  # fmt: skip
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    constants["flat"] = np.array([0, 4 + classes, -1])
    draw: Callable[[int], Feed] = lambda rows: {"x": _scene(rng, rows, side)}  # noqa: E731
    return Member(model_of(text, constants), [draw(1) for _ in range(32)], [draw(8) for _ in range(8)], {"y": 25.0})


def columns(rng: np.random.Generator) -> Member:
    """Several targets, each in its own unit, joined or scaled apart."""
    inputs, sizes = int(rng.integers(6, 25)), 10.0 ** rng.uniform(-2, 4, int(rng.integers(2, 7)))
    text = f"""g (float[N, {inputs}] x) => (float[N, {sizes.size}] y) {{
        a = Gemm(x, u, c)  h = {rng.choice(["Relu", "Tanh"])}(a)  b = Gemm(h, v, d)  s = Mul(b, size)
        y = Add(s, mean) }}"""
    constants = {
        "u": weight_of(rng, inputs, 32), "c": 0.2 * rng.standard_normal(32), "v": weight_of(rng, 32, sizes.size),
        "d": 0.2 * rng.standard_normal(sizes.size), "size": sizes, "mean": sizes * rng.uniform(-1, 1, sizes.size),
    }  # fmt: skip
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    rows = int(rng.choice([1, 4, 16]))

    def draw(count: int) -> Feed:
        return {"x": rng.standard_normal((count, inputs)).astype(np.float32)}

    calibration, trial = [draw(rows) for _ in range(48)], [draw(400) for _ in range(4)]
    return Member(model_of(text, constants), calibration, trial, {"y": 20.0})


def scaled(rng: np.random.Generator) -> Member:
    """Features of very different size, scaled in the graph."""
    features = int(rng.integers(4, 16))
    size, mean = 10.0 ** rng.uniform(-2, 5, features), rng.uniform(-2, 2, features)
    text = f"""g (float[N, {features}] x) => (float[N, 3] y) {{
        c = Sub(x, mean)  n = {rng.choice(["Div(c, size)", "Mul(c, less)"])}  a = Gemm(n, u, d)
        h = {rng.choice(["Relu", "Tanh", "Sigmoid"])}(a)  y = Gemm(h, v, e) }}"""
    constants = {
        "mean": mean * size, "size": size, "less": 1 / size, "u": weight_of(rng, features, 24),
        "d": 0.2 * rng.standard_normal(24), "v": weight_of(rng, 24, 3), "e": rng.standard_normal(3),
    }  # fmt: skip
    used = {name: value for name, value in constants.items() if f"{name})" in text or f"{name}," in text}
    constants = {name: np.asarray(value, np.float32) for name, value in used.items()}
    rows = int(rng.choice([1, 8]))

    def draw(count: int) -> Feed:
        return {"x": (size * (mean + rng.standard_normal((count, features)))).astype(np.float32)}

    calibration, trial = [draw(rows) for _ in range(48)], [draw(500) for _ in range(4)]
    return Member(model_of(text, constants), calibration, trial, {"y": 20.0})


def bytes_of_pictures(rng: np.random.Generator) -> Member:
    """Pictures of bytes with the channels last, as of tf2onnx: a classifier."""
    side, width, classes = 16, int(rng.integers(6, 17)), int(rng.integers(4, 20))
    text = f"""g (uint8[N, {side}, {side}, 3] x) => (float[N, {classes}] y, float[N, {classes}] p) {{
        f = Cast <to = 1> (x)  m = Mul(f, scale)  o = Sub(m, one)  t = Transpose <perm = [0, 3, 1, 2]> (o)
        a = Conv <kernel_shape = [3, 3], strides = [2, 2]> (t, u, c)  r = Relu(a)
        b = Conv <kernel_shape = [3, 3], strides = [2, 2]> (r, v, d)  s = Relu(b)
        g0 = GlobalAveragePool(s)  h = Flatten(g0)  y = Gemm(h, w, e)  p = Softmax(y) }}"""
    constants = {
        "scale": 1 / 127.5, "one": 1.0, "u": weight_of(rng, 27, width).T.reshape(width, 3, 3, 3),
        "c": 0.1 * rng.standard_normal(width), "v": weight_of(rng, 9 * width, width).T.reshape(width, width, 3, 3),
        "d": 0.1 * rng.standard_normal(width), "w": 4 * weight_of(rng, width, classes),
        "e": 0.3 * rng.standard_normal(classes),
    }  # fmt: skip
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}

    def draw(rows: int) -> Feed:
        return {"x": np.rint(255 * _scene(rng, rows, side).transpose(0, 2, 3, 1)).astype(np.uint8)}

    wanted = {"y": 20.0, "p": 20.0}
    return Member(model_of(text, constants), [draw(1) for _ in range(32)], [draw(16) for _ in range(16)], wanted)
