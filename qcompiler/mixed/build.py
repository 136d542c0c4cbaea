"""Makes a mixed program of a quantized graph that cannot be integer from input to output.

What has no integer form is found by lowering: the nodes that it names stay outside, the rest is cut into segments, and
each segment is lowered in turn. Where one cannot be (a size that is data once the graph is cut), the nodes that this
names join those outside, until all segments are programs. Then islands that are too small go (`islands`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from qcompiler import lowering
from qcompiler.errors import NoIntegerFormError, UnsupportedError
from qcompiler.graph.ir import Feed, Graph, Tensor
from qcompiler.graph.macs import all_macs
from qcompiler.graph.origin import origin_of
from qcompiler.mixed.container import Border, MixedProgram, Piece
from qcompiler.mixed.cut import Part, cut, prepared_copy, without_idle_pairs
from qcompiler.mixed.dependencies import Reads, tensors_read
from qcompiler.mixed.islands import too_small
from qcompiler.mixed.stages import dependencies
from qcompiler.onnx_io.export import to_model
from qcompiler.records import FloatNode
from qcompiler.runtime import Program
from qcompiler.shapes.seen_types import seen_shapes

__all__ = ["build_mixed"]

_PAIRS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class _Seen:
    """What a run on a feed shows: multiply-accumulates by node, elements and axes by tensor."""

    macs: Mapping[str, int]
    elements: Mapping[str, int]
    ranks: Mapping[str, int]


def build_mixed(
    graph: Graph, feed: Feed, refusal: NoIntegerFormError, only: Mapping[str, int] | None = None
) -> MixedProgram:
    """The mixed program of a quantized graph, which is left as it is.

    Args:
        graph: of stage QUANTIZED.
        feed: for what is measured: sizes of what crosses borders.
        refusal: why the graph has no program of integers alone.
        only: inputs that must have the number given, by name.

    Raises:
        UnsupportedError: nothing of it can be integer.
    """
    whole = prepared_copy(graph, feed)
    seen = _look(whole, feed)
    known = {node.name for node in whole.nodes}
    outside = {name: reason for name, reason in refusal.nodes.items() if name in known} | _foreign(whole)
    small = set[str]()
    programs: dict[tuple[str, ...], Program] = {}
    while True:
        bare = without_idle_pairs(whole, outside)
        parts = cut(bare, outside, seen.ranks)
        found = _lower(parts, programs)
        if found is not None:
            _join(outside, found, whole)
            continue
        reads = Reads(bare)
        segments = [part.nodes for part in parts if not part.outside]
        dropped = too_small(bare, reads, dependencies(bare, reads), segments, seen.macs, seen.elements)
        if not dropped:
            break
        outside |= dropped
        small |= dropped.keys()
    if all(part.outside for part in parts):
        raise UnsupportedError(f"{refusal}; nothing else in the model would be integer")
    told = _outside(whole, parts, outside, small, seen)
    return _program(whole, parts, programs, told, seen, only or {})


def _look(graph: Graph, feed: Feed) -> _Seen:
    written = [tensor for node in graph.nodes for tensor in node.outputs if tensor.name]
    shapes = seen_shapes(graph, [tensor.name for tensor in written if _is_plain(tensor)], feed)
    macs: dict[str, int] = {}
    for node, count in all_macs(graph, feed):
        macs[node.name] = macs.get(node.name, 0) + count
    return _Seen(macs, {n: prod(shape) for n, shape in shapes.items()}, {n: len(shape) for n, shape in shapes.items()})


def _foreign(graph: Graph) -> dict[str, str]:
    """Nodes that read or write strings (inputs of the graph apart) or sequences: neither enters a segment."""
    inputs = {tensor.name for tensor in graph.inputs}
    found = {}
    for node in graph.nodes:
        for tensor in (*tensors_read(node), *(t for t in node.outputs if t.name)):
            if not _is_plain(tensor) and tensor.name not in inputs:
                found[node.name] = f"'{tensor.name}' is no tensor of numbers"
    return found


def _is_plain(tensor: Tensor) -> bool:
    kind = getattr(tensor, "type", "tensor_type")
    return kind == "tensor_type" and tensor.dtype is not None and tensor.dtype not in (object, str)


def _join(outside: dict[str, str], refusal: NoIntegerFormError, graph: Graph) -> None:
    """Add the nodes that a refusal names; raise it where it names no new one."""
    known = {node.name for node in graph.nodes}
    new = {name: reason for name, reason in refusal.nodes.items() if name in known and name not in outside}
    if not new:
        raise refusal
    outside |= new


def _lower(parts: Sequence[Part], programs: dict[tuple[str, ...], Program]) -> NoIntegerFormError | None:
    """Lower all segments; what the first ones that cannot be, name."""
    refusals: dict[str, str] = {}
    texts = []
    for part in (part for part in parts if not part.outside):
        key = _key(part)
        if key in programs:
            continue
        try:
            programs[key] = _lowered(part.graph)
        except NoIntegerFormError as error:
            refusals |= error.nodes
            texts.append(str(error))
    return NoIntegerFormError("; ".join(texts), refusals) if texts else None


def _key(part: Part) -> tuple[str, ...]:
    ends = (tensor.name for tensor in (*part.graph.inputs, *part.graph.outputs))
    return (*part.nodes, "", *ends)


def _lowered(graph: Graph) -> Program:
    """The program of a segment.

    Raises:
        NoIntegerFormError: names nodes of ``graph``.
    """
    sources: dict[str, str] = {}
    integer = lowering.lower_graph(graph, sources)
    try:
        return lowering.to_program(integer)
    except NoIntegerFormError as error:
        named = {sources.get(name, name): reason for name, reason in error.nodes.items()}
        raise NoIntegerFormError(str(error), named) from error


def _outside(
    graph: Graph, parts: Sequence[Part], outside: Mapping[str, str], small: Collection[str], seen: _Seen
) -> tuple[FloatNode, ...]:
    """The nodes of the float parts."""
    total = sum(seen.macs.values())
    left = {name for part in parts if part.outside for name in part.nodes}
    return tuple(
        FloatNode(
            node.name, node.op, outside[node.name], seen.macs.get(node.name, 0) / total if total else None,
            node.name in small,
        )
        for node in graph.nodes
        if node.name in left and node.op not in _PAIRS
    )  # fmt: skip


def _program(
    graph: Graph, parts: Sequence[Part], programs: Mapping[tuple[str, ...], Program], outside: tuple[FloatNode, ...],
    seen: _Seen, only: Mapping[str, int],
) -> MixedProgram:  # fmt: skip
    total = sum(seen.macs.values())
    inside = sum(seen.macs.get(name, 0) for part in parts if not part.outside for name in part.nodes)
    return MixedProgram(
        str(graph.name), _borders(graph, graph.inputs), _borders(graph, graph.outputs),
        tuple(_piece(part, programs) for part in parts), outside, inside / total if total else None, dict(only),
    )  # fmt: skip


def _borders(graph: Graph, tensors: Sequence[Tensor]) -> tuple[Border, ...]:
    declared = origin_of(graph).values
    return tuple(Border(t.name, _type_name(t), _sizes(t, declared.get(t.name))) for t in tensors)


def _type_name(tensor: Tensor) -> str:
    if tensor.dtype is None or getattr(tensor, "type", "tensor_type") != "tensor_type":
        return "sequence"
    kind = np.dtype(tensor.dtype)
    return "str" if kind.kind in "OU" else kind.name


def _sizes(tensor: Tensor, declared: onnx.ValueInfoProto | None) -> list[int | str] | None:
    """Sizes; those that inference does not know have the names that the model's file gives them."""
    if tensor.shape is None:
        return None
    dims = [] if declared is None else list(declared.type.tensor_type.shape.dim)
    names = [dim.dim_param or "?" for dim in dims] if len(dims) == len(tensor.shape) else ["?"] * len(tensor.shape)
    return [
        int(size) if isinstance(size, int | np.integer) else str(size or name)
        for size, name in zip(tensor.shape, names, strict=True)
    ]


def _piece(part: Part, programs: Mapping[tuple[str, ...], Program]) -> Piece:
    inputs, outputs = (tuple(tensor.name for tensor in side) for side in (part.graph.inputs, part.graph.outputs))
    if not part.outside:
        return Piece(True, inputs, outputs, programs[_key(part)].to_bytes())
    content = to_model(part.graph, pack=False).SerializeToString(deterministic=True)
    return Piece(False, inputs, outputs, content)
