"""What a node reads, also through the bodies of control flow, and which nodes are cheap enough to be in every part."""

from __future__ import annotations

from collections.abc import Iterator

from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor, Variable, is_float, subgraphs

__all__ = ["Reads", "repeatable", "tensors_read"]

_SIZES = ("Shape", "Size")
_DRAWS = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def tensors_read(node: Node) -> list[Tensor]:
    """The variables that a node reads: its inputs, and what its bodies take from outside; each once, by name."""
    found = {tensor.name: tensor for tensor in node.inputs if isinstance(tensor, Variable) and tensor.name}
    for body in subgraphs(node):
        found |= {tensor.name: tensor for tensor in _captured(body)}
    return list(found.values())


def _captured(body: Graph) -> Iterator[Tensor]:
    own = {tensor.name for node in body.nodes for tensor in node.outputs} | {tensor.name for tensor in body.inputs}
    read = [tensor for node in body.nodes for tensor in tensors_read(node)]
    for tensor in (*read, *body.outputs):
        if isinstance(tensor, Variable) and tensor.name and tensor.name not in own:
            yield tensor


def repeatable(graph: Graph) -> set[str]:
    """Names of the nodes that every part which reads them may have for itself.

    They are arithmetic of sizes, which so never crosses a border as data, and what is made of constants alone
    (dequantized weights). A node that writes an output of the graph is none.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    known: set[str] = set()
    sizes: set[str] = set()
    found = set()
    for node in graph.nodes:
        if node.domain not in STANDARD_DOMAINS or subgraphs(node) or node.op in _DRAWS:
            continue
        read = [tensor.name for tensor in node.inputs if isinstance(tensor, Variable) and tensor.name]
        constant = all(name in known for name in read) and bool(node.inputs)
        sized = node.op in _SIZES or all(name in known | sizes for name in read)
        if any(tensor.name in outputs for tensor in node.outputs) or not (constant or (sized and _is_whole(node))):
            continue
        found.add(node.name)
        (known if constant else sizes).update(tensor.name for tensor in node.outputs)
    return found


def _is_whole(node: Node) -> bool:
    """True where all results are integers or truth values."""
    return all(tensor.dtype is not None and not is_float(tensor) and tensor.dtype != object for tensor in node.outputs)


class Reads:
    """Who writes what in a graph.

    Attributes:
        producers: the node that writes a tensor, by the tensor's name.
        repeated: names of the nodes that parts have for themselves.
    """

    def __init__(self, graph: Graph) -> None:
        self.producers = {tensor.name: node for node in graph.nodes for tensor in node.outputs if tensor.name}
        self.repeated = repeatable(graph)

    def needed(self, nodes: list[Node]) -> tuple[list[Node], list[str]]:
        """What parts need besides ``nodes``: repeated nodes behind them, and names of tensors that others give."""
        given = {tensor.name for node in nodes for tensor in node.outputs}
        repeated: dict[str, Node] = {}
        outside: dict[str, None] = {}
        pending = list(nodes)
        while pending:
            for tensor in tensors_read(pending.pop()):
                source = self.producers.get(tensor.name)
                if tensor.name in given or isinstance(tensor, Constant):
                    continue
                if source is None or source.name not in self.repeated:
                    outside[tensor.name] = None
                elif source.name not in repeated:
                    repeated[source.name] = source
                    pending.append(source)
        return list(repeated.values()), list(outside)
