"""Which equivalence regions models have, what may be done with each, and why others must stay as they are.

    python -m benchmarks.regions --light --zoo FOLDER effnet minilm ocr_rec ocr_cls
    python -m benchmarks.regions --each MODEL.onnx

A region is counted once, by the most general transform that it admits: a matrix of blocks, a diagonal and a shift, or a
diagonal. A region that no layer reads is counted as frozen. ``--light`` takes the nine architectures that come with
ONNX; ``--each`` lists every region.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx.backend.test.data
from rich.console import Console
from rich.table import Table

from models.zoo import TASKS, zoo_task
from qcompiler.equivalence.fold import shift_refusal
from qcompiler.equivalence.regions import Region, find_regions
from qcompiler.errors import QCompilerError
from qcompiler.graph.ir import Graph
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import NORMALIZE

KINDS = ("matrix", "shift", "diagonal", "frozen")
MOST_REASONS = 4
"""Reasons that a line of the table names."""


def main() -> int:
    """Print the table; 2 when a model cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regions", description="Equivalence regions of models.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(TASKS)}, or the path of an ONNX model")
    parser.add_argument(
        "--zoo",
        type=Path,
        metavar="FOLDER",
        help="where the larger models are; python -m models.zoo FOLDER builds them",
    )
    parser.add_argument("--light", action="store_true", help="the nine architectures that come with ONNX, too")
    parser.add_argument("--each", action="store_true", help="list every region")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table("model", "regions", *KINDS, "channels scaled", "why others stay")
    for name, path in _paths(parser, chosen):
        try:
            graph = normalized(path)
        except QCompilerError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
        regions = find_regions(graph)
        table.add_row(name, *summary(graph, regions))
        if chosen.each:
            console.print(detail(name, graph, regions))
    console.print(table)
    return 0


def _paths(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Name and file of each model asked for."""
    for name in chosen.models:
        if name in TASKS and chosen.zoo is None:
            parser.error(f"--zoo FOLDER is needed for {name}")
        yield name, zoo_task(name, chosen.zoo).model if name in TASKS else Path(name)
    if chosen.light:
        folder = Path(next(iter(onnx.backend.test.data.__path__))) / "light"
        yield from ((path.stem.removeprefix("light_"), path) for path in sorted(folder.glob("*.onnx")))


def normalized(path: Path) -> Graph:
    """The graph of a model as the passes of equivalences meet it."""
    graph = load_graph(path)
    Manager(NORMALIZE).run(graph, Context())
    return graph


def kind_of(graph: Graph, region: Region) -> str:
    """The most general transform that a region admits."""
    if region.classes == 0 or not (region.ends(writes=False, role="weight") or region.has_inverse):
        return "frozen"
    if region.block > 1:
        return "matrix"
    return "shift" if shift_refusal(graph, region) is None else "diagonal"


def reasons_of(region: Region) -> Iterator[str]:
    """Why a region is frozen, without the names of tensors."""
    found = [reason for _, reason in region.reasons] or ["no layer reads it"]
    yield from {" ".join(word for word in reason.split() if "'" not in word) for reason in found}


def summary(graph: Graph, regions: Sequence[Region]) -> tuple[str, ...]:
    """The cells of a model's line."""
    kinds = collections.Counter(kind_of(graph, region) for region in regions)
    scaled = sum(region.classes for region in regions if kind_of(graph, region) != "frozen")
    frozen = [region for region in regions if kind_of(graph, region) == "frozen"]
    reasons = collections.Counter(reason for region in frozen for reason in reasons_of(region))
    text = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(MOST_REASONS))
    return str(len(regions)), *(str(kinds[kind]) for kind in KINDS), f"{scaled:,}", text


def detail(name: str, graph: Graph, regions: Sequence[Region]) -> Table:
    """A line for each region."""
    table = Table("tensor", "channels", "kind", "block", "written by", "read by", "frozen because", title=name)
    for region in regions:
        sides = [
            ", ".join(f"{end.node.op} {end.role}" for _, end in region.ends(writes=writes)) for writes in (True, False)
        ]
        why = "; ".join(reason for _, reason in region.reasons)
        table.add_row(region.name, str(region.classes), kind_of(graph, region), str(region.block), *sides, why)
    return table


if __name__ == "__main__":
    sys.exit(main())
