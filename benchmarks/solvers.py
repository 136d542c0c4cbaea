"""What each solver makes of the layers of a model: expected squared error beside rounding to nearest, on what it saw
and on feeds held out.

    python -m benchmarks.solvers --zoo FOLDER effnet minilm --grids int4 int3 --every 3

Losses are geometric means over layers of the loss relative to that of rounding to the nearest level; seconds are of the
processor, all threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.tools.arguments import models_parser, parse, task_of
from models.task import Task
from qcompiler.calibration.gram import LayerInputs, layer_inputs
from qcompiler.calibration.patches import as_matrix
from qcompiler.graph.layers import find_layers, has_bias
from qcompiler.grids import grid_named
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import Pipeline
from qcompiler.solvers import SOLVERS, Nearest
from qcompiler.solvers.problem import LayerProblem, loss

Problems = tuple[LayerProblem, LayerProblem]


def main() -> int:
    """Print a table."""
    parser = models_parser("solvers", "Compare solvers on the layers of models.")
    parser.add_argument("--grids", nargs="+", default=["int4", "int3"], metavar="GRID", help="names of grids")
    parser.add_argument(
        "--solvers", nargs="+", default=[*SOLVERS], choices=[*SOLVERS], metavar="SOLVER", help=", ".join(SOLVERS)
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take one layer in N")
    chosen = parse(parser)
    table = Table("model", "layers", "grid", "solver", "fitted", "held out", "seconds")
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        for row in measure(task, chosen.grids, chosen.solvers, chosen.every):
            table.add_row(*row)
            print("\t".join(row), file=sys.stderr, flush=True)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


def measure(task: Task, grids: Sequence[str], solvers: Sequence[str], every: int) -> Iterator[tuple[str, ...]]:
    """The lines of one model, dense and depthwise layers apart."""
    graph, ctx = load_graph(task.model), Context(data=task.calibration)
    Manager(Pipeline.parse("normalize").passes).run(graph, ctx)
    found = list(find_layers(graph))[::every]
    observed = [
        item
        for item in layer_inputs(graph, found, task.calibration)
        if as_matrix(item.layer, item.layer.values) is not None
    ]
    for name in grids:
        every_problem = [problems_of(item, name) for item in observed]
        for kind in ("dense", "grouped"):
            problems = [pair for pair in every_problem if (pair[0].weight.shape[0] > 1) == (kind == "grouped")]
            if not problems:
                continue
            for solver in solvers:
                yield task.name, f"{len(problems)} {kind}", name, solver, *solve(problems, solver)


def problems_of(item: LayerInputs, grid: str) -> Problems:
    """The problem of a layer to fit on, and the one held out."""
    weight = np.asarray(as_matrix(item.layer, item.layer.values), np.float32)
    levels = grid_named(grid).fit(weight, item.fit.gram)
    fit, held = (
        LayerProblem(weight, side.gram, side.mean, levels, has_bias(item.layer)) for side in (item.fit, item.held)
    )
    return fit, held


def solve(problems: Sequence[Problems], name: str) -> tuple[str, str, str]:
    """Relative losses, fitted and held out, and seconds."""
    ratios, seconds = [], 0.0
    SOLVERS[name].solve(problems[0][0])  # compiles
    for fit, held in problems:
        before = time.process_time()
        solution = SOLVERS[name].solve(fit)
        seconds += time.process_time() - before
        plain = Nearest().solve(fit)
        ratios.append(
            [
                loss(side, solution.weight(fit.grid.block)) / max(loss(side, plain.weight(fit.grid.block)), 1e-30)
                for side in (fit, held)
            ]
        )
    fitted, validated = np.exp(np.mean(np.log(np.maximum(ratios, 1e-12)), axis=0))
    return f"{fitted:.3f}", f"{validated:.3f}", f"{seconds:.1f}"


if __name__ == "__main__":
    sys.exit(main())
