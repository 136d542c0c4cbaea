"""The idiom of the tests of exact passes: graph in, graph out, run before = run after."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass


def random(*shape: int, seed: int = 0, low: float = -3.0, high: float = 3.0) -> NDArray[Any]:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def rewrite(graph: Graph, *passes: Pass, tolerance: float = 1e-5, **feed: NDArray[Any]) -> Context:
    """Run ``passes`` through the manager and compare all outputs with those of before on onnxruntime.

    A tensor inside that keeps its name must keep its values, too: reports compare tensors by name.
    """
    names = [tensor.name for tensor in graph.outputs]
    before = Runner(graph, tensors_of(graph), fusions=False).run(feed)
    ctx = Context()
    Manager(passes).run(graph, ctx)
    assert [tensor.name for tensor in graph.outputs] == names
    shared = [name for name in tensors_of(graph) if name in before]
    after = Runner(graph, list(dict.fromkeys([*names, *shared])), fusions=False).run(feed)
    for name, value in after.items():
        assert value.dtype == before[name].dtype
        np.testing.assert_allclose(
            value,
            before[name],
            rtol=tolerance,
            atol=tolerance * float(np.abs(before[name]).max(initial=1e-6)),
            err_msg=name,
        )
    return ctx


def tensors_of(graph: Graph) -> list[str]:
    inside = [tensor.name for node in graph.nodes if node.op != "Constant" for tensor in node.outputs if tensor.name]
    return list(dict.fromkeys([*(tensor.name for tensor in graph.outputs), *inside]))


def reasons(ctx: Context) -> list[str]:
    return [declined.reason for declined in ctx.report.declined]
