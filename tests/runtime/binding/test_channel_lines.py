"""Layers that scale channels of uint8: a line gives every code, and where there is none the plain arithmetic
remains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.binding import packed_weights
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.channel_lines import can_scale, lines_of, quarters, scale_numbers
from qcompiler.runtime.cpu.isa import best_isa
from qcompiler.runtime.instructions.depthwise_layout import chunk_bytes
from qcompiler.runtime.instructions.instruction import Form
from tests.runtime.checked import build_one, run_one
from tests.runtime.kernels.test_product import draw

X = np.arange(256)


def constants(rng: np.random.Generator, channels: int) -> dict[str, Any]:
    """Weights, biases and factors of any size."""
    return {
        "w": rng.integers(-127, 128, channels),
        "bias": rng.integers(-(2**20), 2**20, channels),
        "m": rng.integers(-(2**31) + 1, 2**31, channels) >> rng.integers(0, 20, channels),
        "n": rng.integers(1, 60, channels),
    }


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), y_zp=st.integers(0, 255), limits=st.tuples(st.integers(0, 255), st.integers(0, 255))
)
def test_a_line_gives_all_codes(seed: int, y_zp: int, limits: tuple[int, int]) -> None:
    c = constants(np.random.default_rng(seed), 1)
    out = spec.Range(y_zp, *sorted(limits))
    lines = lines_of(*c.values(), y_zp=y_zp, lo=out.lo, hi=out.hi)
    if lines is None:
        return
    slope, start, shift = (int(values[0]) for values in lines)
    w, bias, m, n = (int(values[0]) for values in c.values())
    for x in range(256):
        assert min(max((slope * x + start) >> shift, out.lo), out.hi) == out.code(spec.requant(bias + w * x, m, n))


def test_ordinary_layers_have_lines() -> None:
    rng = np.random.default_rng(0)
    real = rng.uniform(-3, 3, 500) * 10.0 ** rng.integers(-5, 1, 500)
    factors = [spec.multiplier(abs(float(value)) / 127) for value in real]
    m, n = (np.array(values) for values in zip(*factors, strict=True))
    w, bias = np.where(real < 0, -127, 127), rng.integers(-(2**15), 2**15, 500)
    assert lines_of(w, bias, m, n, y_zp=100, lo=0, hi=255) is not None


def test_sums_beyond_32_bits_have_none() -> None:
    one = np.array([1])
    assert lines_of(127 * one, (2**31 - 1) * one, 2**30 * one, 40 * one, y_zp=0, lo=0, hi=255) is None


def test_numbers_lie_as_the_vector_code_reads_them() -> None:
    lines = lines_of(
        *(np.full(48, value) for value in (100, 5, 2**30)), np.arange(36, 84) % 8 + 34, y_zp=7, lo=0, hi=255
    )
    assert lines is not None
    numbers, first = scale_numbers(lines, 32), 0
    while first < 48:
        size = chunk_bytes(32, 48 - first)
        part = numbers[5 * first : 5 * (first + size)].reshape(5, size)
        np.testing.assert_array_equal(part[4], lines.shift[first + np.array(quarters(size)).reshape(-1)] - 16)
        first += size


@pytest.mark.parametrize("channels", [16, 80])
@pytest.mark.parametrize("pitch", [0, 96])
def test_results_are_those_of_the_plain_kernel(channels: int, pitch: int) -> None:
    rng = np.random.default_rng(channels + pitch)
    x = draw(rng, np.uint8, (2, 3, 5, channels))
    layer = {
        "w": rng.integers(-127, 128, (1, 1, 1, channels)).astype(np.int8), "bias": rng.integers(-9999, 9999, channels),
        "m": rng.integers(2**30, 2**31, channels), "n": rng.integers(36, 40, channels),
    }
    size = {name: value for side, value in (("h", 3), ("w", 5)) for name in (f"in_{side}", f"out_{side}")}
    fields = {
        **layer,
        **size,
        "batch": 2,
        "in_c": channels,
        "out_c": channels,
        "groups": channels,
        "kernel_h": 1,
        "kernel_w": 1,
        "x_zp": 9,
        "y_zp": 30,
        "lo": 3,
        "hi": 250,
        "y_pitch": pitch,
        "y_offset": 5 if pitch else 0,
    }
    outputs = {"y": ((2, 3, 5, pitch or channels), np.uint8)}
    program, _ = build_one("conv", {"x": x}, outputs, **fields)
    assert packed_weights.pack_program(program, bind(program), best_isa())[0].form is Form.SCALED
    y = run_one("conv", {"x": x, "y": np.zeros(outputs["y"][0], np.uint8)}, outputs, **fields)["y"]
    codes = np.vectorize(lambda *v: spec.Range(30, 3, 250).code(spec.requant(*(int(i) for i in v))), otypes=[object])
    expected = codes(layer["bias"] + layer["w"][0, 0, 0].astype(np.int64) * x, layer["m"], layer["n"])
    first = 5 if pitch else 0
    assert y[..., first : first + channels].tolist() == expected.tolist()


def test_only_pointwise_layers_on_bytes_are_scaled() -> None:
    layer = dict.fromkeys(("kernel_h", "kernel_w", "stride_h", "stride_w"), 1) | {
        "pad_top": 0,
        "pad_left": 0,
        "in_c": 32,
        "out_c": 32,
        "groups": 32,
    }
    layer |= {"in_h": 4, "in_w": 5, "out_h": 4, "out_w": 5, "x_type": 0, "y_type": 0, "lo": 0, "hi": 255}
    assert can_scale(layer)
    for change in (
        {"kernel_w": 3},
        {"y_type": 2},
        {"hi": 256},
        {"lo": -1},
        {"groups": 1},
        {"in_c": 33, "out_c": 33, "groups": 33},
        {"out_h": 3},
    ):
        assert not can_scale(layer | change)
