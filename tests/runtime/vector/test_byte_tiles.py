"""Byte products in int16: exact for every input, as many steps at a time as the weights themselves allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.packed_weights import pack_program
from qcompiler.runtime.binding.panels import LEAST_FITTING, MOST_FITTING, fitting_steps
from qcompiler.runtime.cpu.isa import Isa
from qcompiler.runtime.instructions import winograd
from qcompiler.runtime.instructions.instruction import Form
from qcompiler.runtime.program import coded_constants
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_divided, run_one
from tests.runtime.kernels.test_product import GEOMETRIES, check_conv, draw, layer, output, requantized

ISAS = [isa for isa in Isa if isa.supported]
SIZES = [(1, 1), (3, 5), (4, 16), (8, 33), (9, 16), (40, 17), (64, 48), (130, 16), (523, 35)]
seeds = st.integers(0, 2**32 - 1)


def small_layer(rng: np.random.Generator, limit: int, k: int, cols: int) -> dict[str, Any]:
    """A layer with weights up to ``limit`` on either side, some columns of extreme ones only."""
    w = rng.integers(-limit, limit + 1, (k, cols)).astype(np.int8)
    w[:, ::3] = limit * rng.choice([-1, 1], (1, cols))[:, ::3]
    return {**layer(rng, (k, cols), cols), "w": w}


def fitting(program: Program, isa: Isa) -> int:
    return next(iter(pack_program(program, bind(program), isa).values())).fitting


def runs_fit(weights: Any, steps: int) -> bool:
    """Whether the sums of all runs of so many steps fit int16 for the worst codes, by brute force."""
    for segment in weights.astype(int):
        for first in range(0, len(segment), 4 * steps):
            run = segment[first : first + 4 * steps]
            for pair in (0, 2):
                part = np.concatenate([run[pair::4], run[pair + 1 :: 4]])
                high, low = 255 * np.maximum(part, 0).sum(axis=0), 255 * np.minimum(part, 0).sum(axis=0)
                if high.max(initial=0) > 32767 or low.min(initial=0) < -32768:
                    return False
    return True


@settings(max_examples=150, deadline=None)
@given(
    limit=st.sampled_from([0, 1, 2, 3, 7, 8, 16, 31, 32, 64, 127]),
    segments=st.integers(1, 3),
    length=st.integers(1, 90),
    cols=st.integers(1, 5),
    seed=seeds,
)
def test_as_many_steps_as_fit(limit: int, segments: int, length: int, cols: int, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-limit, limit + 1, (segments, length, cols)).astype(np.int8)
    found, steps = fitting_steps(weights), -(-length // 4)
    if found == 0:
        assert not runs_fit(weights, LEAST_FITTING)
        return
    assert found % 2 == 0
    assert runs_fit(weights, found)
    assert found in (steps, steps + 1, MOST_FITTING) or not runs_fit(weights, 2 * found)


@pytest.mark.parametrize("run", [2, 4, 8, 16, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_at_the_bound(run: int, sign: int) -> None:
    """The weights of each half of a run add up to 128, at random, or to 129 in one column; all codes are 255."""
    rng = np.random.default_rng(run)
    k, cols = 4 * run * 3 + 6, 19
    w = np.zeros((k, cols), np.int8)
    for first in range(0, k - 6, 4 * run):
        for column in range(cols):
            for pair in (0, 2):
                places = first + pair + 4 * rng.integers(0, run, 128) + rng.integers(0, 2, 128)
                part = np.bincount(places, minlength=k)
                w[:, column] += np.minimum(part, 127).astype(np.int8)
    w = np.minimum(w, 127) * np.int8(sign)
    x = np.full((7, k), 255, np.uint8)
    x[3:] = rng.choice([0, 255], (4, k))
    above = w.copy()
    above[4 * run + np.argmin(np.abs(w[4 * run : 8 * run : 4, 5])) * 4, 5] += sign
    for weights, expected in ((w, run), (above, run // 2 if run > 2 else 0)):
        p = {**layer(rng, (k, cols), cols), "w": weights, "m": np.full(cols, 1 << 30), "n": np.full(cols, 36)}
        acc = x.astype(np.int64) @ weights.astype(np.int64) + p["bias"]
        program, feeds = build_one("gemm", {"x": x}, {"y": ((7, cols), np.int16)}, **p, rows=7, k=k, cols=cols, y_zp=0)
        for isa in ISAS:
            y = Session(program, isa).raw(feeds)["y"]
            assert y.tolist() == requantized(acc, p, spec.Range(0, -32768, 32767)).tolist()
        assert fitting(program, Isa.AVX2) == expected
        assert fitting(program, Isa.PORTABLE) == fitting(program, Isa.AVX512_VNNI) == 0


@settings(max_examples=8, deadline=None)
@given(
    limit=st.sampled_from([3, 7, 8, 16, 31, 32]),
    rows=st.integers(1, 9),
    k=st.integers(1, 70),
    cols=st.integers(1, 33),
    seed=seeds,
)
def test_gemm(limit: int, rows: int, k: int, cols: int, seed: int) -> None:
    """With every access checked, and every int16 sum of the tiles."""
    rng = np.random.default_rng(seed)
    x, p = draw(rng, np.uint8, (rows, k + 3)), small_layer(rng, limit, k, cols)
    dtype, out = output(rng)
    numbers = {"rows": rows, "k": k, "cols": cols, "x_row": k + 3, "x_offset": 1, "y_row": cols + 2, "y_offset": 2}
    limits = {"y_zp": out.zero_point, "lo": out.lo, "hi": out.hi}
    y = run_one("gemm", {"x": x}, {"y": ((rows, cols + 2), dtype)}, **p, **numbers, **limits)["y"]
    acc = x[:, 1 : 1 + k].astype(np.int64) @ p["w"].astype(np.int64) + p["bias"]
    assert y[:, 2:].tolist() == requantized(acc, p, out).tolist()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("limit", [1, 8, 16, 32])
def test_all_sizes(shape: tuple[int, int], limit: int) -> None:
    """Tiles of 6, 4, 3 rows and one; compiled only."""
    rng = np.random.default_rng(limit)
    k, cols = shape
    p = small_layer(rng, limit, k, cols)
    for rows in (1, 3, 4, 6, 13, 49):
        x = draw(rng, np.uint8, (rows, k))
        x[-1] = 255
        program, feeds = build_one("gemm", {"x": x}, {"y": ((rows, cols), np.int16)}, **p, rows=rows, k=k, cols=cols)
        want = requantized(x.astype(np.int64) @ p["w"].astype(np.int64) + p["bias"], p, spec.Range(0, -32768, 32767))
        for isa in ISAS:
            np.testing.assert_array_equal(Session(program, isa).raw(feeds)["y"], want, err_msg=f"{isa.name}, {rows}")
            np.testing.assert_array_equal(run_divided(program, feeds, isa)["y"], want, err_msg=f"{isa.name}, {rows}")
        assert fitting(program, Isa.AVX2) > 0


@settings(max_examples=8, deadline=None)
@given(
    geometry=st.sampled_from(GEOMETRIES),
    channels=st.sampled_from([(3, 5, 1), (6, 20, 2), (16, 33, 1), (1, 3, 1)]),
    limit=st.sampled_from([7, 16, 32]),
    seed=seeds,
)
def test_conv(geometry: Any, channels: Any, limit: int, seed: int) -> None:
    """Windows of several segments; padding is the zero point."""
    rng = np.random.default_rng(seed)
    w = rng.integers(-limit, limit + 1, (*geometry[1], channels[0] // channels[2], channels[1])).astype(np.int8)
    w[..., 0] = limit
    check_conv(np.uint8, geometry, channels, 1, seed, {"w": w})


@pytest.mark.parametrize("count", [4, 16])
@pytest.mark.parametrize("limit", [2, 8, 32])
def test_codes_are_multiplied_so_too(count: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of each tile of codes, steps that fill their bytes or not."""
    monkeypatch.setattr(coded_constants, "SMALLEST", 1)
    rng = np.random.default_rng(count)
    levels = np.linspace(-limit, limit, count).astype(np.int8)
    for k, cols in SIZES[3:]:
        p = {**layer(rng, (k, cols), cols), "w": rng.choice(levels, (k, cols))}
        p["w"][:, ::3] = levels[0]
        for rows in range(1, 5):
            x = draw(rng, np.uint8, (rows, k))
            x[0] = 255
            y = {"y": ((rows, cols), np.int16)}
            program, feeds = build_one("gemm", {"x": x}, y, **p, rows=rows, k=k, cols=cols)
            acc = x.astype(np.int64) @ p["w"].astype(np.int64) + p["bias"]
            for isa in ISAS:
                want = requantized(acc, p, spec.Range(0, -32768, 32767))
                np.testing.assert_array_equal(Session(program, isa).raw(feeds)["y"], want, err_msg=f"{isa.name} {rows}")
            packed = next(iter(pack_program(program, bind(program), Isa.AVX2).values()))
            assert packed.form in (Form.CODES_4, Form.CODES_2)
            assert packed.fitting > 0 or packed.form is Form.CODES_2


def test_activations_of_two_bytes_and_depthwise_convolutions_have_none() -> None:
    rng = np.random.default_rng(0)
    p = small_layer(rng, 7, 24, 16)
    program, _ = build_one(
        "gemm", {"x": draw(rng, np.int16, (8, 24))}, {"y": ((8, 16), np.uint8)}, **p, rows=8, k=24, cols=16
    )
    assert fitting(program, Isa.AVX2) == 0


def test_a_transform_must_be_faster_than_byte_products() -> None:
    """Few steps are no faster than pairs; with many only larger layers are transformed."""
    layer_ = dict.fromkeys(("kernel_h", "kernel_w"), 3) | {"in_c": 32, "out_c": 32, "out_h": 28, "out_w": 28}
    speeds = [winograd.byte_speed(steps) for steps in (0, 2, 4, 8, 64)]
    assert speeds == sorted(speeds)
    assert speeds[0] == 1
    assert speeds[-1] < 2
    chosen = [winograd.pays(layer_, Isa.AVX2, steps) for steps in (0, 2, 4, 8, 64)]
    assert chosen == sorted(chosen, reverse=True)
