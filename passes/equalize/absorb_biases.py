"""High-bias absorption (Nagel et al., "Data-Free Quantization", 2019, section 4.1.3).

Equalization may leave a channel of small weights with a large bias, and so with values far from 0 that the grid of the
whole tensor must reach. Where a channel behind a Relu is above c practically always, c can move on to the layers that
read it:

    y = W2 relu(W1 x + b1) + b2  =  W2 relu(W1 x + b1 - c) + (b2 + W2 c)      wherever  W1 x + b1 >= c

``c = max(0, mean - 3 deviation)`` comes from BatchNorm statistics: 99.865 % of a Gaussian lies above it. Below c the
function changes (a value between 0 and c becomes c), so this pass is no equivalence and not exact. An upper bound of
the activation falls by c as well.

A layer that pads its input stays: what it pads is 0, not -c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph.ir import (
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    consumers,
    names_in,
    replace_uses,
    unique_name,
)
from ...graph.layers import Layer, add_to_bias, find_layers, has_bias, output_shift
from ...pass_base import BatchNormStatistics, Context, Pass
from ...records import RegionChange

Array = NDArray[Any]

DEVIATIONS = 3.0
"""Standard deviations below its mean that a channel practically never falls."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A layer, the nodes between it and those that read it, and these.

    Attributes:
        writer: the layer whose bias falls.
        activation: a Relu, or a Clip from 0.
        bound: the Min with one bound a channel behind it, where there is one.
        readers: layers whose biases rise.
    """

    writer: Layer
    activation: Node
    bound: Node | None
    readers: list[Layer]

    @property
    def end(self) -> Tensor:
        """What the readers read."""
        return (self.bound or self.activation).outputs[0]


def _sole_reader(graph: Graph, tensor: Tensor) -> Node | None:
    readers = consumers(tensor)
    return readers[0] if len(readers) == 1 and not any(tensor is output for output in graph.outputs) else None


def _is_rectifier(node: Node) -> bool:
    """True for a Relu and for a Clip from 0."""
    if node.op != "Clip":
        return bool(node.op == "Relu")
    low = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    return low is not None and low.size == 1 and float(low.reshape(())) == 0.0


def _pads(node: Node) -> bool:
    return any(node.attrs.get("pads", ())) or node.attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")


def _chains(graph: Graph, ctx: Context) -> Iterator[Chain]:
    """Where a bias may be absorbed."""
    layers = {id(layer.node): layer for layer in find_layers(graph)}
    for writer in layers.values():
        if (
            writer.node.op not in ("Conv", "Gemm")
            or writer.node.outputs[0].name not in ctx.batchnorm
            or not has_bias(writer)
        ):
            continue
        activation = _sole_reader(graph, writer.node.outputs[0])
        if activation is None or not _is_rectifier(activation):
            continue
        following = _sole_reader(graph, activation.outputs[0])
        is_bound = following is not None and following.op == "Min" and isinstance(following.inputs[1], Constant)
        bound = following if is_bound else None
        nodes = consumers((bound or activation).outputs[0])
        found = [layers[id(node)] for node in nodes if id(node) in layers and has_bias(layers[id(node)])]
        if len(found) < len(nodes) or any((bound or activation).outputs[0] is output for output in graph.outputs):
            ctx.declined(writer.node, "not all that read its activation are layers with a bias")
        elif any(_pads(layer.node) or layer.node.op == "ConvTranspose" for layer in found):
            ctx.declined(writer.node, "a layer that reads its activation pads it with 0")
        else:
            yield Chain(writer, activation, bound, found)


def absorbable(statistics: BatchNormStatistics) -> Array:
    """c of each channel: float64 [C]."""
    return np.maximum(statistics.mean - DEVIATIONS * np.sqrt(statistics.variance), 0.0)


def _lower_bound(graph: Graph, chain: Chain, offsets: Array, taken: set[str]) -> None:
    """Make the upper bound of the activation smaller by ``offsets`` [C]."""
    rank = len(chain.writer.node.outputs[0].shape or ())
    spread = offsets.reshape(-1, *([1] * max(rank - 2, 0)))
    if chain.bound is not None:
        old = chain.bound.inputs[1]
        values = np.asarray(old.values, np.float64) - spread
        chain.bound.inputs[1] = Constant(unique_name(taken, f"{old.name}_absorbed"), values.astype(old.values.dtype))
        return
    limit = (
        constant_of(chain.activation.inputs[2])
        if chain.activation.op == "Clip" and len(chain.activation.inputs) > 2
        else None
    )
    if limit is None:
        return
    output = chain.activation.outputs[0]
    bounded = Variable(unique_name(taken, f"{output.name}_bounded"), dtype=output.dtype, shape=output.shape)
    replace_uses(graph, output, bounded)
    vector = Constant(
        unique_name(taken, f"{chain.activation.name}_bounds"), (float(limit.reshape(())) - spread).astype(limit.dtype)
    )
    graph.nodes.append(Node("Min", unique_name(taken, f"{chain.activation.name}_Min"), {}, [output, vector], [bounded]))


@dataclass(frozen=True)
class AbsorbBiases(Pass):
    """Large biases behind a Relu move on to the next layers. Needs BatchNorm statistics."""

    name: ClassVar[str] = "absorb-biases"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Move the biases; True when there was one."""
        taken, changed = names_in(graph), False
        for chain in list(_chains(graph, ctx)):
            tensor = chain.writer.node.outputs[0]
            statistics = ctx.batchnorm[tensor.name]
            offsets = absorbable(statistics)
            if not offsets.any():
                continue
            for layer in chain.readers:
                add_to_bias(layer, output_shift(layer, layer.values.astype(np.float64), offsets), taken)
            add_to_bias(chain.writer, -offsets, taken)
            end = chain.end
            _lower_bound(graph, chain, offsets, taken)
            del ctx.batchnorm[tensor.name]
            for moved in {id(each): each for each in (tensor, chain.activation.outputs[0], end)}.values():
                moved.name = unique_name(taken, f"{moved.name}_absorbed")
            ctx.batchnorm[tensor.name] = BatchNormStatistics(statistics.mean - offsets, statistics.variance)
            ctx.report.regions.append(RegionChange(self.name, tensor.name, "shift", int(np.count_nonzero(offsets))))
            changed = True
        graph.toposort()
        return changed
