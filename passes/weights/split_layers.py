"""SplitQuant: three parallel layers in the place of one, for its low, middle and high weights, their results added.

    W = W_low + W_middle + W_high         each weight in one of the three, zeros elsewhere
    y = (W_low x + W_middle x) + W_high x

Each branch has a narrower range, so its steps are finer. The clusters are those of an exact one-dimensional k-means:
per output channel for convolutions, over the whole weight else. Biases fall into three clusters of their own. The float
function stays as it is, up to the order of the additions. Three layers cost three multiplications and, at b bits each,
3 b bits a weight; one layer whose grid is the union of the three (``split2``) takes b + 2 bits and one multiplication:
see `fuse-split`.

Optionally activations are split, too: three parts of their channels, each with a grid of its own, then joined again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Constant, Graph, Node, Tensor, Variable, constant_of, names_in, unique_name
from ...graph.operators import LAYERS
from ...grids import Grid
from ...pass_base import Context, Pass
from ...rewriting.match import Array, insert_before, standard, take_over
from ...weights.split_matrices import BRANCHES, clusters, find_splits

ACTIVATIONS = ("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Gelu", "HardSwish", "HardSigmoid")
_NAMES = ("low", "middle", "high")


@dataclass(frozen=True)
class SplitLayers(Pass):
    """Three branches for every layer with constant weights.

    Attributes:
        bits: gives the weights of each branch a grid of 2^bits evenly spaced levels over its range (``ctx.grids``); 0:
            leaves that to others.
        activations: also split activations into three parts of their channels.
    """

    name: ClassVar[str] = "split-layers"
    exact: ClassVar[bool] = True
    bits: int = 0
    activations: bool = False

    def __post_init__(self) -> None:
        if self.bits not in range(8):
            raise ValueError(f"bits is 0 to 7, not {self.bits}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Split the layers; True when there was one to split."""
        split = {id(node) for found in find_splits(graph) for node in found.branches}
        changed = False
        for node in [node for node in standard(graph, *LAYERS) if id(node) not in split]:
            reason = _why_not(node)
            if reason is not None:
                ctx.declined(node, reason)
                continue
            self._split(graph, node, ctx)
            changed = True
        if self.activations:
            for node in standard(graph, *ACTIVATIONS):
                changed |= _split_channels(graph, node, ctx)
        return changed

    def _split(self, graph: Graph, node: Node, ctx: Context) -> None:
        taken, weight = names_in(graph), np.asarray(constant_of(node.inputs[1]))
        parts = _by_kernel(weight) if node.op == "Conv" else clusters(weight)
        bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
        biases = clusters(np.asarray(bias)) if bias is not None else []
        results = []
        for index, (label, part) in enumerate(zip(_NAMES, parts, strict=True)):
            stored = [(node.inputs[1].name, part), *([(node.inputs[2].name, biases[index])] if biases else [])]
            constants = [Constant(unique_name(taken, f"{name}_{label}"), values) for name, values in stored]
            result = _like(node.outputs[0], unique_name(taken, f"{node.outputs[0].name}_{label}"))
            branch = Node(
                node.op,
                unique_name(taken, f"{node.name}_{label}"),
                dict(node.attrs),
                [node.inputs[0], *constants],
                [result],
            )
            insert_before(graph, node, branch)
            if self.bits:
                ctx.grids[branch.name] = _branch_grid(part, self.bits)
            results.append(result)
        partial = _like(node.outputs[0], unique_name(taken, f"{node.outputs[0].name}_low_middle"))
        insert_before(
            graph, node, Node("Add", unique_name(taken, f"{node.name}_low_middle"), {}, results[:2], [partial])
        )
        take_over(
            graph, node, Node("Add", unique_name(taken, f"{node.name}_sum"), {}, [partial, results[2]]), node.outputs[0]
        )


def _why_not(node: Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None or weight.dtype != np.float32:
        return "its weights are not constant float32"
    if len(node.inputs) > 2 and node.inputs[2].name and constant_of(node.inputs[2]) is None:
        return "its bias is not constant"
    return (
        "its weights have fewer than three different values: there is nothing to split"
        if len(np.unique(weight)) < BRANCHES
        else None
    )


def _by_kernel(weight: Array) -> list[Array]:
    kernels = [clusters(kernel) for kernel in weight]
    return [np.stack([kernel[index] for kernel in kernels]) for index in range(BRANCHES)]


def _branch_grid(part: Array, bits: int) -> Grid:
    """2^bits levels one step apart over the range of a branch, which always holds 0."""
    low, high = min(float(part.min()), 0.0), max(float(part.max()), 0.0)
    most = 2**bits - 1
    below = round(most * -low / (high - low)) if high > low else 0
    return Grid(f"branch{bits}", np.arange(-below, most - below + 1, dtype=np.int16))


def _like(tensor: Tensor, name: str) -> Variable:
    return Variable(name, dtype=tensor.dtype, shape=tensor.shape)


def _split_channels(graph: Graph, node: Node, ctx: Context) -> bool:
    """Split -> three activations -> Concat, along axis 1."""
    source, output = node.inputs[0], node.outputs[0]
    shape = source.shape
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int) or shape[1] < BRANCHES:
        ctx.declined(node, "it has fewer than three channels, or their number is not known")
        return False
    if source.inputs and source.inputs[0].op == "Split":
        return False
    taken = names_in(graph)
    sizes = [len(part) for part in np.array_split(np.arange(shape[1]), BRANCHES)]
    shapes = [[shape[0], size, *shape[2:]] for size in sizes]
    parts, results = (
        [
            Variable(unique_name(taken, f"{tensor.name}_{label}"), tensor.dtype, form)
            for label, form in zip(_NAMES, shapes, strict=True)
        ]
        for tensor in (source, output)
    )
    lengths = Constant(unique_name(taken, f"{node.name}_parts"), np.array(sizes, np.int64))
    insert_before(
        graph, node, Node("Split", unique_name(taken, f"{node.name}_split"), {"axis": 1}, [source, lengths], parts)
    )
    for label, part, result in zip(_NAMES, parts, results, strict=True):
        inputs = [part, *node.inputs[1:]]
        insert_before(
            graph, node, Node(node.op, unique_name(taken, f"{node.name}_{label}"), dict(node.attrs), inputs, [result])
        )
    take_over(graph, node, Node("Concat", unique_name(taken, f"{node.name}_join"), {"axis": 1}, results), output)
    return True
