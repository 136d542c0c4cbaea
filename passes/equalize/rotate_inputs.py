"""Online QuaRot (Ashkboos et al., 2024): the network multiplies by the rotation where no weight can take it.

    y = x W = (x / s R) (R^T s W),      R = D H / sqrt(n) in blocks,  D random signs

What a Gelu or a LayerNormalization with a residual branch writes cannot be rotated for free (`rotate`). A product with
a matrix of signs in front of the layers that read it can, and its result has no outlier channels: every channel of a
block is a sum over all of them. The factor of R is part of its weights' scale, so they are exactly +-127 in 8 bits.
Only the rotated tensor needs few bits.

Behind a rotation all channels of x / s share a step, and all of s W: noise goes with ``sum |x_j / s_j|^2  sum |s_j
W_j|^2``, which is least for ``s_j = sqrt(rms(x_j) / |W_j|)`` (Cauchy and Schwarz), whatever the number of bits. The
division is a product with a vector in front of the rotation.

It costs ``block`` products an element. A tensor is rotated only where the outputs of the layers that read it err less
by a stated part, with inputs and weights on the grids that they will have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...activations.range_search import Rows, is_rotation, least_range, sample_rows
from ...calibration.observers import Range
from ...equivalence.hadamard import hadamard, hadamard_order
from ...equivalence.scaling import power_divisors
from ...feeds.selection import spread_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Constant, Graph, Node, Tensor, Variable, names_in, producer, unique_name
from ...graph.layers import Layer, find_layers
from ...linear_algebra import matmul
from ...pass_base import Context, Pass
from ...records import RegionChange

Array = NDArray[Any]


def rotation(block: int, rng: np.random.Generator) -> Array:
    """``D H / sqrt(n)``: float64 [block, block]."""
    return np.asarray(hadamard(block) / np.sqrt(block) * rng.choice([-1.0, 1.0], (block, 1)))


@dataclass(frozen=True, eq=False)
class Turn:
    """Channels of a tensor divided by ``divisors`` [C], then each block multiplied by ``matrix`` [block, block]."""

    divisors: Array
    matrix: Array

    def of(self, rows: Rows) -> Rows:
        """Rows and weight of a layer behind it."""
        divisors, matrix = self.divisors.astype(np.float32), self.matrix.astype(np.float32)
        return replace(rows, x=_in_blocks(rows.x / divisors, matrix), weight=_in_blocks(rows.weight * divisors, matrix))


def _in_blocks(values: Array, matrix: Array) -> Array:
    return np.asarray(matmul(values.reshape(-1, len(matrix)), matrix).reshape(values.shape))


def best_divisors(rows: Sequence[Rows]) -> Array:
    """``sqrt(rms(x_j) / |W_j|)``, normalized to geometric mean 1: float64 [C]; 1 for unread or all-zero channels."""
    square = np.mean([np.square(each.x, dtype=np.float64).mean(axis=(0, 1)) for each in rows], axis=0)
    columns = sum(
        (np.square(each.weight, dtype=np.float64).sum(axis=(0, 1)) / each.energy for each in rows),
        np.zeros(len(square)),
    )
    return power_divisors(square, 0.25, columns, 0.25)


def total_loss(rows: Sequence[Rows], levels: int, weight_levels: int) -> float:
    """Error of all layers' outputs, with their inputs on one grid of least loss and their weights rounded."""
    extent = Range(min(float(each.x.min()) for each in rows), max(float(each.x.max()) for each in rows))
    best = least_range(lambda tried: sum(each.loss(tried, levels) for each in rows), extent)
    return sum(each.loss(best, levels) + each.weight_loss(weight_levels) for each in rows)


def _readers(graph: Graph, ctx: Context, block: int) -> Iterator[tuple[Tensor, list[Layer], int]]:
    """Tensors that products with constant weights read, those layers, and the size of the blocks."""
    found: dict[int, list[Layer]] = {}
    for layer in find_layers(graph):
        if (
            layer.node.op in ("MatMul", "Gemm")
            and isinstance(layer.node.inputs[1], Constant)
            and not is_rotation(layer.values)
        ):
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


