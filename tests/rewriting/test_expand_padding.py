"""Padding by amounts that a model computes from its sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.api import Options, compile
from qcompiler.errors import NoIntegerFormError
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Session
from tests.helpers.expanding import check_same, model_of, real

array = np.array
LENGTH, ENDS = "s = Shape(x)  n = Gather(s, two)", "e1 = Unsqueeze(e, place)  p = Concat <axis = 0> (none, e1)"
CASES = {
    "to a multiple of 8": f"{LENGTH} r = Mod(n, eight)  m = Sub(eight, r)  e = Mod(m, eight)  {ENDS}  y = Pad(h, p)",
    "cut to 8, or padded": f"{LENGTH} e = Sub(eight, n)  {ENDS}  y = Pad(h, p)",
    "back to the length of another":
        f"{LENGTH} t = Shape(h)  m = Gather(t, two)  e = Sub(n, m)  {ENDS}  y = Pad(h, p, value)",
    "on both sides of one axis":
        "n = Shape <start = 2, end = 3> (x)  p = Concat <axis = 0> (n, n)  y = Pad(h, p, value, axis)",
    "first axis": f"{LENGTH} more = Unsqueeze(n, place)  p = Concat <axis = 0> (more, none)  y = Pad(h, p)",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "two": array(2), "eight": array(8), "place": array([0]), "axis": array([2]), "none": np.zeros(5, np.int64),
    "value": array(1.5, np.float32), "w": real(2, 3, 3, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_computed_amounts(case: str) -> None:
    model = model_of("float[B, 3, L] x", f"h = Conv <kernel_shape = [2]> (x, w)  {CASES[case]}", **CONSTANTS)
    feeds = [{"x": real(seed, 2, 3, 5 + seed)} for seed in range(12)]
    check_same(model, feeds[0])
    session = Session(compile(model, data=feeds, options=Options(0), for_onnx=False).program)
    for shape in ((1, 3, 5), (3, 3, 8), (2, 3, 19)):
        feed = {"x": np.clip(real(sum(shape), *shape), -2, 2)}
        expected, got = (run.run(feed)["y"] for run in (Runner(model), session))
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=0.15)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_whole_numbers_and_truth_values(dtype: str) -> None:
    body = f"""{LENGTH} e = Sub(eight, n)  {ENDS}  q = Pad(i, p)  f = Cast <to = 1> (q)
        o = ReduceMean <keepdims = 1> (x)  y = Mul(f, o)"""
    model = model_of(f"float[1, 1, L] x, {dtype}[1, 1, L] i", body, **CONSTANTS)
    feeds: list[dict[str, Any]] = []
    for seed in range(12):
        x = real(seed, 1, 1, 5 + seed % 6)
        feeds.append({"x": x, "i": (np.abs(x) * 3).astype(np.int64) if dtype == "int64" else x > 0})
    session = Session(compile(model, data=feeds, options=Options(0), for_onnx=False).program)
    for feed in feeds[::4]:
        expected, got = (run.run(feed)["y"] for run in (Runner(model), session))
        np.testing.assert_allclose(got, expected, atol=0.1)


def test_amounts_that_are_data_are_refused() -> None:
    model = model_of("float[1, 3, 5] x, int64[6] p", "y = Pad(x, p)")
    feed = {"x": real(0, 1, 3, 5), "p": array([0, 0, 1, 0, 0, 2])}
    compiled = compile(model, data=[feed] * 4, options=Options(0), for_onnx=False)
    with pytest.raises(NoIntegerFormError, match="Pad"):
        _ = compiled.program
