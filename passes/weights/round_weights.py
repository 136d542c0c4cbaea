"""Puts weights that are no layer problem on a grid, each on its nearest level under the best scale of its channel.

Those are the weights of LSTM and GRU nodes, whose errors go around, and of transposed convolutions, whose taps share a
scale but not their inputs. `reconstruct-layers` takes all others. The float constant behind a weight's Q/DQ pair
becomes ``scale * level``.

Blocks (``nf4/64``) have factors of their own in LSTM and GRU, along each direction's products; a transposed convolution
has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ...graph.ir import Constant, Graph, Node, names_in, producer, read_spec, spec_of, unique_name
from ...graph.layers import bias_constant, bias_floor, find_layers, weight_slots
from ...graph.operators import RECURRENT
from ...grids import GridFamily, fit_scale, grid_named
from ...pass_base import Context, Pass
from ...rewriting.match import Array
from ...solvers import OptimalClip
from ...solvers.block_factors import on_tables
from ...solvers.problem import LayerProblem


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Nearest levels for the weights of recurrent nodes and transposed convolutions.

    Attributes:
        grid: name of the grid of nodes for which no pass has chosen one (``ctx.grids``).
    """

    name: ClassVar[str] = "round-weights"
    grid: str = "int4"

    def __post_init__(self) -> None:
        grid_named(self.grid)

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Round the weights; True when there were some."""
        taken, found = names_in(graph), list(_weights(graph))
        for node, quantize, floor in found:
            _round(quantize, ctx.grids.get(node.name, grid_named(self.grid)), floor, taken)
        return bool(found)


def _weights(graph: Graph) -> Iterator[tuple[Node, Node, Array]]:
    """(node, QuantizeLinear of one of its float weights, smallest scales that its bias allows)."""
    floors = {}
    for layer in find_layers(graph):
        spec = spec_of(layer.node.inputs[0])
        if layer.node.op == "ConvTranspose" and spec is not None:
            bias = bias_constant(layer)
            floors[layer.node.name] = bias_floor(
                None if bias is None else bias.values, float(spec.scale), layer.channels
            )
    for node in graph.nodes:
        for slot in weight_slots(node) if node.op in (*RECURRENT, "ConvTranspose") else ():
            dequantize = producer(node.inputs[slot])
            quantize = (
                producer(dequantize.inputs[0])
                if dequantize is not None and dequantize.op == "DequantizeLinear"
                else None
            )
            stored = quantize.inputs[0] if quantize is not None else None
            if (
                quantize is not None
                and isinstance(stored, Constant)
                and stored.dtype == np.float32
                and len(quantize.outputs[0].outputs) == 1
            ):
                yield node, quantize, floors.get(node.name, np.zeros(1))


def _round(quantize: Node, family: GridFamily, floor: Array, taken: set[str]) -> None:
    """Put the constant before ``quantize`` on a grid with one scale per channel."""
    spec, dequantize, weight = (
        read_spec(quantize),
        quantize.outputs[0].outputs[0],
        np.asarray(quantize.inputs[0].values),
    )
    if spec is None:
        return
    rows = weight[None] if spec.axis is None else np.moveaxis(weight, spec.axis, 0)
    recurrent = any(reader.op in RECURRENT for reader in dequantize.outputs[0].outputs)
    levels, scale = (
        _in_blocks(rows, family)
        if recurrent and (family.block or rows.size) < rows.shape[-1]
        else _whole(rows, family, floor)
    )
    rounded = scale.reshape(-1, *[1] * (rows.ndim - 1)) * levels.astype(np.float32)
    name = f"{quantize.inputs[0].name}_{family.name}"
    values = rounded[0] if spec.axis is None else np.ascontiguousarray(np.moveaxis(rounded, 0, spec.axis))
    quantize.inputs[0] = Constant(unique_name(taken, name), values)
    quantize.inputs[1] = dequantize.inputs[1] = Constant(
        unique_name(taken, f"{name}_scale"), scale.reshape(spec.scale.shape)
    )


def _whole(rows: Array, family: GridFamily, floor: Array) -> tuple[Array, Array]:
    """Levels of rows [C, ...] without blocks, and their scales [C]."""
    flat = rows.reshape(1, len(rows), -1)
    grid = replace(family.fit(flat), block=None)
    scale = np.maximum(fit_scale(grid, flat).reshape(-1), floor).astype(np.float32)
    return grid.nearest(rows / scale.reshape(-1, *[1] * (rows.ndim - 1))), scale


def _in_blocks(rows: Array, family: GridFamily) -> tuple[Array, Array]:
    """Levels of rows [C, directions, K] in blocks along K, and their scales [C]."""
    channels, directions, products = rows.shape
    padded = np.pad(rows, ((0, 0), (0, 0), (0, -products % (family.block or 1)))).reshape(1, channels, -1)
    count = padded.shape[2]
    problem = LayerProblem(padded, np.eye(count)[None], np.zeros((1, count)), family.fit(padded), corrects_mean=False)
    placed, start = on_tables(problem, np.ones((1, count)))
    solution = OptimalClip().solve(placed, start)
    return solution.levels.reshape(channels, directions, -1)[:, :, :products], solution.scale.reshape(-1)
