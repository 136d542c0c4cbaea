"""Random small models in which exact values meet data: masks, positions, fills and counts.

Calibration shows data as it is, but no padding, short texts and early positions; the feeds of a trial have all of
these. Data are uniform, so calibration sees their range.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]
WIDTH = 16


@dataclass
class Member:
    """A model with feeds.

    Attributes:
        model: float.
        calibration: what the compiler sees.
        trial: what it did not see.
        wanted: by output, the least SQNR in dB; for integers the least share of equal values.
    """

    model: onnx.ModelProto
    calibration: list[Feed]
    trial: list[Feed]
    wanted: Mapping[str, float] = field(default_factory=dict)


def model_of(text: str, constants: Mapping[str, Any]) -> onnx.ModelProto:
    """A model from ONNX's text form."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def weight_of(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[0]), np.float32)


def data_of(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.uniform(-2, 2, shape).astype(np.float32)


# ---------------------------------------------------------------- attention with a mask or bias

_PADDING = {
    "mul": "f = Cast <to = 1> (mask)  u = Unsqueeze(f, one_i)  i = Sub(one, u)  bias = Mul(i, low)  a = Add(s, bias)",
    "where": "b = Cast <to = 9> (mask)  u = Unsqueeze(b, one_i)  bias = Where(u, zero, low)  a = Add(s, bias)",
    "expanded": """b = Cast <to = 9> (mask)  u = Unsqueeze(b, one_i)  z = Shape(s)  e = Expand(u, z)  n = Not(e)
        zeros = ConstantOfShape(z)  bias = Where(n, low, zeros)  a = Add(s, bias)""",
    "scores": "b = Cast <to = 9> (mask)  u = Unsqueeze(b, one_i)  a = Where(u, s, low)",
    "blend": """f = Cast <to = 1> (mask)  u = Unsqueeze(f, one_i)  i = Sub(one, u)  m = Mul(s, u)  bias = Mul(i, low)
    a = Add(m, bias)""",
    "added": "u = Unsqueeze(mask, one_i)  a = Add(s, u)",
}
_RANGES = """z = Shape(x)  t = Gather(z, one_s)  r = Range(zero_s, t, one_s)  row = Unsqueeze(r, zero_i)
col = Unsqueeze(r, one_i)"""
_POSITION = {
    "less": f"{_RANGES}  le = LessOrEqual(row, col)  bias = Where(le, zero, low)  a = Add(s, bias)",
    "trilu": """z = Shape(x)  t = Slice(z, one_i, two_i)  tt = Concat <axis = 0> (t, t)  full = Expand(low, tt)
        bias = Trilu <upper = 1> (full, one_s)  a = Add(s, bias)""",
    "alibi": f"""{_RANGES}  d = Sub(row, col)  e = Abs(d)  f = Cast <to = 1> (e)  bias = Mul(f, slope)
    a = Add(s, bias)""",
    "buckets": f"""{_RANGES}  d = Sub(row, col)  e = Abs(d)  f = Cast <to = 1> (e)  g = Add(f, one)  h = Log(g)
    k = Mul(h, three)
        w = Cast <to = 7> (k)  v = Min(w, last)  rows = Gather(table, v)  bias = Squeeze(rows, two_i)
        a = Add(s, bias)""",
}
FILLS = (-1e4, -1e9, float(np.finfo(np.float32).min))


def attention(rng: np.random.Generator, how: str) -> Member:
    """One head over [B, T, 16]; texts of 6 to 12 tokens in calibration, of up to 40 with padding in the trial."""
    low = float(rng.choice((*FILLS, -np.inf) if how in ("where", "scores", "expanded", "less") else FILLS))
    kind = str(rng.choice({"added": ["float"]}.get(how, ["int64", "int32", "bool", "float"])))
    inputs = f"float[B, T, {WIDTH}] x" + (f", {kind}[B, T] mask" if how in _PADDING else "")
    text = f"""g ({inputs}) => (float[B, T, {WIDTH}] y) {{
        q = MatMul(x, wq)  k = MatMul(x, wk)  v0 = MatMul(x, wv)  kt = Transpose <perm = [0, 2, 1]> (k)
        s0 = MatMul(q, kt)  s = Mul(s0, scale)
        {(_PADDING | _POSITION)[how]}  p = Softmax(a)  h0 = MatMul(p, v0)  y = MatMul(h0, wo) }}"""
    names = {"v": "v0", "k": "k0"} if how == "buckets" else {}
    text = text.replace("k = MatMul(x, wk)", "kk = MatMul(x, wk)").replace(
        "Transpose <perm = [0, 2, 1]> (k)", "Transpose <perm = [0, 2, 1]> (kk)"
    )
    del names
    constants = {name: weight_of(rng, WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")} | {
        "scale": np.float32(0.5), "one": np.float32(1), "zero": np.float32(0), "low": np.float32(low),
        "slope": np.float32(-rng.uniform(0.1, 0.5)),
        "three": np.float32(3), "one_i": np.array([1]), "zero_i": np.array([0]), "two_i": np.array([2]),
        "one_s": np.array(1),
        "zero_s": np.array(0), "last": np.array(11), "table": data_of(rng, 12, 1),
    }  # fmt: skip
    used = {
        name: value
        for name, value in constants.items()
        if name in text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }

    def feed(rows: int, length: int, padded: bool) -> Feed:
        found: Feed = {"x": data_of(rng, rows, length, WIDTH)}
        lengths = rng.integers(2, length + 1, rows) if padded else np.full(rows, length)
        kept = np.arange(length) < lengths[:, None]
        if how in _PADDING:
            found["mask"] = (
                np.where(kept, 0, low).astype(np.float32)
                if how == "added"
                else kept.astype(kind if kind != "float" else np.float32)
            )
        return found

    calibration = [feed(8, int(rng.integers(6, 13)), False) for _ in range(16)]
    return Member(
        model_of(text, used), calibration, [feed(3, int(rng.integers(8, 40)), True) for _ in range(3)], {"y": 20.0}
    )


# ---------------------------------------------------------------- positions

def rotary(rng: np.random.Generator, how: str) -> Member:
    """Rotary positions; those of calibration are below 20, those of the trial go up to 4000."""
    half, base = WIDTH // 2, float(10 ** rng.uniform(2, 6))
    frequencies = (base ** (-np.arange(half) / half)).astype(np.float32)
    angles = {
        "mul": "f = Cast <to = 1> (pos)  u = Unsqueeze(f, two_i)  a = Mul(u, freq)",
        "outer": "f = Cast <to = 1> (pos)  u = Unsqueeze(f, one_i)  a0 = MatMul(column, u)  a = Transpose <perm = [0, "
        "2, 1]> (a0)",
    }[how]
    text = f"""g (float[B, T, {WIDTH}] x, int64[B, T] pos) => (float[B, T, {WIDTH}] y) {{
        {angles}  e = Concat <axis = -1> (a, a)  c = Cos(e)  s = Sin(e)  q = MatMul(x, w)  l, r = Split <axis = -1> (q)
        n = Neg(r)  t = Concat <axis = -1> (n, l)  qc = Mul(q, c)  ts = Mul(t, s)  z = Add(qc, ts)
        y = MatMul(z, v) }}"""
    constants = {"w": weight_of(rng, WIDTH, WIDTH), "v": weight_of(rng, WIDTH, WIDTH)}
    constants |= (
        {"freq": frequencies, "two_i": np.array([2])}
        if how == "mul"
        else {"column": frequencies[None, :, None], "one_i": np.array([1])}
    )

    def feed(length: int, most: int) -> Feed:
        start = int(rng.integers(0, most))
        return {"x": data_of(rng, 1, length, WIDTH), "pos": np.arange(start, start + length, dtype=np.int64)[None]}

    calibration = [feed(int(rng.integers(6, 13)), 8) for _ in range(40)]
    return Member(
        model_of(text, constants), calibration, [feed(int(rng.integers(6, 40)), 4000) for _ in range(3)], {"y": 28.0}
    )


def sinusoid(rng: np.random.Generator, how: str) -> Member:
    """Sines of positions counted by Range, or of a time step, added to what a layer gives."""
    frequencies = (float(10 ** rng.uniform(2, 5)) ** (-np.arange(8) / 8)).astype(np.float32)
    if how == "range":
        where = (
            f"{_RANGES}  f = Cast <to = 1> (col)  a = Mul(f, freq)  si = Sin(a)  co = Cos(a)  e = Concat <axis = -1> "
            "(si, co)"
        )
        inputs, names = "", ["zero_s", "one_s", "zero_i", "one_i"]
    else:
        where = """f = Cast <to = 1> (step)  u = Unsqueeze(f, one_i)  a = Mul(u, freq)  si = Sin(a)  co = Cos(a)
        e0 = Concat <axis = -1> (si, co)
            e1 = MatMul(e0, w2)  e = Unsqueeze(e1, one_i)"""
        inputs, names = ", int64[B] step", ["one_i"]
    text = f"""g (float[B, T, {WIDTH}] x{inputs}) => (float[B, T, {WIDTH}] y) {{
        {where}  q = MatMul(x, w)  h = Add(q, e)  g0 = Relu(h)  y = MatMul(g0, v) }}""".replace(
        "zero_i)  col", "zero_i)  col"
    )
    texts = {"zero_s": np.array(0), "one_s": np.array(1), "zero_i": np.array([0]), "one_i": np.array([1])}
    constants = {
        "w": weight_of(rng, WIDTH, WIDTH),
        "v": weight_of(rng, WIDTH, WIDTH),
        "freq": frequencies,
        **{name: texts[name] for name in names},
    }
    constants |= {} if how == "range" else {"w2": weight_of(rng, WIDTH, WIDTH)}

    def feed(length: int, step: int) -> Feed:
        found: Feed = {"x": data_of(rng, 1, length, WIDTH)}
        return found if how == "range" else found | {"step": np.array([step])}

    calibration = [
        feed(int(rng.integers(6, 13)), int(rng.integers(0, 30) if how == "range" else rng.integers(0, 400)))
        for _ in range(24)
    ]
    trial = [feed(int(rng.integers(20, 200)), int(rng.integers(400, 1000))) for _ in range(3)]
    return Member(model_of(text, constants), calibration, trial, {"y": 20.0})


# ---------------------------------------------------------------- fills

def actions(rng: np.random.Generator, how: str) -> Member:
    """Scores of moves, those that are not legal filled; some rows of the trial allow none."""
    low, count = float(rng.choice([-100.0, *FILLS])), int(rng.integers(6, 12))
    fill = {
        "where": "m = Where(legal, t, low)",
        "blend": "f = Cast <to = 1> (legal)  k = Mul(t, f)  i = Sub(one, f)  b = Mul(i, low)  m = Add(k, b)",
    }[how]
    results = f"int64[N] action, float[N] best, float[N, {count}] masked, float[N, {count}] prob"
    text = f"""g (float[N, {WIDTH}] x, bool[N, {count}] legal) => ({results}) {{
        h = MatMul(x, w)  r = Relu(h)  t = MatMul(r, v)  {fill}
        action = ArgMax <axis = 1, keepdims = 0> (m)  best = ReduceMax <axes = [1], keepdims = 0> (m)  prob = Softmax(m)
        masked = Identity(m) }}"""
    constants = {"w": weight_of(rng, WIDTH, 32), "v": weight_of(rng, 32, count), "low": np.float32(low)}
    constants |= {"one": np.float32(1)} if how == "blend" else {}

    def feed(share: float, empty: bool) -> Feed:
        legal = rng.random((8, count)) < share
        legal[:, 0] |= ~legal.any(axis=1)
        legal[0] &= not empty
        return {"x": data_of(rng, 8, WIDTH), "legal": legal}

    calibration = [feed(float(rng.uniform(0.5, 1)), False) for _ in range(24)]
    trial = [feed(0.4, False) for _ in range(3)] + [feed(0.2, True)]
    return Member(
        model_of(text, constants), calibration, trial, {"action": 0.85, "best": 22.0, "masked": 22.0, "prob": 18.0}
    )


def pooling(rng: np.random.Generator, how: str) -> Member:
    """The largest of the tokens that a mask keeps; or a picture padded with a fill before its MaxPool."""
    low = float(rng.choice((*FILLS, -np.inf) if how != "tokens" else FILLS))
    if how == "tokens":
        text = f"""g (float[B, T, {WIDTH}] x, int64[B, T] attention_mask) => (float[B, {WIDTH}] y) {{
            h = MatMul(x, w)  f = Cast <to = 1> (attention_mask)  u = Unsqueeze(f, two_i)  m = Mul(h, u)
            i = Sub(one, u)  b = Mul(i, low)
            a = Add(m, b)  y = ReduceMax <axes = [1], keepdims = 0> (a) }}"""
        constants: dict[str, Any] = {
            "w": weight_of(rng, WIDTH, WIDTH),
            "one": np.float32(1),
            "low": np.float32(low),
            "two_i": np.array([2]),
        }
    else:
        text = """g (float[B, 3, 12, 12] x) => (float[B, 4, M, M] y) {
            h = Conv(x, w)  p = Pad(h, pads, low)  q = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (p)
            y = Conv(q, v) }"""
        constants = {
            "w": (weight_of(rng, 27, 6).T.reshape(6, 3, 3, 3)),
            "v": weight_of(rng, 6, 4).T.reshape(4, 6, 1, 1),
            "low": np.float32(low),
        }
        constants["pads"] = np.array([0, 0, 1, 1, 0, 0, *rng.integers(0, 2, 2)])

    def feed(rows: int, length: int) -> Feed:
        if how != "tokens":
            return {"x": data_of(rng, rows, 3, 12, 12)}
        lengths = rng.integers(1, length + 1, rows) if rows > 1 else np.array([length])
        return {
            "x": data_of(rng, rows, length, WIDTH),
            "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64),
        }

    calibration = [feed(1, int(rng.integers(6, 13))) for _ in range(40)]
    return Member(
        model_of(text, constants), calibration, [feed(3, int(rng.integers(8, 40))) for _ in range(3)], {"y": 25.0}
    )


# ---------------------------------------------------------------- counts

def mean(rng: np.random.Generator, how: str) -> Member:
    """The mean of the tokens that a mask keeps, of short texts in calibration and of up to 700 tokens in the trial."""
    count = {
        "clip": "z = Shape(h)  e = Expand(u, z)  k = Mul(h, e)  n0 = ReduceSum <keepdims = 0> (e, one_i)  n = Clip(n0, "
        "least)",
        "plain": "k = Mul(h, u)  n = ReduceSum <keepdims = 0> (u, one_i)",
        "other": "k = Mul(h, u)  n0 = ReduceSum <keepdims = 1> (f, one_i)  n = Max(n0, one)",
    }[how]
    text = f"""g (float[B, T, {WIDTH}] x, int64[B, T] attention_mask) => (float[B, {WIDTH}] y) {{
        h = MatMul(x, w)  f = Cast <to = 1> (attention_mask)  u = Unsqueeze(f, two_i)  {count}
        s = ReduceSum <keepdims = 0> (k, one_i)  y = Div(s, n) }}"""
    constants: dict[str, Any] = {"w": weight_of(rng, WIDTH, WIDTH), "two_i": np.array([2]), "one_i": np.array([1])}
    constants |= {"clip": {"least": np.float32(1e-9)}, "other": {"one": np.float32(1)}}.get(how, {})

    def feed(rows: int, length: int) -> Feed:
        lengths = rng.integers(length // 4 + 1, length + 1, rows) if rows > 1 else np.array([length])
        offset = rng.uniform(-1, 1, (rows, 1, WIDTH))
        x = np.clip(data_of(rng, rows, length, WIDTH) / 2 + offset, -2, 2).astype(np.float32)
        return {"x": x, "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64)}

    calibration = [feed(1, int(rng.integers(6, 13))) for _ in range(40)]
    return Member(
        model_of(text, constants), calibration, [feed(3, int(rng.integers(300, 700))) for _ in range(2)], {"y": 25.0}
    )


KINDS: dict[str, tuple[Callable[[np.random.Generator, str], Member], tuple[str, ...]]] = {
    "attention": (attention, (*_PADDING, *_POSITION)),
    "rotary": (rotary, ("mul", "outer")),
    "sinusoid": (sinusoid, ("range", "step")),
    "actions": (actions, ("where", "blend")),
    "pooling": (pooling, ("tokens", "picture")),
    "mean": (mean, ("clip", "plain", "other")),
}
"""By name, what makes a member and the ways it may be written."""
