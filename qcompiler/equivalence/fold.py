"""Applies transforms of regions to the constants at their ends, in float64.

The channels x of a place become ``x' = M (x - z)``, M a diagonal or a matrix of blocks:

    output sides    weights, gain, table, operand:  W' = M W,  b' = M (b - z)
    input sides     W' = W M^-1,  b' = b + W z
    Clip            lo' = M lo,  hi' = M hi: where the bounds then differ, a Min and a Max with one bound a channel
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.equivalence.matrices import columns_of, rows_of, weight_of_rows, with_columns
from qcompiler.equivalence.regions import Place, Region
from qcompiler.equivalence.visit import End
from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, constant_of, consumers, names_in, unique_name
from qcompiler.linear_algebra import inverse as inverse_of
from qcompiler.pass_base import BatchNormStatistics

__all__ = ["Workspace", "shift_refusal", "spread_of"]

Array = NDArray[Any]


def _bias_place(graph: Graph, node: Node) -> tuple[Node, int] | None:
    """Node and input position of a layer's bias, its own or that of the Add behind a MatMul; None without a place."""
    if node.op != "MatMul":
        return node, 2
    output = node.outputs[0]
    readers = consumers(output)
    if len(readers) != 1 or readers[0].op != "Add" or any(output is tensor for tensor in graph.outputs):
        return None
    slot = 1 if readers[0].inputs[0] is output else 0
    return (readers[0], slot) if constant_of(readers[0].inputs[slot]) is not None else None


def shift_refusal(graph: Graph, region: Region) -> str | None:
    """Why the channels of a region cannot be shifted; None where they can."""
    writers = [(place, end) for place, end in region.ends(writes=True) if end.role != "operand"]
    operands, readers = region.ends(writes=True, role="operand"), region.ends(writes=False)
    if not region.shifts or len(writers) != 1 or len(operands) > 1 or writers[0][1].role not in ("weight", "norm"):
        return "its values are added, padded, or changed on the way"
    if any(end.role != "weight" or _bias_place(graph, end.node) is None for _, end in readers):
        return "a layer that reads it has no bias"
    writer = writers[0][1].node
    if operands and not (consumers(writer.outputs[0]) == [operands[0][1].node] and writer.op == "MatMul"):
        return "its bias is added after other nodes have read it"
    if not operands and writer.op not in ("Conv", "ConvTranspose", "Gemm", "LayerNormalization"):
        return "the layer that writes it has no bias"
    return None


def spread_of(place: Place, values: Array) -> Array:
    """Values a channel in the rank of the place's tensor, to be broadcast with it."""
    sizes = [1] * place.rank
    for axis, size in zip(place.layout, place.sizes, strict=True):
        sizes[axis] = size
    return np.transpose(values.reshape(place.sizes), np.argsort(place.layout)).reshape(sizes)


