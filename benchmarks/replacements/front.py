"""Size against score of one network: its blocks bundled with one kind of features or another, its layers at low rank,
its weights at fewer bits.

Every line ends in the same quantization: activations of 8 and 16 bits as `choose-widths` decides, weights of 8 bits
where nothing else is said. Bytes are those of the weights of the blocks that may be replaced, packed as a file has
them, so that a bundle at a quarter of the size stands beside plain weights of two bits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import onnx

import qcompiler
from benchmarks.accuracy import answers_of, score_text
from benchmarks.tools.arguments import task_of
from models.task import Task, sqnr_db
from models.zoo.minilm import news
from qcompiler.api import Compiled, Options
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.grids.named import grid_named
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context, Pass
from qcompiler.pipeline import NORMALIZE
from qcompiler.replacement.chains import find_chains

THREADS = 2
NEWS = 40
"""News documents that MiniLM is calibrated on: its task's reviews are some 20 tokens each, and the rest of their 128
is padding.
"""

SHARES = (0.5, 0.25, 0.75)
"""Of the blocks' cost."""

QUANTIZE = "quantize-activations,quantize-weights,choose-widths"
LEVELS = "reconstruct-layers(grid=int8, solver=gptq)"
SPEND = "error=1e9, goal=error, latency=off, heal=False"
"""Options of a replacement that is to spend its share of the cost, whatever it errs by."""

KINDS = {"own neurons": "neurons", "drawn relu": "relu", "drawn cos": "cos", "drawn product": "product"}
BITS = {"int4": 0.5, "int2": 0.25, "int6": 0.75}
"""Grids of few levels, and the share of 8 bits that they take."""

MIXED = 0.75
"""Share of the blocks' cost at which neurons are kept that go on a grid of 4 bits."""


@dataclass(frozen=True)
class GridOfBlocks(Pass):
    """Asks `reconstruct-layers` to put the layers of all blocks on a grid."""

    name: ClassVar[str] = "grid-of-blocks"
    grid: str = "int4"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """The graph stays as it is; False."""
        layers = [layer.node.name for chain in find_chains(graph) for layer in chain.layers]
        ctx.grids.update(dict.fromkeys(layers, grid_named(self.grid)))
        return False


def rows(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for every form and share."""
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        if name == "minilm":
            task = replace(task, calibration=news(chosen.zoo, NEWS))
        reference = answers_of(Runner(onnx.load(task.model), threads=THREADS).run, task)[0]
        for form, share, text in pipelines(task):
            start = time.perf_counter()
            compiled = qcompiler.compile(
                task.model,
                data=task.calibration,
                options=Options(passes=f"normalize,{text},store-codes"),
                for_onnx=False,
            )
            seconds = time.perf_counter() - start
            answers = answers_of(Runner(compiled.graph, threads=THREADS).run, task)[0]
            yield {
                "model": name, "form": form, "share of the bytes": f"{share:g}", "score": score_text(task, answers),
                "SQNR": f"{sqnr_db(reference, answers):.1f} dB", **_replaced(compiled), "seconds": f"{seconds:.0f}",
            }  # fmt: skip


def pipelines(task: Task) -> Iterator[tuple[str, float, str]]:
    """What is compared: (form, share of the blocks' bytes, pipeline)."""
    graph, plain = load_graph(task.model), f"{QUANTIZE},correct-bias"
    Manager(NORMALIZE).run(graph, Context())
    layers = ",".join(layer.node.name for chain in find_chains(graph) for layer in chain.layers)
    few = "benchmarks.replacements.front:GridOfBlocks(grid='{}')"
    yield "8 bits", 1.0, plain
    for share in SHARES:
        for form, kind in KINDS.items():
            skip = "never" if kind == "neurons" else "auto"
            yield form, share, f"snnk-bundle(kinds={kind}, skip={skip}, cost={share}, {SPEND}),{plain}"
        yield "low rank", share, f"low-rank(layers='{layers}', cost={share}, {SPEND}),{plain}"
        for grid in (grid for grid, size in BITS.items() if size == share):
            yield f"plain {grid}", share, f"{few.format(grid)},{QUANTIZE},{LEVELS},tune-statistics"
    text = (
        f"snnk-bundle(kinds=neurons, skip=never, cost={MIXED}, "
        f"{SPEND}),{few.format('int4')},{QUANTIZE},{LEVELS},tune-statistics"
    )
    yield "own neurons and int4", MIXED * BITS["int4"], text


def _replaced(compiled: Compiled) -> dict[str, Any]:
    kept = [each for each in compiled.report.replacements if each.kept]
    heal = [each for each in compiled.report.tunings if each.pass_name == "heal"]
    return {
        "blocks": len(kept), "their error": f"{sum(each.error or 0.0 for each in kept) / max(len(kept), 1):.3g}",
        "healed": f"{heal[0].before:.3g} -> {heal[0].after:.3g}" if heal else "",
    }  # fmt: skip
