"""3x3 convolutions by Winograd's transform: the algebra, its bounds, and that the results are those of the plain
kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.runtime.binding import packed_weights
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.division import divide
from qcompiler.runtime.cpu.isa import Isa, best_isa
from qcompiler.runtime.instructions import winograd
from qcompiler.runtime.instructions.instruction import Form
from qcompiler.runtime.instructions.opcodes import BY_NAME
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_divided
from tests.runtime.kernels.test_product import brute_conv, check_conv

GEOMETRY = ((5, 9), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
INPUT, WEIGHTS, OUTPUT = (
    np.array(matrix, dtype=object) for matrix in (winograd.INPUT, winograd.WEIGHTS, winograd.OUTPUT)
)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transform even where it does not pay."""
    monkeypatch.setattr(packed_weights, "pays", lambda fields, isa, fitting: True)


def test_the_matrices_give_576_times_the_convolution() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (6, 6)).astype(object), rng.integers(-127, 128, (3, 3)).astype(object)
    y = OUTPUT @ ((WEIGHTS @ w @ WEIGHTS.T) * (INPUT @ x @ INPUT.T)) @ OUTPUT.T
    expected = [
        [sum(x[i + a, j + b] * w[a, b] for a in range(3) for b in range(3)) for j in range(4)] for i in range(4)
    ]
    assert y.tolist() == [[576 * value for value in row] for row in expected]


def test_transformed_codes_and_weights_fit_int16() -> None:
    positive, negative = np.maximum(INPUT, 0).sum(axis=1), np.maximum(-INPUT, 0).sum(axis=1)
    largest = np.maximum(
        np.outer(positive, positive) + np.outer(negative, negative),
        np.outer(positive, negative) + np.outer(negative, positive),
    )
    assert 255 * largest.max() < 1 << 15
    assert 127 * np.abs(WEIGHTS).sum(axis=1).max() ** 2 < 1 << 15


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("channels", [(16, 16, 1), (32, 48, 1)])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 2, 1, 0)])
def test_results_are_those_of_the_plain_kernel(channels: Any, pads: Any) -> None:
    geometry = (*GEOMETRY[:4], pads)
    check_conv(np.uint8, geometry, channels, 2 if channels[0] == 16 else 1, 7 + pads[1] % 2, {})


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("size", "outputs"), [(4, 192), (37, 16)])
def test_parts_give_the_same(size: int, outputs: int) -> None:
    """Three threads, each with its own output channels, or its own tiles; compiled only, the checks would take
    minutes."""
    rng = np.random.default_rng(size)
    x, w = (
        rng.integers(0, 256, (1, size, size, 16)).astype(np.uint8),
        rng.integers(-127, 128, (3, 3, 16, outputs)).astype(np.int8),
    )
    program, feeds = build_one(
        "conv",
        {"x": x},
        {"y": ((1, size, size, outputs), np.uint8)},
        w=w,
        bias=rng.integers(-9999, 9999, outputs),
        m=np.full(outputs, 1 << 30),
        n=np.full(outputs, 40),
        batch=1,
        in_h=size,
        in_w=size,
        in_c=16,
        out_h=size,
        out_w=size,
        out_c=outputs,
        kernel_h=3,
        kernel_w=3,
        pad_top=1,
        pad_left=1,
        x_zp=9,
        y_zp=99,
    )
    fields = BY_NAME["conv"].row(Session(program, num_threads=1)._prepare(feeds).code[0].tolist())
    parts = divide(BY_NAME["conv"], fields, 3, Form.TRANSFORMED, least=0, most=9)
    assert len(parts) == 3
    assert all(("panels" in part) is (outputs == 192) for part in parts)
    expected = Session(program, Isa.PLAIN).raw(feeds)["y"]
    for isa in Isa:
        if isa.supported:
            np.testing.assert_array_equal(run_divided(program, feeds, isa)["y"], expected)


def extreme(channels: int) -> tuple[Any, dict[str, Any], Any]:
    """A layer whose sums are the largest there are, and its sums."""
    x, w = np.full((1, 6, 6, channels), 255, np.uint8), np.full((3, 3, channels, 16), 127, np.int8)
    w[..., ::2] = -127
    x[0, 2, 3, ::3] = 0
    acc = brute_conv(x, w, ((6, 6), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)), 1, 0)
    program, feeds = build_one(
        "conv",
        {"x": x},
        {"y": ((1, 6, 6, 16), np.int16)},
        w=w,
        bias=np.zeros(16, np.int32),
        m=np.full(16, 1 << 30),
        n=np.full(16, 41),
        batch=1,
        in_h=6,
        in_w=6,
        in_c=channels,
        out_h=6,
        out_w=6,
        out_c=16,
        kernel_h=3,
        kernel_w=3,
        pad_top=1,
        pad_left=1,
        lo=-32768,
        hi=32767,
    )
    return program, feeds, np.clip((acc + (1 << 10)) >> 11, -32768, 32767)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("channels", "transformed"), [(224, True), (240, False)])
def test_the_largest_sums_are_exact_or_not_transformed(channels: int, transformed: bool) -> None:
    program, feeds, expected = extreme(channels)
    form = packed_weights.pack_program(program, bind(program), best_isa())[0].form
    assert (form is Form.TRANSFORMED) is transformed
    for isa in Isa:
        if isa.supported:
            np.testing.assert_array_equal(Session(program, isa).raw(feeds)["y"], expected)


def test_it_is_used_where_it_pays() -> None:
    layer = dict.fromkeys(("kernel_h", "kernel_w"), 3) | dict.fromkeys(
        ("stride_h", "stride_w", "dilation_h", "dilation_w", "groups"), 1
    )
    layer |= {"in_c": 128, "out_c": 128, "out_h": 28, "out_w": 28, "in_w": 28, "x_type": 0}
    for isa in (Isa.AVX2, Isa.AVX512_VNNI):
        assert winograd.can_transform(layer)
        assert winograd.pays(layer, isa)
        assert not winograd.pays({**layer, "out_h": 7, "out_w": 7, "in_c": 512, "out_c": 512}, isa)
    assert not winograd.can_transform({**layer, "stride_w": 2})
    assert not winograd.can_transform({**layer, "in_c": 3})
