"""AffineQuant's ablation: what a matrix gains over a diagonal in front of layers, band by band.

    python -m benchmarks.affine [--bits 4] [--zoo FOLDER]

Each row fits one family of matrices A to the inputs x of some layers W (``W x = (W A^-1)(A x)``) and measures, on rows
that were not fitted to, what their outputs err by when ``A x`` and ``W A^-1`` lie on grids of so many bits. The block
is a Transformer's of 768 channels with 12 heads: random weights, and activations of which a few channels are much
larger than the others, as those of trained models are. With ``--zoo`` MiniLM's own layers follow.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.zoo import zoo_task
from qcompiler.activations.range_search import Rows, least_range, sample_rows
from qcompiler.calibration.observers import Range
from qcompiler.equivalence.affine import AffineProblem, Fit, dominance, fit_matrix
from qcompiler.equivalence.hadamard import hadamard, hadamard_order
from qcompiler.equivalence.levels import Levels
from qcompiler.feeds.sources import open_source
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.affine import starting_diagonal
from qcompiler.passes.equalize.rotate_inputs import best_divisors
from qcompiler.pipeline import NORMALIZE

Array = NDArray[Any]

WIDTH, HEADS, ROWS = 768, 12, 1536
OUTLIERS, OUTLIER_SIZE = 6, 20.0
BANDS = (0.0, 1 / 3, 2 / 3, 1.0)
EPOCHS, STEPS = 4, 8
MOST_SIGNS = 128


@dataclass(frozen=True, eq=False)
class Case:
    """Layers that read one tensor: rows of it [n, C] to fit on and held out, the layers' weights [O, C], and the size
    of A's blocks.
    """

    name: str
    fit: Array
    held: Array
    weights: Sequence[Array]
    block: int


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.affine", description="AffineQuant's ablation.")
    parser.add_argument("--bits", type=int, default=4, choices=range(2, 9), help="of weights and activations")
    parser.add_argument(
        "--zoo", type=Path, metavar="FOLDER", help="where MiniLM is; python -m models.zoo FOLDER builds it"
    )
    chosen = parser.parse_args()
    levels = Levels(2**chosen.bits - 1, 2 ** (chosen.bits - 1) - 1)
    table = Table("layers", "matrix", "predicted", "held out", "condition", "margin", "seconds", "peak MB")
    for case in (*random_block(), *(minilm(chosen.zoo) if chosen.zoo else ())):
        for row in measure(case, levels):
            table.add_row(*row)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


def random_block() -> Iterator[Case]:
    """The input of an attention's three projections, and of its output projection head by head."""
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0.0, 0.4, WIDTH)
    sizes[rng.permutation(WIDTH)[:OUTLIERS]] *= OUTLIER_SIZE
    mixing = rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
    x = (rng.standard_t(6, (ROWS, WIDTH)) @ (0.5 * mixing + 0.5 * np.eye(WIDTH))) * sizes
    weights = [rng.standard_t(5, (WIDTH, WIDTH)) / np.sqrt(WIDTH) / np.sqrt(sizes) for _ in range(3)]
    yield Case("768 random, QKV", x[::2], x[1::2], weights, WIDTH)
    values = rng.standard_t(6, (ROWS, WIDTH)) @ mixing * rng.lognormal(0.0, 0.5, WIDTH)
    yield Case("768 random, O by heads", values[::2], values[1::2], [rng.standard_t(5, (WIDTH, WIDTH))], WIDTH // HEADS)


def minilm(zoo: Path) -> Iterator[Case]:
    """The first, the middle and the last attention of MiniLM."""
    task = zoo_task("minilm", zoo)
    graph = load_graph(task.model)
    Manager(NORMALIZE).run(graph, Context())
    layers = [layer for layer in find_layers(graph) if layer.node.op == "MatMul"]
    feeds = [feed for number, feed in enumerate(open_source(task.calibration, graph)) if number < 8]
    samples = sample_rows(graph, layers, feeds, 0)
    by_input: dict[str, list[Layer]] = {}
    for layer in layers:
        by_input.setdefault(layer.node.inputs[0].name, []).append(layer)
    projections = [readers for readers in by_input.values() if len(readers) == len("QKV")]
    for number in (0, len(projections) // 2, len(projections) - 1):
        yield _case(f"MiniLM {number}, QKV", projections[number], samples)


def _case(name: str, readers: Sequence[Layer], samples: dict[str, Rows]) -> Case:
    x = samples[readers[0].node.name].x[0].astype(np.float64)
    weights = [np.asarray(layer.values if layer.axis == 0 else layer.values.T, np.float64) for layer in readers]
    return Case(name, x[::2], x[1::2], weights, x.shape[1])


def problem_of(case: Case, levels: Levels) -> AffineProblem:
    """What `fit_matrix` minimizes for the layers of a case."""
    gram = case.fit.T @ case.fit / len(case.fit)
    readers = [weight / np.sqrt(float(((weight @ gram) * weight).sum())) for weight in case.weights]
    return AffineProblem([case.fit], gram, readers, [], case.block, levels)


def families(case: Case, problem: AffineProblem) -> Iterator[tuple[str, Callable[[], tuple[Array, Fit | None]]]]:
    """Name and maker of the blocks of each kind of A."""
    blocks, block = problem.blocks, problem.block
    eye = np.broadcast_to(np.eye(block), (blocks, block, block))
    diagonal = starting_diagonal(problem)
    yield "none", lambda: (eye, None)
    yield "SmoothQuant's diagonal", lambda: (eye * diagonal.reshape(blocks, block, 1), None)
    for widest in BANDS:
        def fitted(widest: float = widest) -> tuple[Array, Fit]:
            fit = fit_matrix(problem, diagonal, epochs=EPOCHS, steps=STEPS, widest=widest)
            return fit.matrices, fit
        yield f"fitted, band {round(widest * (block - 1))}", fitted
    size = hadamard_order(block, MOST_SIGNS)
    turn = hadamard(size) / np.sqrt(size) * np.random.default_rng(0).choice([-1.0, 1.0], size)
    yield f"Hadamard, {size}", lambda: (np.broadcast_to(turn, (block * blocks // size, size, size)), None)
    divided = turn / best_divisors([_rows(case.fit, weight) for weight in case.weights]).reshape(-1, 1, size)
    yield f"divided, Hadamard, {size}", lambda: (divided, None)


def measure(case: Case, levels: Levels) -> Iterator[tuple[str, ...]]:
    """The rows of one case."""
    problem = problem_of(case, levels)
    for name, make in families(case, problem):
        tracemalloc.start()
        start = time.perf_counter()
        matrices, fit = make()
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        cost = (f"{seconds:.1f}", f"{peak / 1e6:.0f}") if fit else ("", "")
        margin = f"{float(dominance(matrices).min()):.2f}" if "Hadamard" not in name else ""
        predicted = f"{problem.loss(matrices):.4f}" if len(matrices) == problem.blocks else ""
        yield (
            case.name,
            name,
            predicted,
            f"{error(case, matrices, levels):.4f}",
            f"{np.linalg.cond(matrices).max():.1f}",
            margin,
            *cost,
        )


def error(case: Case, matrices: Array, levels: Levels) -> float:
    """Error of the layers' outputs on the held rows, relative to their energy, inputs on a grid of least loss and
    weights rounded.
    """
    blocks, block = matrices.shape[:2]
    inverse = np.linalg.inv(matrices)

    def times(parts: Array, rows: Array) -> Array:
        return np.asarray(
            np.einsum("bij,nbj->nbi", parts, rows.reshape(-1, blocks, block)).reshape(rows.shape), np.float32
        )

    weights = [times(inverse.transpose(0, 2, 1), weight) for weight in case.weights]
    fit = [_rows(times(matrices, case.fit), weight) for weight in weights]
    held = [_rows(times(matrices, case.held), weight) for weight in weights]
    count = int(levels.activation) + 1
    whole = Range(float(fit[0].x.min()), float(fit[0].x.max()))
    best = least_range(lambda tried: sum(rows.loss(tried, count) for rows in fit), whole)
    return sum(rows.loss(best, count) + rows.weight_loss(int(levels.weight)) for rows in held) / len(held)


def _rows(x: Array, weight: Array) -> Rows:
    return Rows(weight[None], x[None], float(np.square(x @ weight.T).sum()))


if __name__ == "__main__":
    sys.exit(main())
