"""What is known of sizes when a program is made: comparisons of sizes with numbers are those that the graph says."""

from __future__ import annotations

import numpy as np
import pytest

import qcompiler
from qcompiler.graph.runner import Runner
from tests.helpers.expanding import model_of, real

COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal")


@pytest.mark.parametrize(("comparison", "known"), [*((each, False) for each in COMPARISONS), ("Equal", True)])
def test_a_size_chooses_as_in_the_float_model(comparison: str, known: bool) -> None:
    body = f"""s = Shape(x)  n = Gather(s, zero)  c = {comparison}(n, three)  r = Relu(x)  m = MatMul(x, w)
        y = Where(c, r, m)"""
    constants = {"zero": np.array(0), "three": np.array(3), "w": 4 * real(0, 5, 5)}
    for sizes in ([[2], [3], [4]] if known else [[1, 2, 3, 4, 5]]):
        model = model_of(f"float[{sizes[0] if known else 'N'}, 5] x", body, **constants)
        feeds = [{"x": real(seed, sizes[seed % len(sizes)], 5)} for seed in range(20)]
        session = qcompiler.compile(model, data=feeds, for_onnx=False).session()
        for feed in feeds[: len(sizes)]:
            wanted, got = Runner(model).run(feed)["y"], session.run(feed)["y"]
            assert float(np.abs(wanted - got).max()) < 0.05 * float(np.abs(wanted).max()), len(feed["x"])
