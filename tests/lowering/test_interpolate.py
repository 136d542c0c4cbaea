"""Tables of 16-bit codes as piecewise linear functions: at most one step off, and the same in machine and integer
ONNX."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.graph.ir import QuantSpec, insert_qdq, names_in
from qcompiler.lowering.interpolate import interpolated
from tests.helpers.graphs import graph_of
from tests.lowering.checked import check

CODES = np.arange(-32768, 32768)


def hard_swish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x / 6 + 0.5, 0, 1)


FUNCTIONS = {
    "hard_swish": hard_swish,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "same": lambda x: x,
    "falling": lambda x: -x,
    "constant": np.zeros_like,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=10, deadline=None)
@given(reach=st.floats(2.0, 40.0), largest=st.floats(0.5, 10.0), zero=st.integers(0, 255))
def test_no_code_is_more_than_one_step_off(name: str, reach: float, largest: float, zero: int) -> None:
    exact = FUNCTIONS[name](CODES * reach / 32768) / (largest / 255) + zero
    table = np.clip(np.rint(exact), 0, 255).astype(np.uint8)
    lines = interpolated(table)
    if lines is None:  # allowed where a kink meets steep steps; a usual range must have lines (the next test)
        return
    assert (
        np.abs(lines.codes() - np.clip(exact, 0, 255)).max() <= 1.5
    )  # half a step is the rounding of the exact function
    differs = np.flatnonzero(lines.codes() != table)
    crowded = max((np.searchsorted(differs, place + 512) - index for index, place in enumerate(differs)), default=0)
    assert crowded <= 32


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("reach", "largest"), [(4.0, 2.0), (8.0, 4.0), (16.0, 6.0), (12.0, 1.0)])
def test_functions_of_usual_ranges_have_lines(name: str, reach: float, largest: float) -> None:
    exact = FUNCTIONS[name](CODES * reach / 32768) / (largest / 255) + 12
    assert interpolated(np.clip(np.rint(exact), 0, 255).astype(np.uint8)) is not None


def test_it_interpolates_int16_codes_where_their_steps_allow() -> None:
    entries = np.rint(30000 * np.tanh(CODES / 65536)).astype(np.int16)
    lines = interpolated(entries)
    assert lines is not None
    assert np.abs(lines.codes() - entries).max() == 1


def test_jumps_and_a_kink_that_the_codes_resolve_stay_tables() -> None:
    assert interpolated((CODES // 300 % 2 * 200).astype(np.uint8)) is None
    assert interpolated(np.clip(3 * CODES + 500, 0, 32767).astype(np.int16)) is not None  # saturation is no kink
    assert interpolated((np.abs(CODES - 77) // 2).astype(np.int16)) is None


def test_machine_and_integer_onnx_agree_on_every_code() -> None:
    graph = graph_of("g (float[65536] x) => (float[65536] y) { _a = HardSwish(x) _b = Tanh(_a) y = Identity(_b) }")
    x = np.linspace(-8, 8, 65536, dtype=np.float32)
    wide, narrow = QuantSpec.per_tensor(8 / 32767, 0, np.int16), QuantSpec.per_tensor(2 / 255, 128, np.uint8)
    taken = names_in(graph)
    insert_qdq(graph, graph.inputs[0], wide, taken)
    insert_qdq(graph, graph.outputs[0], narrow, taken)
    result = check(graph.toposort(), {"x": x}, steps=2)
    assert result.ops == ["PiecewiseLinear"]
    assert np.abs(result.outputs["y"] - result.expected["y"]).max() <= 1.01 * 2 / 255
