"""Does the gate hold? What was accepted is measured again on data that nobody has seen, in random networks and in real
ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.tools.arguments import task_of
from models.task import Feed
from qcompiler.feeds.sources import open_source
from qcompiler.graph.ir import Graph, copy_of
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import NORMALIZE, Pipeline
from qcompiler.replacement.observe import Judgement

FUNCTIONS = ("Relu", "Gelu", "Tanh", "HardSwish", "Sigmoid")
BUDGETS = (0.003, 0.01, 0.03, 0.1, 0.3)
REPORT_EVERY = 50
ZOO_BUDGETS = (0.02, 0.05, 0.1)

Array = NDArray[Any]


def random_case(seed: int) -> tuple[onnx.ModelProto, list[Feed], list[Feed]]:
    """A network of two or three dense layers, calibration feeds and fresh ones; inputs and weights of any rank, few or
    many samples.
    """
    rng = np.random.default_rng([seed, 2310])
    width, hidden, outputs = (int(rng.integers(*span)) for span in ((4, 65), (8, 257), (2, 33)))
    sizes = [width, hidden, *([int(rng.integers(8, 129))] if rng.random() < 0.3 else []), outputs]
    nodes, constants, value = [], [], "x"
    for index, (inputs, out) in enumerate(pairwise(sizes)):
        rank = min(inputs, out) if rng.random() < 0.5 else int(rng.integers(1, min(inputs, out) + 1))
        weight = (
            rng.standard_normal((inputs, rank))
            @ rng.standard_normal((rank, out))
            / np.sqrt(inputs * rank)
            * rng.uniform(0.5, 2)
        )
        for kind, values in (("w", weight), ("b", 0.3 * rng.standard_normal(out))):
            constants.append(numpy_helper.from_array(values.astype(np.float32), f"{kind}{index}"))
        last = index == len(sizes) - 2
        nodes.append(
            helper.make_node(
                "Gemm", [value, f"w{index}", f"b{index}"], ["y" if last else f"h{index}"], name=f"dense{index}"
            )
        )
        if not last:
            nodes.append(helper.make_node(str(rng.choice(FUNCTIONS)), [f"h{index}"], [f"a{index}"], name=f"act{index}"))
            value = f"a{index}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", width), ("y", outputs))
    ]
    graph = helper.make_graph(nodes, "random", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    mixing = rng.standard_normal((int(rng.integers(2, width + 1)), width))
    feeds, samples = int(rng.integers(2, 40)), int(rng.integers(8, 120))

    def draw(count: int, rows: int) -> list[Feed]:
        return [
            {"x": (rng.standard_normal((rows, len(mixing))) @ mixing / np.sqrt(len(mixing))).astype(np.float32)}
            for _ in range(count)
        ]

    return model, draw(feeds, samples), draw(10, 400)


def relative_error(graph: Graph, reference: Graph, feeds: Sequence[Feed], output: str) -> float:
    """Squared error of a tensor over its variance."""
    judgement, first, second = Judgement(), Runner(graph, [output]), Runner(reference, [output])
    for feed in feeds:
        got, want = (each.run(feed, [output])[output].astype(np.float64) for each in (first, second))
        judgement.add(got.reshape(-1, got.shape[-1]), want.reshape(-1, want.shape[-1]), together=False)
    return judgement.error


def rows(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Random networks: how many were changed, how many broke their budget on fresh data, and by how much."""
    found: list[float] = []
    changed = same = 0
    for seed in range(chosen.count):
        model, calibration, fresh = random_case(seed)
        budget = BUDGETS[seed % len(BUDGETS)]
        graph = load_graph(model)
        Manager(NORMALIZE).run(graph, Context())
        original, before = copy_of(graph), as_bytes(graph)
        pipeline = Pipeline.parse(
            f"snnk-bundle(error={budget}, latency=off)" if seed % 4 else f"low-rank(error={budget}, latency=off)"
        )
        Manager(pipeline.passes).run(
            graph, Context(seed=seed, data=open_source(calibration, graph), reference=original)
        )
        if as_bytes(graph) == before:
            same += 1
        else:
            changed += 1
            found.append(relative_error(graph, original, fresh, "y") / budget)
        if (seed + 1) % REPORT_EVERY == 0 or seed + 1 == chosen.count:
            yield {"networks": seed + 1, "left byte-identical": same, "changed": changed, **_shares(found)}


def _shares(ratios: Sequence[float]) -> dict[str, Any]:
    """How the fresh errors lie to their budgets."""
    values = np.array(ratios or [0.0])
    return {
        "over the budget": int((values > 1).sum()), "by more than a quarter": int((values > 1.25).sum()),
        "by more than half": int((values > 1.5).sum()), "worst, in budgets": f"{values.max():.2f}",
        "median": f"{np.median(values):.2f}",
    }  # fmt: skip


def as_bytes(graph: Graph) -> bytes:
    """The graph as a file."""
    return bytes(gs.export_onnx(graph).SerializeToString(deterministic=True))


def zoo_rows(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Real networks: error of the outputs on feeds of the task, which are none of those calibrated with, over their
    energy.
    """
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        for budget in ZOO_BUDGETS:
            for step in ("snnk-bundle", "low-rank"):
                graph = load_graph(task.model)
                Manager(NORMALIZE).run(graph, Context())
                original, before = copy_of(graph), as_bytes(graph)
                ctx = Context(data=open_source(task.calibration, graph), reference=original)
                Manager(Pipeline.parse(f"{step}(error={budget}, latency=off)").passes).run(graph, ctx)
                kept = [each for each in ctx.report.replacements if each.kept]
                row: dict[str, Any] = {
                    "model": name,
                    "pass": step,
                    "budget": budget,
                    "blocks": f"{len(kept)} of {len(ctx.report.replacements)}",
                }
                if not kept:
                    yield row | {"byte-identical": as_bytes(graph) == before}
                    continue
                macs = f"{sum(each.macs_before for each in kept):,} -> {sum(each.macs_after for each in kept):,}"
                fresh = NetworkLoss(original, task.feeds)(graph)
                yield row | {
                    "MACs a row": macs,
                    "outputs, held out": f"{kept[-1].loss_after:.4f}",
                    "outputs, fresh": f"{fresh:.4f}",
                }
