"""The compiled border against NumPy, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime.errors import FeedError
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.session import Session

COUNT = 5000
CODES = (np.uint8, np.int8, np.int16)


def identity(dtype: str, code: Any, scale: float, zero_point: int, shape: tuple[int, ...] = (COUNT,)) -> Session:
    """A program without instructions: what enters leaves again."""
    b = ProgramBuilder()
    x = b.buffer(shape, code)
    b.input("x", x, dtype, shape, scale=scale, zero_point=zero_point)
    b.output("y", x, dtype, shape, scale=scale, zero_point=zero_point)
    return Session(b.program())


def quantized(x: Any, code: Any, scale: float, zero_point: int) -> Any:
    """QuantizeLinear in float32."""
    limits = np.iinfo(code)
    with np.errstate(over="ignore"):
        real = np.rint(x.astype(np.float32) / np.float32(scale)) + np.float32(zero_point)
    return np.clip(real, np.float32(limits.min), np.float32(limits.max)).astype(code)


def dequantized(codes: Any, dtype: str, scale: float, zero_point: int) -> Any:
    return ((codes.astype(np.int32) - np.int32(zero_point)).astype(np.float32) * np.float32(scale)).astype(dtype)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@settings(max_examples=8, deadline=None)
@given(scale=st.floats(1e-6, 100), offset=st.integers(0, 255), seed=st.integers(0, 1 << 30))
def test_the_border_is_numpy(dtype: str, code: Any, scale: float, offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    zero_point = 0 if code is np.int16 else offset + int(np.iinfo(code).min)
    halves = (rng.integers(-300, 300, COUNT) + 0.5) * np.float32(scale)
    spread = rng.normal(size=COUNT) * 10.0 ** rng.integers(-8, 4, COUNT)
    x = np.where(rng.random(COUNT) < 0.5, halves, spread).astype(dtype)
    if dtype != "float16":
        x[:4] = np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny, 0
    x[~np.isfinite(x)] = 0
    session = identity(dtype, code, scale, zero_point)
    codes = quantized(x, code, scale, zero_point)
    np.testing.assert_array_equal(session.raw({"x": x})["y"], codes)
    np.testing.assert_array_equal(session.quantize("x", x), codes)
    assert session.quantize("x", x).dtype == code
    with np.errstate(over="ignore"):
        expected = dequantized(codes, dtype, scale, zero_point)
        found = session.run({"x": x})["y"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2047, 2048, COUNT - 1])
def test_no_nan_or_infinity_enters(dtype: str, bad: float, place: int) -> None:
    session, x = identity(dtype, np.uint8, 0.5, 3), np.ones(COUNT, dtype)
    session.run({"x": x})
    x[place] = bad
    with pytest.raises(FeedError, match="input 'x' holds NaN or infinity"):
        session.run({"x": x})


def test_views_lists_and_unaligned_arrays_enter() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    session = identity("float32", np.uint8, 1.0, 0, (4, 6))
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(4, 6)
    unaligned[...] = x
    fortran = np.asfortranarray(x)
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    frozen = x.copy()
    frozen.flags.writeable = False
    for feed in (x, fortran, backwards, unaligned, frozen, x.view(np.ndarray)):
        for _ in range(2):
            np.testing.assert_array_equal(session.run({"x": feed})["y"], x)


def test_plain_integers_cross_as_they_are() -> None:
    b = ProgramBuilder()
    for name, dtype in (("a", np.int64), ("b", np.bool_), ("c", np.int16)):
        buffer = b.buffer((3,), dtype)
        b.input(name, buffer, dtype, (3,))
        b.output(f"{name}_out", buffer, dtype, (3,))
    feeds = {
        "a": np.array([-(1 << 62), 0, 7]),
        "b": np.array([True, False, True]),
        "c": np.array([-32768, 1, 32767], np.int16),
    }
    for name, value in Session(b.program()).run(feeds).items():
        np.testing.assert_array_equal(value, feeds[name[0]])
        assert value.dtype == feeds[name[0]].dtype


def test_the_next_shape_is_not_the_last_one() -> None:
    b = ProgramBuilder()
    n = b.dim("n")
    x = b.buffer((n,), np.uint8)
    b.input("x", x, np.float32, (n,), scale=1.0)
    b.output("y", x, np.float32, (n,), scale=1.0)
    session = Session(b.program())
    for size in (3, 5, 3, 7, 9, 11, 13, 3, 5):
        value = np.arange(size, dtype=np.float32)
        np.testing.assert_array_equal(session.run({"x": value})["y"], value)
    with pytest.raises(FeedError, match="it must be float32"):
        session.run({"x": np.arange(3, dtype=np.float64)})
    with pytest.raises(FeedError, match="unknown input 'z'"):
        session.run({"x": np.arange(3, dtype=np.float32), "z": value})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("fills", [(-1e4, None), (None, np.inf), (-np.inf, 6e4)])
def test_the_ends_of_the_codes_may_stand_for_other_numbers(dtype: str, code: Any, fills: Any, tmp_path: Any) -> None:
    b = ProgramBuilder()
    x = b.buffer((COUNT,), code)
    b.input("x", x, code, (COUNT,))
    b.output("y", x, dtype, (COUNT,), scale=0.01, zero_point=3, fills=fills)
    b.save(tmp_path / "ends.qprog")
    session, limits = Session(str(tmp_path / "ends.qprog")), np.iinfo(code)
    codes = np.random.default_rng(0).integers(limits.min, limits.max + 1, COUNT).astype(code)
    codes[:2] = limits.min, limits.max
    wanted = dequantized(codes, dtype, 0.01, 3)
    for end, fill in zip((limits.min, limits.max), fills, strict=True):
        wanted[codes == end] = wanted[codes == end] if fill is None else fill
    out = np.empty(COUNT, dtype)
    np.testing.assert_array_equal(session.run({"x": codes})["y"], wanted)
    np.testing.assert_array_equal(session.run({"x": codes}, out={"y": out})["y"], wanted)
    np.testing.assert_array_equal(out, wanted)
