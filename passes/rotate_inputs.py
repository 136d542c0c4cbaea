"""An online rotation in front of a layer (Ashkboos et al., "QuaRot", 2024): where no weight takes the inverse, the network multiplies by it.

    y = x W = (x R) (R^T W),      R = D H / sqrt(n) in blocks,  D random signs

What a Gelu or a LayerNormalization with a residual branch writes cannot be rotated for free (`rotate`). A product with a matrix of signs in front of
the layers that read it can, and its result has no outlier channels: every channel of a block is a sum over all of them. The factor of R is part of
its weights' scale, so they are exactly +-127 in 8 bits. Only the rotated tensor needs few bits.

It costs ``block`` products an element. A tensor is rotated only where the outputs of the layers that read it err less by a stated part, with
inputs and weights on the grids that they will have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..calibration.feeds import spread_feeds
from ..calibration.observers import Range
from ..calibration.sources import synthetic_source
from ..ir import Constant, Graph, Node, Tensor, Variable, names_in, producer, unique_name
from ..layers import Layer, find_layers
from ..pass_base import Context, Pass
from ..report.record import RegionChange
from ._layer_rows import Rows, is_rotation, least_range, sample_rows
from .rotate import hadamard, hadamard_order

Array = NDArray[Any]


def rotation(block: int, rng: np.random.Generator) -> Array:
    """``D H / sqrt(n)``: float64 [block, block]."""
    return np.asarray(hadamard(block) / np.sqrt(block) * rng.choice([-1.0, 1.0], (block, 1)))


def rotated(rows: Rows, matrix: Array) -> Rows:
    """Rows and weight of a layer behind a rotation in blocks."""
    turn = matrix.astype(np.float32)
    x, weight = ((values.reshape(-1, len(turn)) @ turn).reshape(values.shape) for values in (rows.x, rows.weight))
    return replace(rows, x=x, weight=weight)


def total_loss(rows: Sequence[Rows], levels: int, weight_levels: int) -> float:
    """Error of all layers' outputs, with their inputs on one grid of least loss and their weights rounded."""
    extent = Range(min(float(each.x.min()) for each in rows), max(float(each.x.max()) for each in rows))
    best = least_range(lambda tried: sum(each.loss(tried, levels) for each in rows), extent)
    return sum(each.loss(best, levels) + each.weight_loss(weight_levels) for each in rows)


def _readers(graph: Graph, ctx: Context, block: int) -> Iterator[tuple[Tensor, list[Layer], int]]:
    """Tensors that products with constant weights read, those layers, and the size of the blocks."""
    found: dict[int, list[Layer]] = {}
    for layer in find_layers(graph):
        if layer.node.op in ("MatMul", "Gemm") and isinstance(layer.node.inputs[1], Constant) and not is_rotation(layer.values):
            found.setdefault(id(layer.node.inputs[0]), []).append(layer)
    for layers in found.values():
        tensor, node = layers[0].node.inputs[0], layers[0].node
        size = hadamard_order(int(layers[0].values.shape[1 - layers[0].axis]), block)
        if producer(tensor) is None:
            ctx.declined(node, "its input comes from outside and stays at 8 bits")
        elif tensor.shape is None:
            ctx.declined(node, "the rank of its input is not known")
        elif size < 4:
            ctx.declined(node, "its channels have no blocks of the size of a Hadamard matrix")
        else:
            yield tensor, layers, size


def _insert(graph: Graph, tensor: Tensor, layers: Sequence[Layer], matrix: Array, taken: set[str]) -> None:
    """Rotate a tensor for some of its readers and turn their weights."""
    leading, channels, block = [0] * (len(tensor.shape) - 1), int(layers[0].values.shape[1 - layers[0].axis]), len(matrix)

    def step(op: str, source: Tensor, constant: Array, kind: str) -> Variable:
        result = Variable(unique_name(taken, f"{tensor.name}_{kind}"), dtype=np.float32)
        operand = Constant(unique_name(taken, f"{tensor.name}_{kind}_by"), constant)
        graph.nodes.append(Node(op, unique_name(taken, f"{result.name}_{op}"), {}, [source, operand], [result]))
        return result

    blocks = step("Reshape", tensor, np.array([*leading, channels // block, block], np.int64), "blocks")
    turned = step("MatMul", blocks, matrix.astype(np.float32), "turned")
    result = step("Reshape", turned, np.array([*leading, channels], np.int64), "rotated")
    blocks.shape = turned.shape = [*tensor.shape[:-1], channels // block, block]
    result.shape = list(tensor.shape)
    for layer in layers:
        weight = layer.values.astype(np.float64)
        by_output = (weight if layer.axis == 0 else weight.T).reshape(-1, block) @ matrix
        values = by_output.reshape(layer.channels, channels)
        layer.node.inputs[0] = result
        layer.node.inputs[1] = Constant(
            unique_name(taken, f"{layer.weight.name}_rotated"), np.ascontiguousarray(values if layer.axis == 0 else values.T).astype(np.float32)
        )


@dataclass(frozen=True)
class RotateInputs(Pass):
    """Rotations in front of layers, where they earn their cost.

    Attributes:
        bits, activation_bits: of the weights and of the layers' inputs, as they will be.
        block: largest size of a block.
        draws: random signs that are tried.
        feeds: calibration feeds to see activations on.
        gain: least part of the layers' error that must go for a tensor to be rotated.
    """

    name: ClassVar[str] = "rotate-inputs"
    exact: ClassVar[bool] = True
    bits: int = 4
    activation_bits: int = 4
    block: int = 128
    draws: int = 2
    feeds: int = 8
    gain: float = 0.2

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a tensor was rotated."""
        places = list(_readers(graph, ctx, self.block))
        if not places:
            return False
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        samples = sample_rows(graph, [layer for _, layers, _ in places for layer in layers], spread_feeds(data, self.feeds), ctx.seed)
        rng, taken, changed = np.random.default_rng(ctx.seed), names_in(graph), False
        levels = 2**self.activation_bits, 2 ** (self.bits - 1) - 1
        for tensor, layers, size in places:
            rows = [samples[layer.node.name] for layer in layers]
            before = total_loss(rows, *levels)
            tried = [rotation(size, rng) for _ in range(self.draws)]
            losses = [total_loss([rotated(each, matrix) for each in rows], *levels) for matrix in tried]
            if min(losses) < (1 - self.gain) * before:
                _insert(graph, tensor, layers, tried[int(np.argmin(losses))], taken)
                channels = int(rows[0].x.shape[2])
                ctx.report.regions.append(RegionChange(self.name, tensor.name, "matrix", channels, before, min(losses), condition=1.0))
                changed = True
            else:
                ctx.declined(layers[0].node, "a rotation of its input takes too little of its error")
        graph.toposort()
        return changed
