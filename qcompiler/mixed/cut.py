"""Cuts a quantized graph into parts: graphs of their own whose inputs and outputs are what crosses a border."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from qcompiler.graph.ir import (
    ORIGIN,
    Constant,
    Feed,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    consumers,
    copy_of,
    insert_qdq,
    names_in,
    producer,
    read_spec,
    replace_uses,
    unique_name,
)
from qcompiler.graph.origin import origin_of
from qcompiler.mixed.dependencies import Reads, tensors_read
from qcompiler.mixed.stages import dependencies, stages_of
from qcompiler.shapes.infer import dim_name, infer_shapes
from qcompiler.shapes.seen_types import complete_types

__all__ = ["Part", "cut", "prepared_copy", "without_idle_pairs"]


@dataclass(frozen=True)
class Part:
    """A part of a graph.

    Attributes:
        outside: it runs on onnxruntime, not on the machine.
        graph: of its own.
        nodes: names of its nodes in the whole graph, but for those that several parts have.
    """

    outside: bool
    graph: Graph
    nodes: tuple[str, ...]


def prepared_copy(graph: Graph, feed: Feed) -> Graph:
    """A copy in which every node has a name of its own and every tensor its type, as far as a run on ``feed`` tells,
    and no output is a constant.
    """
    copy = copy_of(graph)
    taken: set[str] = set()
    for node in copy.nodes:
        node.name = unique_name(taken, node.name or node.op)
    complete_types(copy, feed)
    tensors = names_in(copy)
    for index, tensor in enumerate(copy.outputs):
        if isinstance(tensor, Constant):
            value = Constant(unique_name(tensors, f"{tensor.name}_value"), tensor.values)
            output = Variable(tensor.name, tensor.dtype, list(tensor.shape))
            replace_uses(copy, tensor, value, consumers(tensor))
            copy.nodes.append(Node("Identity", unique_name(taken, tensor.name), {}, [value], [output]))
            copy.outputs[index] = output
    return copy


def without_idle_pairs(graph: Graph, outside: Collection[str]) -> Graph:
    """A copy without the pairs of QuantizeLinear and DequantizeLinear that no integer node writes or reads through.

    Where nodes ``outside`` read an input, or each other, through a pair, they read the float tensor itself.
    """
    copy = copy_of(graph)
    outputs = {id(tensor) for tensor in copy.outputs}
    for node in [node for node in copy.nodes if node.op == "DequantizeLinear"]:
        quantize, end = producer(node.inputs[0]), node.outputs[0]
        if quantize is None or quantize.op != "QuantizeLinear" or constant_of(quantize.inputs[0]) is not None:
            continue
        source = quantize.inputs[0]
        writer = producer(source)
        if writer is not None and writer.name not in outside:
            continue
        readers = consumers(end)
        loose = [reader for reader in readers if reader.name in outside]
        replace_uses(copy, end, source, loose)
        is_free = writer is not None and id(source) not in outputs
        if id(end) in outputs and is_free and len(loose) == len(readers):
            _take_name(copy, source, end)
    return copy.cleanup(remove_unused_graph_inputs=False).toposort()


def _take_name(graph: Graph, source: Tensor, end: Tensor) -> None:
    """Let ``source`` be the output that ``end`` is."""
    graph.outputs = [source if tensor is end else tensor for tensor in graph.outputs]
    source.name, end.name = end.name, source.name


def cut(graph: Graph, outside: Collection[str], feed_ranks: Mapping[str, int]) -> list[Part]:
    """The parts in the order in which they run.

    Args:
        graph: of `without_idle_pairs`.
        outside: names of the nodes that are no part of a segment.
        feed_ranks: number of axes of tensors on a feed, by name.
    """
    reads = Reads(graph)
    stages = stages_of(dependencies(graph, reads), outside)
    shapes = _border_shapes(graph, feed_ranks)
    by_name = {node.name: node for node in graph.nodes}
    groups = [[by_name[name] for name in names] for _, names in stages]
    needed = [reads.needed(nodes) for nodes in groups]
    wanted = {tensor.name for tensor in graph.outputs}.union(*(names for _, names in needed))
    parts = []
    for (is_outside, _), nodes, (repeated, names) in zip(stages, groups, needed, strict=True):
        part = _graph_of(graph, nodes, repeated, names, wanted, shapes)
        if not is_outside:
            _keep_grids(part, reads)
        parts.append(Part(is_outside, part, tuple(node.name for node in nodes)))
    return parts


def _keep_grids(segment: Graph, reads: Reads) -> None:
    """Let what comes out of another segment's grid enter on that grid: its codes are the same again."""
    taken = names_in(segment)
    for tensor in segment.inputs:
        writer = reads.producers.get(tensor.name)
        spec = read_spec(writer) if writer is not None and writer.op == "DequantizeLinear" else None
        if spec is not None:
            insert_qdq(segment, tensor, spec, taken, consumers(tensor))


def _border_shapes(graph: Graph, ranks: Mapping[str, int]) -> dict[str, list[int | str]]:
    """Shapes of all tensors whose rank is known; sizes that are neither numbers nor symbols get a symbol, equal ones
    the same.
    """
    found: dict[str, list[int | str]] = {}
    symbols: dict[str, str] = {}
    for name, shape in infer_shapes(graph).items():
        if shape is None and name not in ranks:
            continue
        if shape is None:
            shape = (None,) * ranks[name]
        sizes: list[int | str] = []
        for axis, size in enumerate(shape):
            own = dim_name(name, axis)
            if size is None or isinstance(size, int):
                sizes.append(own if size is None else size)
            else:
                sizes.append(str(size.name) if size.is_Symbol else symbols.setdefault(str(size), own))
        found[name] = sizes
    return found


def _graph_of(
    graph: Graph, nodes: Sequence[Node], repeated: Sequence[Node], inputs: Sequence[str], wanted: Collection[str],
    shapes: Mapping[str, list[int | str]],
) -> Graph:  # fmt: skip
    """The graph of a part that gives all it writes of ``wanted``."""
    kept = {node.name for node in (*nodes, *repeated)}
    own = [node for node in graph.nodes if node.name in kept]
    tensors = {tensor.name: tensor for node in own for tensor in (*tensors_read(node), *node.outputs)}
    order = {name: index for index, name in enumerate(_in_order(graph))}
    read = [tensors[name] for name in sorted(inputs, key=order.__getitem__)]
    written = [tensor for node in nodes for tensor in node.outputs if tensor.name in wanted]
    copy = copy_of(_around(graph, own, read, written))
    borders = {tensor.name for tensor in graph.inputs}
    for tensor in (tensor for tensor in copy.inputs if tensor.name not in borders):
        tensor.shape = shapes.get(tensor.name)
    return copy


def _around(graph: Graph, nodes: list[Node], inputs: list[Tensor], outputs: list[Tensor]) -> Graph:
    """A graph with nodes and tensors of another; its copy knows no others."""
    part = Graph(nodes, inputs, outputs, name=graph.name, opset=graph.opset, ir_version=graph.ir_version)
    part.import_domains = graph.import_domains
    part.__dict__[ORIGIN] = origin_of(graph)
    return part


def _in_order(graph: Graph) -> list[str]:
    """Names of the inputs, and of what nodes write."""
    return [tensor.name for tensor in (*graph.inputs, *(t for node in graph.nodes for t in node.outputs))]
