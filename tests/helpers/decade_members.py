"""Random small models whose values span decades: log spectra, of octaves too, logarithms of sums and quotients, and
what divides by the size of small signals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.helpers.exact_members import Feed, Member, model_of, weight_of


def _loud(rng: np.random.Generator, decades: float, *shape: int) -> NDArray[Any]:
    """Rows whose amplitudes differ by half as many decades (their powers by all)."""
    size = 10.0 ** rng.uniform(-decades / 2, 0.0, (shape[0], *[1] * (len(shape) - 1)))
    return np.asarray(size * rng.standard_normal(shape), np.float32)


def _bands(rng: np.random.Generator, count: int, bins: int) -> NDArray[Any]:
    """Triangles over neighbouring bins [bins, count], as of mel bands."""
    centres = np.sort(rng.choice(np.arange(1, bins - 1), count, replace=False))
    edges = np.concatenate([[0], centres, [bins - 1]]).astype(float)
    place = np.arange(bins)[:, None]
    up = (place - edges[None, :-2]) / np.maximum(edges[1:-1] - edges[:-2], 1)
    down = (edges[None, 2:] - place) / np.maximum(edges[2:] - edges[1:-1], 1)
    return np.asarray(np.maximum(np.minimum(up, down), 0), np.float32)


def _sound(rng: np.random.Generator, rows: int, samples: int, decades: float) -> NDArray[Any]:
    """Tones and coloured noise, loud and quiet: [rows, samples] within -1 and 1."""
    time = np.arange(samples)
    size = 10.0 ** rng.uniform(-decades / 2, 0.0, (rows, 1))
    tones = sum(rng.uniform(0, 0.3) * np.sin(rng.uniform(0.02, 2.5) * time + rng.uniform(0, 6)) for _ in range(4))
    noise = np.cumsum(rng.standard_normal((rows, samples)), axis=1) / 40 + 0.02 * rng.standard_normal((rows, samples))
    return np.asarray(np.clip(size * (tones + noise - noise.mean(axis=1, keepdims=True)), -1, 1), np.float32)


def log_spectrum(rng: np.random.Generator) -> Member:
    """A log spectrum in the graph: windowed Fourier transform, power or magnitude, mel bands or none, ln or log10."""
    size = int(rng.choice([64, 128, 200, 256]))
    hop, bins, count = size // int(rng.integers(2, 5)), size // 2 + 1, int(rng.integers(6, 25))
    angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    window = {"hann": np.hanning(size), "hamming": np.hamming(size), "none": np.ones(size)}
    taps = window[str(rng.choice(list(window)))] * np.stack([np.cos(angle), -np.sin(angle)])
    text = f"""g (float[N, T] x) => (float[N, B, M] y) {{ a = Unsqueeze(x, one)
        re = Conv <kernel_shape = [{size}], strides = [{hop}]> (a, u)  im = Conv <kernel_shape = [{size}],
        strides = [{hop}]> (a, v)  """
    text += str(rng.choice(["rr = Mul(re, re)  ii = Mul(im, im)  ", "rr = Pow(re, two)  ii = Pow(im, two)  "]))
    text += "p = Add(rr, ii)  "
    text += str(rng.choice(["s = Identity(p)  ", "s = Sqrt(p)  "]))
    banded = ["t = Transpose <perm = [0, 2, 1]> (s)  m = MatMul(t, mel)  ", "m = MatMul(melt, s)  "]
    text += str(rng.choice([*banded, "m = Identity(s)  "]))
    text += str(rng.choice(["e = Add(m, eps)  ", "e = Max(m, eps)  ", "e = Clip(m, eps)  "]))
    decibels = "l = Log(e)  d = Div(l, ten)  y = Mul(d, k) }"
    text += str(rng.choice(["y = Log(e) }", "l = Log(e)  y = Div(l, ten) }", decibels]))
    mel = _bands(rng, count, bins) / float(rng.choice([1, 20]))
    constants = {
        "one": np.array([1]), "u": taps[0][:, None].astype(np.float32), "v": taps[1][:, None].astype(np.float32),
        "two": np.float32(2), "mel": mel, "melt": np.ascontiguousarray(mel.T), "ten": np.float32(np.log(10)),
        "k": np.float32(10), "eps": np.float32(10.0 ** -rng.uniform(6, 10)),
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if f"{name})" in text or f"{name}," in text}
    decades, samples = rng.uniform(2, 4), int(size * rng.integers(6, 12))
    draw: Callable[[], Feed] = lambda: {"x": _sound(rng, 1, samples, decades)}  # noqa: E731
    return Member(model_of(text, constants), [draw() for _ in range(16)], [draw() for _ in range(8)], {"y": 25.0})


def log_of_power(rng: np.random.Generator) -> Member:
    """Logarithm, quotient or root of the power of a projection."""
    inputs, width = int(rng.integers(16, 48)), int(rng.integers(8, 33))
    ends = {
        "logarithm": "e = Add(q, eps)  y = Log(e) }",
        "level": "m = ReduceMean <axes = [1]> (q)  e = Add(m, eps)  l = Log(e)  y = Mul(l, k) }",
        "root": "m = ReduceSum(q, axes)  e = Max(m, eps)  r = Sqrt(e)  y = Log(r) }",
        "ratio": "m = ReduceMean <axes = [1]> (q)  e = Add(m, eps)  f = Add(q, eps)  d = Div(f, e)  y = Log(d) }",
        "geometric": "e = Add(q, eps)  l = Log(e)  m = ReduceMean <axes = [1]> (l)  y = Exp(m) }",
    }
    text = f"g (float[N, {inputs}] x) => (float[N, M] y) {{ a = MatMul(x, w)  q = Mul(a, a)  "
    text += ends[str(rng.choice(list(ends)))]
    constants = {
        "w": weight_of(rng, inputs, width), "eps": np.float32(10.0 ** -rng.uniform(6, 10)), "axes": np.array([1]),
        "k": np.float32(4.343),
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if f"{name})" in text}
    decades = rng.uniform(3, 6)
    draw: Callable[[], Feed] = lambda: {"x": _loud(rng, decades, 8, inputs)}  # noqa: E731
    return Member(model_of(text, constants), [draw() for _ in range(32)], [draw() for _ in range(12)], {"y": 25.0})


def by_size(rng: np.random.Generator) -> Member:
    """What divides by the size of a signal: RMS, variance, sum of exponentials, reciprocal roots."""
    inputs, outputs = int(rng.integers(16, 48)), int(rng.integers(4, 12))
    ends = {
        "rms": "q = Mul(a, a)  m = ReduceMean <axes = [1]> (q)  e = Add(m, eps)  r = Sqrt(e)  n = Div(a, r)  ",
        "rsqrt": """q = Mul(a, a)  m = ReduceMean <axes = [1]> (q)  e = Add(m, eps)  s = Sqrt(e)  r = Reciprocal(s)
            n = Mul(a, r)  """,
        "variance": """b = ReduceMean <axes = [1]> (a)  c = Sub(a, b)  q = Mul(c, c)  m = ReduceMean <axes = [1]> (q)
            e = Add(m, eps)  r = Pow(e, half)  n = Mul(c, r)  """,
        "exponentials": "p = Exp(t)  m = ReduceSum(p, axes)  n = Div(p, m)  ",
        "softplus": "p = Softplus(t)  m = ReduceSum(p, axes)  n = Div(p, m)  ",
        "mean": "p = Abs(a)  m = ReduceMean <axes = [1]> (p)  e = Add(m, eps)  n = Div(a, e)  ",
    }
    end = ends[str(rng.choice(list(ends)))]
    text = f"""g (float[N, {inputs}] x) => (float[N, {outputs}] y) {{
        a = MatMul(x, w)  t = Mul(a, k)  {end} y = MatMul(n, v) }}"""
    constants = {
        "w": weight_of(rng, inputs, inputs), "v": weight_of(rng, inputs, outputs), "axes": np.array([1]),
        "eps": np.float32(10.0 ** -rng.uniform(8, 12)), "half": np.float32(-0.5), "k": np.float32(rng.uniform(2, 6)),
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if f"{name})" in text}
    decades = rng.uniform(3, 5)
    draw: Callable[[], Feed] = lambda: {"x": _loud(rng, decades, 8, inputs)}  # noqa: E731
    return Member(model_of(text, constants), [draw() for _ in range(32)], [draw() for _ in range(12)], {"y": 22.0})


def magnitudes(rng: np.random.Generator) -> Member:
    """A network on the magnitudes of a spectrum, with weights the larger the quieter a bin is."""
    size, width, outputs = int(rng.choice([64, 128])), int(rng.integers(8, 24)), int(rng.integers(2, 6))
    bins, hop, samples = size // 2 + 1, size // 2, int(size * rng.integers(6, 10))
    angle = 2 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    taps = (np.hanning(size) * np.concatenate([np.cos(angle), -np.sin(angle)]))[:, None].astype(np.float32)
    draw: Callable[[], Feed] = lambda: {"x": _sound(rng, 1, samples, 2.0)}  # noqa: E731
    calibration, trial = [draw() for _ in range(16)], [draw() for _ in range(8)]
    frames = np.lib.stride_tricks.sliding_window_view(np.concatenate([feed["x"][0] for feed in calibration]), size)
    loudness = np.abs(np.fft.rfft(frames[::hop] * np.hanning(size))).mean(axis=0).astype(np.float32)
    root = str(rng.choice(["s = Sqrt(p)", "s = Pow(p, half)"]))
    text = f"""g (float[N, T] x) => (float[N, {outputs}] y) {{ a = Unsqueeze(x, one)
        f = Conv <kernel_shape = [{size}], strides = [{hop}]> (a, taps)
        re = Slice(f, zero, bins, one)  im = Slice(f, bins, end, one)  rr = Pow(re, two)  ii = Pow(im, two)
        p = Add(rr, ii)  {root}
        c = Conv <kernel_shape = [3], pads = [1, 1]> (s, w)  h = Relu(c)  m = ReduceMean <axes = [2], keepdims = 0> (h)
        y = MatMul(m, v) }}"""
    constants = {
        "one": np.array([1]), "zero": np.array([0]), "bins": np.array([bins]), "end": np.array([2 * bins]),
        "taps": taps, "two": np.float32(2), "half": np.float32(0.5),
        "w": (rng.standard_normal((width, bins, 3)) / loudness[:, None] / bins).astype(np.float32),
        "v": weight_of(rng, width, outputs),
    }  # fmt: skip
    constants = {name: value for name, value in constants.items() if f"{name})" in text or f"{name}," in text}
    return Member(model_of(text, constants), calibration, trial, {"y": 26.0})


def octaves(rng: np.random.Generator) -> Member:
    """A log spectrum octave by octave: low-pass filters that halve the rate, and filters of some tones behind each."""
    count, tones, taps = int(rng.integers(4, 7)), int(rng.integers(4, 9)), int(rng.choice([32, 48]))
    angle = np.outer(np.pi * 2.0 ** (-np.arange(tones) / tones) / 2, np.arange(taps) - taps / 2)
    window = np.hanning(taps) / taps
    low = np.sinc((np.arange(taps) - (taps - 1) / 2) / 2) * np.hanning(taps) / 2
    text, parts, hop = "g (float[N, T] x) => (float[N, B, M] y) { x0 = Unsqueeze(x, one)  ", [], 2**count
    for level in range(count):
        conv = f"kernel_shape = [{taps}], pads = [{taps // 2}, {taps // 2 - 1}]"
        for part in ("re", "im"):
            text += f"{part}{level} = Conv <{conv}, strides = [{hop >> level}]> (x{level}, {part})  "
        text += f"x{level + 1} = Conv <{conv}, strides = [2]> (x{level}, low)  " if level < count - 1 else ""
        text += f"c{level} = Unsqueeze(re{level}, last)  d{level} = Neg(im{level})  "
        text += f"e{level} = Unsqueeze(d{level}, last)  s{level} = Concat <axis = 3> (c{level}, e{level})  "
        parts.append(f"s{level}")
    root = str(rng.choice(["p = Sqrt(q)  r = Mul(p, p)  ", "r = Identity(q)  "]))
    text += f"""s = Concat <axis = 1> ({', '.join(parts)})  ss = Mul(s, s)
        q = ReduceSum <keepdims = 0, noop_with_empty_axes = {int(rng.integers(2))}> (ss, last)  {root}
        e = Add(r, eps)  y = Log(e) }}"""
    constants = {
        "one": np.array([1]), "last": np.array([3]), "low": low[None, None].astype(np.float32),
        "re": (window * np.cos(angle))[:, None].astype(np.float32),
        "im": (window * np.sin(angle))[:, None].astype(np.float32), "eps": np.float32(10.0 ** -rng.uniform(6, 8)),
    }  # fmt: skip
    decades, samples = rng.uniform(2, 3), hop * int(rng.integers(12, 24))
    draw: Callable[[], Feed] = lambda: {"x": _sound(rng, 1, samples, decades)}  # noqa: E731
    return Member(model_of(text, constants), [draw() for _ in range(16)], [draw() for _ in range(8)], {"y": 45.0})


KINDS: dict[str, Callable[[np.random.Generator], Member]] = {
    "log_spectrum": log_spectrum, "log_of_power": log_of_power, "by_size": by_size, "octaves": octaves,
}  # fmt: skip
