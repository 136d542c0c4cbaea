"""Inputs whose columns differ in size, brought to one size in front of the layers that read them.

    x W + b = ((x - m) / s) (s W) + (b + m W)

A table of features that goes into a layer as it is (a scaler that the exporter folded into the weights, or none) would
share one grid among incomes and ratios: the small columns would vanish, and with them what large weights make of them.
m and s are the middle and half the range that calibration shows of a column. Only where the noise of a common grid
behind the layer is `LEAST` times that of a grid per column and more. What is inserted is the scaler that `float_zones`
leaves in front of the first grid, and that the machine's border does by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...feeds.sources import feeds_of
from ...graph.ir import Feed, Graph, Node, Tensor, Variable, consumers, float_inputs, producer
from ...pass_base import Context, Pass
from ...rewriting.fold_into_layer import fold, why_not
from ...rewriting.layer_inputs import input_channels, input_energy, is_padded, layers_behind, scale_weights, shift_of
from ...rewriting.match import Array, insert_before, new_constant, new_variable

LEAST = 64.0
"""Least ratio of the noise of a common grid to that of a grid per column for an input to be scaled."""

MOST_COLUMNS = 4096


@dataclass(frozen=True, eq=False)
class Columns:
    """A tensor of columns that layers read.

    Attributes:
        tensor: an input, or several joined.
        parts: the inputs.
        axis: of the columns.
        layers: all that read it.
    """

    tensor: Tensor
    parts: Sequence[Tensor]
    axis: int
    layers: list[Node]

    def of(self, feed: Feed) -> Array:
        """Its values on a feed, float64 [columns, …]."""
        values = np.concatenate([np.asarray(feed[_given(part)], np.float64) for part in self.parts], axis=self.axis)
        return np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)


@dataclass(frozen=True)
class ScaleInputs(Pass):
    """A scaler in front of layers that read an input with columns of very different size."""

    name: ClassVar[str] = "scale-inputs"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an input was scaled."""
        if ctx.made_up:
            return False
        changed = False
        for columns in list(_columns(graph)):
            lowest, highest = _extents(columns, feeds_of(graph, ctx))
            middle, half = _scaler(lowest, highest, shift=_takes_offset(columns))
            if _gain(columns, lowest, highest, half) >= LEAST:
                _scale(graph, columns, middle, half)
                changed = True
        return changed


def _given(tensor: Tensor) -> str:
    """Name of the graph input that a tensor is, or is cast from."""
    node = producer(tensor)
    return str(tensor.name if node is None else node.inputs[0].name)


def _columns(graph: Graph) -> Iterator[Columns]:
    known = float_inputs(graph)
    found: list[tuple[Tensor, Sequence[Tensor], int | None]] = [(tensor, [tensor], None) for tensor in known]
    found += [
        (node.outputs[0], node.inputs, int(node.attrs["axis"])) for node in graph.nodes if node.op == "Concat"
        and all(any(part is each for each in known) and len(consumers(part)) == 1 for part in node.inputs)
    ]  # fmt: skip
    for tensor, parts, joined_along in found:
        shape, layers = tensor.shape, layers_behind(graph, tensor)
        grouped = any(int(layer.attrs.get("group", 1)) > 1 for layer in layers)
        if not layers or grouped or shape is None or len(shape) < 2:
            continue
        axes = {1 if layer.op in ("Conv", "ConvTranspose") else len(shape) - 1 for layer in layers}
        sizes = {input_channels(layer) for layer in layers}
        axis, size = min(axes), min(sizes)
        along = axis if joined_along is None else joined_along % len(shape)
        if len(axes) == len(sizes) == 1 and along == axis and shape[axis] == size and 1 < size <= MOST_COLUMNS:
            yield Columns(tensor, parts, axis, layers)


def _extents(columns: Columns, feeds: Iterable[Feed]) -> tuple[Array, Array]:
    """Least and largest value of each column, 0 where none is finite."""
    lows, highs = [], []
    for feed in feeds:
        values = columns.of(feed)
        finite = np.isfinite(values)
        lows.append(np.where(finite, values, np.inf).min(axis=1, initial=np.inf))
        highs.append(np.where(finite, values, -np.inf).max(axis=1, initial=-np.inf))
    lowest, highest = np.min(lows, axis=0), np.max(highs, axis=0)
    return np.where(np.isfinite(lowest), lowest, 0.0), np.where(np.isfinite(highest), highest, 0.0)


def _takes_offset(columns: Columns) -> bool:
    return all(
        layer.op in ("Conv", "Gemm") and not is_padded(layer) and why_not(layer, shift=True) is None
        for layer in columns.layers
    )


def _scaler(lowest: Array, highest: Array, *, shift: bool) -> tuple[Array, Array]:
    """Middle and half range of each column; a column that is constant keeps its place and its size."""
    reach = np.maximum(np.abs(lowest), np.abs(highest))
    size = np.where(reach > 0, reach, 1.0)
    varies = highest - lowest > 1e-6 * size
    middle = np.where(varies & shift, (lowest + highest) / 2, 0.0)
    half = np.where(varies & shift, (highest - lowest) / 2, size)
    return middle.astype(np.float32).astype(np.float64), half.astype(np.float32).astype(np.float64)


def _gain(columns: Columns, lowest: Array, highest: Array, half: Array) -> float:
    """Noise that a common grid makes behind the layers, over that of a grid per column."""
    common = max(float(highest.max()), 0.0) - min(float(lowest.min()), 0.0)
    energies = [input_energy(layer) for layer in columns.layers]
    apart = [float((energy * np.square(2 * half)).sum()) for energy in energies]
    return min(
        float(energy.sum()) * common**2 / noise if noise > 0 else 1.0
        for energy, noise in zip(energies, apart, strict=True)
    )


def _scale(graph: Graph, columns: Columns, middle: Array, half: Array) -> None:
    tensor, layers = columns.tensor, columns.layers
    sizes = [-1 if axis == columns.axis else 1 for axis in range(len(tensor.shape))]

    def written(op: str, source: Tensor, values: Array) -> Variable:
        constant = new_constant(graph, f"{tensor.name}_{op.lower()}", values.astype(np.float32).reshape(sizes))
        result = new_variable(graph, f"{tensor.name}_{op.lower()}_out", tensor)
        insert_before(graph, layers[0], Node(op, result.name, {}, [source, constant], [result]))
        return result

    shifted = written("Sub", tensor, middle) if middle.any() else tensor
    scaled = written("Div", shifted, half)
    for layer in layers:
        layer.inputs[0] = scaled
        if middle.any():
            fold(graph, layer, np.ones(1), shift_of(layer, middle))
    scale_weights(graph, layers, half)
    graph.toposort()
