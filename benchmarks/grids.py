"""Few-bit weights on each grid: error of layers, of outputs, the task's own figure, and bytes on disk.

    python -m benchmarks.grids figures
    python -m benchmarks.grids models --zoo FOLDER effnet minilm --grids int4 nf4 kmeans4 auto4

``figures`` puts Gaussian and Laplace weights on every grid: relative squared error under the best scales, one of 1024
weights or one a block. ``models`` compiles each model with 8-bit activations (16 bits where `choose-widths` asks for
them) and its weights on one grid after another, then runs the file on onnxruntime. ``auto4`` is `choose-grid` at 4
bits. ``--tables`` puts large embeddings on a grid, too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import answers_of, score_text
from benchmarks.tools.arguments import add_models, parse, task_of
from models.task import Task, agreement, sqnr_db
from qcompiler.graph.ir import Graph, copy_of
from qcompiler.graph.runner import Runner
from qcompiler.grids import grid_loss, grid_named
from qcompiler.manager import Manager
from qcompiler.onnx_io.export import save
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context, Pass
from qcompiler.pipeline import Pipeline

FIGURES = (
    "int2", "kmeans2", "int3", "power3", "post3", "kmeans3", "split1", "int4", "power4", "power4(0.5)", "post4", "nf4",
    "fp4_e2m1", "fp4_e3m0",
    "fp4_bnb", "kmeans4", "split2", "int5", "power5", "kmeans5", "int8",
)  # fmt: skip
WEIGHTS = (1, 64, 1024)


def main() -> int:
    """Print a table; 2 for a model that cannot be compiled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grids", description="Measure grids of few levels.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("figures", help="Gaussian and Laplace weights")
    models = kinds.add_parser("models", help="compiled models")
    add_models(models)
    models.add_argument(
        "--grids",
        nargs="+",
        default=["int8", "int4", "nf4", "auto4"],
        metavar="GRID",
        help="names of grids, or auto2 … auto6",
    )
    models.add_argument("--solver", default="gptq", help="what chooses the levels")
    models.add_argument("--tables", default="", metavar="GRID", help="grid of embedding tables")
    models.add_argument("--widen", default="auto", help="16-bit tensors: auto or off")
    chosen = parse(parser)
    table = figures() if chosen.kind == "figures" else compiled(chosen)
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


def figures() -> Table:
    """Relative squared error of each grid on draws of known distributions."""
    rng = np.random.default_rng(0)
    draws = {"Gaussian": rng.standard_normal(WEIGHTS), "Laplace": rng.laplace(size=WEIGHTS)}
    table = Table("grid", "bits", *(f"{name}, {scale}" for name in draws for scale in ("a row", "block 64")))
    for name in FIGURES:
        errors = []
        for weight in draws.values():
            for block in (None, 64):
                grid = grid_named(name, block).fit(weight)
                errors.append(grid_loss(grid, weight) / float(np.sum(weight**2)))
        table.add_row(name, str(grid.bits), *(f"{error:.5f}" for error in errors))
    return table


def compiled(chosen: argparse.Namespace) -> Table:
    """A line for each model and grid."""
    table = Table("model", "weights", "layers' error", "SQNR", "same class", "score", "bytes", "of float")
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        for row in measure(task, chosen.grids, chosen.solver, chosen.tables, chosen.widen):
            table.add_row(*row)
            print("\t".join(row), file=sys.stderr, flush=True)
        table.add_section()
    return table


def measure(task: Task, grids: Sequence[str], solver: str, tables: str, widen: str) -> Iterator[tuple[str, ...]]:
    """The lines of one model."""
    reference, _ = answers_of(Runner(onnx.load(task.model), threads=2).run, task)
    size = task.model.stat().st_size
    yield task.name, "float", "", "", "", score_text(task, reference), f"{size:,}", "1.000"
    graph, ctx = load_graph(task.model), Context(data=task.calibration)
    rounded = f"round-tables(grid={tables!r})," if tables else ""
    Manager(Pipeline.parse("normalize").passes).run(graph, ctx)
    ctx.reference = copy_of(graph)
    widths = "" if widen == "off" else ",choose-widths(enough_db=25.0)"
    Manager(Pipeline.parse(f"{rounded}quantize-activations,quantize-weights{widths}").passes).run(graph, ctx)
    for name in grids:
        result = copy_of(graph)
        ctx.grids.clear()
        ctx.report.reconstructions.clear()
        Manager(steps_for(name, solver)).run(result, ctx)
        yield task.name, name, *scored(result, task, reference, size, ctx)


def steps_for(name: str, solver: str) -> tuple[Pass, ...]:
    """The passes that put weights on a grid and store their codes."""
    if name == "int8":
        return Pipeline.parse("correct-bias,store-codes").passes
    chooser, grid = (f"choose-grid(bits={int(name[4:])}),", f"int{name[4:]}") if name.startswith("auto") else ("", name)
    return Pipeline.parse(
        f"{chooser}reconstruct-layers(grid={grid!r}, "
        f"solver={solver!r}),round-weights(grid={grid!r}),correct-bias,store-codes"
    ).passes


def scored(graph: Graph, task: Task, reference: Sequence[np.ndarray], size: int, ctx: Context) -> tuple[str, ...]:
    """The figures of one compiled graph."""
    errors = [
        max(record.held_after if record.kept else record.held_before, 1e-12) for record in ctx.report.reconstructions
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.onnx"
        save(graph, path)
        answers, _ = answers_of(Runner(onnx.load(path), integer_kernels=True, threads=2).run, task)
        stored = path.stat().st_size
    same = f"{agreement(reference, answers):.3f}" if task.classifies else ""
    mean = f"{np.exp(np.mean(np.log(errors))):.5f}" if errors else ""
    return (
        mean,
        f"{sqnr_db(reference, answers):.1f} dB",
        same,
        score_text(task, answers),
        f"{stored:,}",
        f"{stored / size:.3f}",
    )


if __name__ == "__main__":
    sys.exit(main())
