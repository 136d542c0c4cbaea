"""What the report states holds on feeds it never saw: generated members of kinds whose ranges a few feeds do not show,
judged in float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from numpy.typing import NDArray

import qcompiler
from qcompiler.api import Compiled
from qcompiler.graph.ir import Graph, copy_of
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of

Array = NDArray[Any]
Feeds = list[dict[str, Array]]

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}


def fresh_db(compiled: Compiled, graph: Graph, feeds: Feeds, output: str = "y", columns: slice = slice(None)) -> float:
    """What fresh feeds say: energy of the float answers over that of the error."""
    real, got = Runner(graph), Runner(compiled.graph)
    pairs = [(real.run(feed)[output][:, columns], got.run(feed)[output][:, columns]) for feed in feeds]
    signal, noise = (
        sum(float(np.square(np.float64(part)).sum()) for part in parts)
        for parts in ([a for a, _ in pairs], [a - b for a, b in pairs])
    )
    return 10 * np.log10(signal / max(noise, 1e-30))


def regressor(rng: np.random.Generator, inputs: int, outputs: int) -> Graph:
    hidden = int(rng.integers(8, 33))
    draw = lambda *shape: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)  # noqa: E731
    activation = rng.choice(["Relu", "Tanh", "Sigmoid"])
    return graph_of(
        f"g (float[N, {inputs}] x) => (float[N, {outputs}] y) {{ a = Gemm(x, w, b)  h = {activation}(a)  y = Gemm(h, "
        f"v, c) }}",
        w=draw(inputs, hidden), b=draw(hidden) / 4, v=draw(hidden, outputs), c=draw(outputs) / 4,
    )  # fmt: skip


def member(seed: int) -> tuple[Graph, Feeds, Feeds]:
    """A small regressor with few feeds of one row or several, and fresh ones."""
    rng = np.random.default_rng(seed)
    inputs, rows = int(rng.integers(4, 25)), int(rng.choice([1, 1, 4]))
    draw = DISTRIBUTIONS[str(rng.choice(list(DISTRIBUTIONS)))]
    feeds = [{"x": draw(rng, (rows, inputs)).astype(np.float32)} for _ in range(int(rng.integers(32, 97)))]
    fresh = [{"x": draw(rng, (50, inputs)).astype(np.float32)} for _ in range(4)]
    return regressor(rng, inputs, int(rng.integers(4, 9))), feeds, fresh


def test_the_stated_figure_is_that_of_fresh_feeds() -> None:
    off = []
    for seed in range(24):
        graph, feeds, fresh = member(seed)
        compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=feeds)
        off.append(float(compiled.report.output_sqnr_db["y"] - fresh_db(compiled, graph, fresh)))
    assert np.mean(np.abs(off) <= 2) >= 0.95, off
    assert max(off) <= 6


@pytest.mark.parametrize("seed", range(4))
def test_a_detector_that_saw_no_positive_can_still_say_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, outputs = int(rng.integers(8, 40)), int(rng.integers(2, 5))
    weights, level = rng.standard_normal((inputs, outputs)).astype(np.float32), rng.uniform(4, 6)
    graph = graph_of(
        f"g (float[1, {inputs}] x) => (float[1, {outputs}] y) {{ z = MatMul(x, w)  a = Add(z, b)  y = Sigmoid(a) }}",
        w=weights, b=np.full(outputs, -level, np.float32),
    )  # fmt: skip
    quiet = [{"x": 0.1 * rng.standard_normal((1, inputs)).astype(np.float32)} for _ in range(48)]
    word = weights[:, :1].T / np.square(weights[:, 0]).sum() * (level + 1)
    loud = [{"x": (word + feed["x"]).astype(np.float32)} for feed in quiet[:8]]
    for for_onnx in (True, False):
        compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=quiet, for_onnx=for_onnx)
        assert max(Runner(graph).run(feed)["y"].max() for feed in quiet) < 0.1
        assert fresh_db(compiled, graph, loud) >= 25


@pytest.mark.parametrize("seed", range(6))
def test_columns_of_different_size_have_a_figure_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, classes, size = int(rng.integers(2, 6)), int(rng.integers(2, 9)), float(10.0 ** rng.uniform(2, 4))
    graph = graph_of(
        f"""g (float[N, 12] x) => (float[N, {boxes + classes}] y) {{
            a = Gemm(x, w)  s = Sigmoid(a)  b = Gemm(x, v)  p = Mul(b, k)  y = Concat <axis = 1> (p, s) }}""",
        w=rng.standard_normal((12, classes)).astype(np.float32), v=rng.standard_normal((12, boxes)).astype(np.float32),
        k=np.float32(size),
    )  # fmt: skip
    feeds = [{"x": rng.standard_normal((6, 12)).astype(np.float32)} for _ in range(40)]
    fresh = [{"x": rng.standard_normal((6, 12)).astype(np.float32)} for _ in range(20)]
    compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=feeds)
    found = {each.columns: each.sqnr_db for each in compiled.report.outputs}
    parts = {"box": slice(0, boxes), "score": slice(boxes, None)}
    stated = {
        name: next(value for text, value in found.items() if text and _covers(text, part.start))
        for name, part in parts.items()
    }
    for name, part in parts.items():
        assert fresh_db(compiled, graph, fresh, columns=part) >= 30
        assert abs(stated[name] - fresh_db(compiled, graph, fresh, columns=part)) <= 2


def _covers(text: str, column: int) -> bool:
    """True when ``[:, 4:6]`` or ``[:, 4]`` holds a column."""
    first, _, last = text.strip("[]").split(", ")[-1].partition(":")
    return int(first) <= column < (int(last) if last else int(first) + 1)
