"""`qcompile inspect`: what a model is, and what would become of it, before it is compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qcompiler.errors import ModelError
from qcompiler.feeds.sources import input_specs
from qcompiler.feeds.synthetic import SyntheticFeeds
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.layers import find_layers
from qcompiler.graph.macs import all_macs
from qcompiler.graph.placement import Placement, place
from qcompiler.graph.runner import refuse_unknown_operators
from qcompiler.graph.value_kinds import value_kinds
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import CompileRequest, Options, command_of
from qcompiler.pass_base import Context
from qcompiler.presets import pipeline_for
from qcompiler.report.measure import weight_bytes
from qcompiler.report.terminal import Row, size
from qcompiler.shapes.fixed import fix_sizes, parse_sizes

__all__ = ["Inspection", "inspect", "rows"]

MODULE = "my_feeds"
"""Name of the Python file that the template is for."""
FLOAT_LINES = 10


@dataclass(frozen=True)
class Left:
    """Nodes that would stay float."""

    op: str
    reason: str
    nodes: list[str]


@dataclass(frozen=True)
class Inspection:
    """What is known of a model before it is compiled.

    Attributes:
        model: its path.
        inputs, outputs: type and shape by name.
        operators: how many nodes of each, in the file.
        layers: nodes that multiply with stored weights, once passes have fused what belongs together.
        weight_bytes: of the float model.
        macs: multiply-accumulates of one run on a made-up feed; None where it does not run on one.
        integer_share: the part of them that would be integer in ``.onnx``.
        left_float: what would not be.
        command: a command to begin with.
        template: a Python file that yields calibration feeds for these inputs.
    """

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    layers: int
    weight_bytes: int
    macs: int | None
    integer_share: float | None
    left_float: list[Left]
    command: str
    template: str

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def inspect(path: Path, dims: Sequence[str] = ()) -> Inspection:
    """Look at a model. Nothing is quantized or measured; the exact passes show what the compiler would see.

    Args:
        path: of the float model.
        dims: sizes of symbolic dimensions, as `Options.dims`.
    """
    options = Options(dims=tuple(dims))
    graph = load_graph(path)
    operators = Counter(node.op for node in graph.nodes)
    refuse_unknown_operators(graph)
    sizes = parse_sizes(options.dims)
    fix_sizes(graph, sizes)
    ctx = Context(dims={name: high for name, (_, high) in sizes.items()})
    feed = next(iter(SyntheticFeeds(graph, ctx, 1)))
    inputs, outputs = ({str(t.name): _typed(t) for t in side} for side in (graph.inputs, graph.outputs))
    size_of_weights = weight_bytes(graph)
    Manager(pipeline_for(options, for_onnx=True).parts()[0]).run(graph, ctx)
    placement = place(graph, value_kinds(graph), zones="float")
    total, integer = _macs(graph, placement, feed)
    request = CompileRequest(
        path, options, [Path(f"{path.stem}.int8.onnx")], calib=f"{MODULE}:feeds", report=Path(f"{path.stem}.html")
    )
    return Inspection(
        str(path), inputs, outputs, dict(operators.most_common()), sum(1 for _ in find_layers(graph)),
        size_of_weights, total, integer / total if total and integer is not None else None, _left(placement),
        command_of(request), template(graph, feed),
    )  # fmt: skip


def _typed(tensor: Any) -> str:
    shape = "any shape" if tensor.shape is None else f"[{', '.join(str(dim) for dim in tensor.shape)}]"
    return f"{tensor.dtype} {shape}"


def _macs(graph: Graph, placement: Placement, feed: Feed) -> tuple[int | None, int | None]:
    """All, and those of nodes that get grids; None where the model does not run on a made-up feed."""
    try:
        counted = all_macs(graph, feed)
    except ModelError:
        return None, None
    integer = {id(node) for node in placement.quantized}
    return sum(count for _, count in counted), sum(count for node, count in counted if id(node) in integer)


def _left(placement: Placement) -> list[Left]:
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in placement.left_float:
        groups.setdefault((node.op, reason), []).append(str(node.name))
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [Left(op, reason, names) for (op, reason), names in largest]


def template(graph: Graph, feed: Feed) -> str:
    """A Python file whose function ``feeds`` yields arrays of the right types and shapes, to be filled in."""
    lines = [f'"""Calibration feeds: save as {MODULE}.py where you call qcompile; replace the zeros by real inputs."""',
             "", "import numpy as np", "", "", "def feeds():", "    for _ in range(64):  # some dozens of real samples",
             "        yield {"]  # fmt: skip
    for spec in input_specs(graph):
        array = feed[spec.name]
        made = f"np.full({array.shape}, '', object)" if array.dtype == object else (
            f"np.zeros({array.shape}, np.{'bool_' if array.dtype == bool else array.dtype.name})"
        )  # fmt: skip
        lines.append(f"            {spec.name!r}: {made},  # {spec}")
    return "\n".join([*lines, "        }", ""])


def rows(found: Inspection) -> list[Row]:
    """The lines that people read; the template comes behind them."""
    lines = [("model", found.model)]
    for label, sides in (("input", found.inputs), ("output", found.outputs)):
        lines += [(label if not index else "", f"{name}: {kind}") for index, (name, kind) in enumerate(sides.items())]
    lines.append(("operators", ", ".join(f"{count} {op}" for op, count in found.operators.items())))
    lines.append(("layers", f"{found.layers} with stored weights, {size(found.weight_bytes)} of constants"))
    if found.macs is None:
        lines.append(("work", "unknown: the model does not run on made-up inputs; give sizes with --dim"))
    else:
        lines.append(("work", f"{found.macs:,} multiply-accumulates on a made-up input"))
    if found.integer_share is not None:
        lines.append(("integer", f"{100 * found.integer_share:.1f} % of them, by the look of it"))
    for index, left in enumerate(found.left_float[:FLOAT_LINES]):
        text = f"{left.op} ({len(left.nodes)}, {left.nodes[0]} first): {left.reason}"
        lines.append(("stays float" if not index else "", text))
    if len(found.left_float) > FLOAT_LINES:
        lines.append(("", "--json lists all"))
    return [*lines, ("try", found.command)]