def _insert(graph: Graph, tensor: Tensor, layers: Sequence[Layer], turn: Turn, taken: set[str]) -> None:
    """Rotate a tensor for some of its readers and turn their weights."""
    leading, channels, block = [0] * (len(tensor.shape) - 1), len(turn.divisors), len(turn.matrix)

    def step(op: str, source: Tensor, constant: Array, kind: str) -> Variable:
        result = Variable(unique_name(taken, f"{tensor.name}_{kind}"), dtype=np.float32)
        operand = Constant(unique_name(taken, f"{tensor.name}_{kind}_by"), constant)
        graph.nodes.append(Node(op, unique_name(taken, f"{result.name}_{op}"), {}, [source, operand], [result]))
        return result

    scaled = tensor
    if np.any(turn.divisors != 1):
        scaled = step("Mul", tensor, (1 / turn.divisors).astype(np.float32), "scaled")
        scaled.shape = list(tensor.shape)
    blocks = step("Reshape", scaled, np.array([*leading, channels // block, block], np.int64), "blocks")
    turned = step("MatMul", blocks, turn.matrix.astype(np.float32), "turned")
    result = step("Reshape", turned, np.array([*leading, channels], np.int64), "rotated")
    blocks.shape = turned.shape = [*tensor.shape[:-1], channels // block, block]
    result.shape = list(tensor.shape)
    for layer in layers:
        weight = layer.values.astype(np.float64)
        values = _in_blocks((weight if layer.axis == 0 else weight.T) * turn.divisors, turn.matrix)
        layer.node.inputs[0] = result
        layer.node.inputs[1] = Constant(
            unique_name(taken, f"{layer.weight.name}_rotated"),
            np.ascontiguousarray(values if layer.axis == 0 else values.T).astype(np.float32),
        )


@dataclass(frozen=True)
class RotateInputs(Pass):
    """Rotations in front of layers, where they earn their cost.

    Attributes:
        bits, activation_bits: of the weights and of the layers' inputs, as they will be.
        block: largest size of a block.
        draws: random signs that are tried.
        feeds: calibration feeds to see activations on.
        scale: divide the channels first.
        gain: least part of the layers' error that must go for a tensor to be rotated.
    """

    name: ClassVar[str] = "rotate-inputs"
    exact: ClassVar[bool] = True
    bits: int = 4
    activation_bits: int = 4
    block: int = 128
    draws: int = 2
    feeds: int = 16
    scale: bool = True
    gain: float = 0.2

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a tensor was rotated."""
        places = list(_readers(graph, ctx, self.block))
        if not places:
            return False
        data = feeds_of(graph, ctx)
        samples = sample_rows(
            graph, [layer for _, layers, _ in places for layer in layers], spread_feeds(data, self.feeds), ctx.seed
        )
        rng, taken, changed = np.random.default_rng(ctx.seed), names_in(graph), False
        levels = 2**self.activation_bits, 2 ** (self.bits - 1) - 1
        for tensor, layers, size in places:
            rows = [samples[layer.node.name] for layer in layers]
            before = total_loss(rows, *levels)
            tried = self._turns(rows, size, rng)
            losses = [total_loss([turn.of(each) for each in rows], *levels) for turn in tried]
            if min(losses) < (1 - self.gain) * before:
                _insert(graph, tensor, layers, tried[int(np.argmin(losses))], taken)
                channels = int(rows[0].x.shape[2])
                ctx.report.regions.append(
                    RegionChange(self.name, tensor.name, "matrix", channels, before, min(losses), condition=1.0)
                )
                changed = True
            else:
                ctx.declined(layers[0].node, "a rotation of its input takes too little of its error")
        graph.toposort()
        return changed

    def _turns(self, rows: Sequence[Rows], size: int, rng: np.random.Generator) -> list[Turn]:
        """What is tried."""
        channels = int(rows[0].x.shape[2])
        divisors = best_divisors(rows) if self.scale else np.ones(channels)
        return [Turn(divisors, rotation(size, rng)) for _ in range(self.draws)]