@dataclass
class Workspace:
    """float64 copies of the constants that transforms change; `commit` writes them back once, at the end."""

    graph: Graph
    _values: dict[tuple[int, int], Array] = field(default_factory=dict)
    _nodes: dict[int, Node] = field(default_factory=dict)
    _moved: dict[str, tuple[Tensor, Array | None]] = field(default_factory=dict)
    _bounds: dict[int, tuple[Node, Place, Array]] = field(default_factory=dict)

    def value(self, node: Node, slot: int) -> Array:
        """The constant at an input, as it is now."""
        known = self._values.get((id(node), slot))
        return np.asarray(constant_of(node.inputs[slot]), np.float64) if known is None else known

    def _has(self, node: Node, slot: int) -> bool:
        """True where there is a constant at an input, or will be."""
        return (id(node), slot) in self._values or (slot < len(node.inputs) and bool(node.inputs[slot].name))

    def rows(self, node: Node) -> Array:
        """A layer's weight as [output channels, input channels of a group, taps], as it is now."""
        return rows_of(node, self.value(node, 1))

    def columns(self, node: Node) -> Array:
        """A layer's weight as [input channels, output channels of a group, taps], as it is now."""
        return columns_of(node, self.rows(node))

    def scale(self, region: Region, factors: Array) -> None:
        """Multiply every class of a region's channels by its factor: float64 [classes], positive."""
        for place in region.places:
            factor = place.spread(factors)
            if np.all(factor == 1):
                continue
            self._note(place.tensor, factor)
            for end in place.ends:
                self._scale_end(place, end, factor)

    def mix(self, region: Region, matrices: Array) -> None:
        """Multiply a region's channel blocks by matrices [C/block, block, block], inverse places by the inverses."""
        inverse = inverse_of(matrices)
        for place in region.places:
            pair = (
                (inverse.transpose(0, 2, 1), matrices.transpose(0, 2, 1))
                if place.inverse.any()
                else (matrices, inverse)
            )
            self._note(place.tensor, None)
            for end in place.ends:
                self._mix_end(place, end, *pair)

    def shift(self, region: Region, offsets: Array) -> None:
        """Subtract an offset from every channel of a region: float64 [C]. `shift_refusal` must be None."""
        operands = region.ends(writes=True, role="operand")
        place, end = (operands or region.ends(writes=True))[0]
        for other in region.places:
            if not operands or other.tensor is not region.ends(writes=True, role="weight")[0][0].tensor:
                self._note(other.tensor, None)
        node, slot = (end.node, end.slot) if end.role in ("operand", "norm") else (end.node, 2)
        self._add(
            node, slot + (end.role == "norm"), -offsets if end.role != "operand" else -self._along(place, end, offsets)
        )
        for _, reader in region.ends(writes=False):
            self._move_bias(reader.node, offsets)

    def _move_bias(self, node: Node, offsets: Array) -> None:
        """Add to a layer's bias what ``offsets`` at its input would add to its output."""
        found = _bias_place(self.graph, node)
        if found is None:
            return
        rows = with_columns(node, self.columns(node) * offsets[:, None, None])
        self._add(*found, np.asarray(rows.sum(axis=(1, 2)) * node.attrs.get("alpha", 1.0)))
        if found[0] is not node:
            self._note(node.outputs[0], None)

    def _add(self, node: Node, slot: int, offset: Array) -> None:
        beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
        self._set(node, slot, (self.value(node, slot) if self._has(node, slot) else 0.0) + offset / beta)

    def _set(self, node: Node, slot: int, values: Array) -> None:
        self._nodes[id(node)] = node
        self._values[id(node), slot] = np.asarray(values, np.float64)

    def _note(self, tensor: Tensor, factor: Array | None) -> None:
        """The values of a tensor change: by a factor a channel, or in another way (None)."""
        known = self._moved.get(tensor.name, (tensor, np.ones(1)))[1]
        self._moved[tensor.name] = (tensor, None if known is None or factor is None else known * factor)

    def _scale_end(self, place: Place, end: End, factor: Array) -> None:
        node = end.node
        if end.role == "weight":
            rows, shape = self.rows(node), self.value(node, 1).shape
            new = (
                rows * factor[:, None, None]
                if end.writes
                else with_columns(node, columns_of(node, rows) / factor[:, None, None])
            )
            self._set(node, 1, weight_of_rows(node, new, shape))
            if end.writes and self._has(node, 2):
                self._set(node, 2, self.value(node, 2) * factor)
        elif end.role == "norm":
            for slot in range(1, len(node.inputs)):
                self._set(node, slot, self.value(node, slot) * factor)
        elif end.role == "bounds":
            before = self._bounds[id(node)][2] if id(node) in self._bounds else 1.0
            self._bounds[id(node)] = (node, place, before * factor)
        else:
            multiplies = end.role != "factor" or end.writes == (node.op == "Mul")
            spread = self._along(place, end, factor if multiplies else 1 / factor)
            self._set(node, end.slot, self.value(node, end.slot) * spread)

    def _along(self, place: Place, end: End, values: Array) -> Array:
        """Values a channel in the shape in which they meet the constant at ``end``."""
        spread = spread_of(place, values)
        rank = self.value(end.node, end.slot).ndim
        keep = rank if end.role == "table" else max(rank, place.rank - min(place.layout))
        return spread.reshape(spread.shape[place.rank - keep:])

    def _mix_end(self, place: Place, end: End, forward: Array, backward: Array) -> None:
        node, (blocks, block) = end.node, forward.shape[:2]
        if end.role != "weight":
            self._mix_constant(place, end, forward)
            return
        rows, shape = self.rows(node), self.value(node, 1).shape
        if end.writes:
            new = np.einsum("bij,bjkt->bikt", forward, rows.reshape(blocks, block, *rows.shape[1:])).reshape(rows.shape)
        else:
            columns = columns_of(node, rows)
            parts = np.einsum("bjkt,bji->bikt", columns.reshape(blocks, block, *columns.shape[1:]), backward)
            new = with_columns(node, parts.reshape(columns.shape))
        self._set(node, 1, weight_of_rows(node, new, shape))
        if end.writes and self._has(node, 2):
            bias = np.broadcast_to(self.value(node, 2).reshape(-1), (blocks * block,)).reshape(blocks, block)
            self._set(node, 2, np.einsum("bij,bj->bi", forward, bias).reshape(-1))

    def _mix_constant(self, place: Place, end: End, forward: Array) -> None:
        """Mix the channels of a table or of an operand, wherever its axes are."""
        values, (blocks, block) = self.value(end.node, end.slot), forward.shape[:2]
        spread = np.array(
            np.broadcast_to(
                values, np.broadcast_shapes(values.shape, self._along(place, end, np.ones(place.channels)).shape)
            )
        )
        axes = [axis - place.rank + spread.ndim for axis in place.layout]
        moved = np.moveaxis(spread, axes, range(-len(axes), 0))
        mixed = np.einsum("bij,...bj->...bi", forward, moved.reshape(*moved.shape[:-len(axes)], blocks, block))
        self._set(end.node, end.slot, np.moveaxis(mixed.reshape(moved.shape), range(-len(axes), 0), axes))

    def commit(self, statistics: MutableMapping[str, BatchNormStatistics]) -> bool:
        """Write all changes into the graph; changed tensors get new names. True when there was anything."""
        taken = names_in(self.graph)
        for (key, slot), values in self._values.items():
            node = self._nodes[key]
            if slot < len(node.inputs) and node.inputs[slot].name:
                old = node.inputs[slot]
                dtype = np.asarray(constant_of(old)).dtype
                node.inputs[slot] = Constant(
                    unique_name(taken, f"{old.name}_equivalent"), np.ascontiguousarray(values, dtype)
                )
                continue
            bias = Constant(
                unique_name(taken, f"{node.name}_bias"), values.astype(np.asarray(constant_of(node.inputs[1])).dtype)
            )
            if slot < len(node.inputs):
                node.inputs[slot] = bias
            else:
                node.inputs.append(bias)
        for node, place, factor in self._bounds.values():
            self._rewrite_clip(node, place, factor, taken)
        for name, (tensor, scale) in self._moved.items():
            tensor.name = unique_name(taken, f"{name}_equivalent")
            known = statistics.pop(name, None)
            if known is not None and scale is not None:
                statistics[tensor.name] = BatchNormStatistics(known.mean * scale, known.variance * scale**2)
        return bool(self._moved)

    def _rewrite_clip(self, node: Node, place: Place, factor: Array, taken: set[str]) -> None:
        """Per-channel bounds of a Clip: a Clip with the widest, then Min and Max with vectors where channels differ."""
        scalars = [constant_of(tensor) if tensor.name else None for tensor in node.inputs[1:3]]
        output, dtype = node.outputs[0], np.dtype(node.inputs[0].dtype or np.float32)
        inputs: list[Tensor] = [node.inputs[0]]
        later: list[tuple[str, Array]] = []
        for scalar, op, widest in zip([*scalars, None, None][:2], ("Max", "Min"), (np.min, np.max), strict=True):
            if scalar is None:
                inputs.append(Variable.empty())
                continue
            vector = float(np.reshape(scalar, ())) * factor
            inputs.append(Constant(unique_name(taken, f"{node.name}_bound"), np.array(widest(vector), dtype)))
            if np.ptp(vector) > 0:
                later.append((op, spread_of(place, vector)[(0,) * min(place.layout)].astype(dtype)))
        node.inputs = inputs
        for op, vector in later:
            inner = Variable(unique_name(taken, f"{output.name}_bounded"), dtype=output.dtype, shape=output.shape)
            writer = output.inputs[0]
            writer.outputs = [inner]
            bound = Constant(unique_name(taken, f"{node.name}_bounds"), vector)
            self.graph.nodes.append(Node(op, unique_name(taken, f"{node.name}_{op}"), {}, [inner, bound], [output]))
