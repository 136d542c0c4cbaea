"""What a Concat alone reads is written into its result at once."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.lowering import lower_graph, to_program
from tests.helpers.graphs import graph_of
from tests.lowering.checked import check, quantize

RNG = np.random.default_rng(0)
WEIGHTS = {
    "wa": RNG.normal(size=(5, 4, 1, 1)), "wb": RNG.normal(size=(3, 4, 3, 3)), "wc": RNG.normal(size=(4, 1, 3, 3)),
    "wd": RNG.normal(size=(2, 12, 1, 1)),
}
LAYERS = """
    a = Conv(x, wa) b = Conv<pads=[1, 1, 1, 1]>(x, wb) c = Conv<pads=[1, 1, 1, 1], group=4>(x, wc)
"""
CASES = {
    "all": (LAYERS + "d = Concat<axis=1>(a, b, c) y = Conv(d, wd)", 0),
    "one_is_read_twice": (
        LAYERS + "e = Relu(b) d = Concat<axis=1>(a, b, c) f = Conv(d, wd) y = Concat<axis=1>(f, e)",
        None,
    ),
    "input_is_requantized": (LAYERS + "d = Concat<axis=1>(x, a, b) y = Conv(d, wd)", 1),
    "result_is_an_output": (LAYERS + "y = Concat<axis=1>(a, b, c)", None),
    "twice_the_same": ("a = Conv(x, wa) y = Concat<axis=1>(a, a)", None),
    "along_the_height": ("a = Conv(x, wa) y = Concat<axis=2>(a, a)", None),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_integer_onnx(name: str) -> None:
    text, copies = CASES[name]
    constants = {key: value.astype(np.float32) for key, value in WEIGHTS.items() if key in text}
    graph = graph_of(f"g (float[2,4,7,9] x) => (float[] y) {{ {text} }}", **constants)
    feed = {"x": RNG.normal(size=(2, 4, 7, 9)).astype(np.float32)}
    graph = quantize(graph, feed)
    check(graph, feed)
    program = to_program(lower_graph(graph))
    if copies is not None:  # besides the input that becomes NHWC and the output that becomes NCHW
        moves = [index for index in range(len(program.code)) if program.opcode(index).name == "move"]
        assert len(moves) == copies + 2
