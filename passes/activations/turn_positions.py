"""Sines and cosines of positions as tables over integer phases, exact for any position: for the machine.

A sine has a period, so the angle ``position * frequency`` matters only within a turn. With frequencies in units of
2^-32 turns, the product is an integer, and its low 32 bits, read as a signed number, are the angle in (-pi, pi]:

    phase = int32(position * round(frequency / (2 pi) * 2^32)),  sin(position * frequency) = sin(phase * 2 pi / 2^32)

The frequency is off by at most 2^-33 turns, so position 10^6 by 10^-4 turns. Casts to int32 keep the low bits.
`quantize_activations` keeps the upper 16 bits of a phase, of which the sine is a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import pi
from typing import ClassVar

import numpy as np
import onnx

from ...graph.ir import Constant, Graph, Node, Tensor, Variable, constant_of, names_in, unique_name
from ...graph.operators import MOVEMENT
from ...graph.placement import TURN
from ...pass_base import Context, Pass
from ...rewriting.match import Array, made_by, standard

_MOVES = (*MOVEMENT, "Concat")
_INT32, _INT64, _FLOAT = (int(getattr(onnx.TensorProto, name)) for name in ("INT32", "INT64", "FLOAT"))


@dataclass(frozen=True)
class TurnPositions(Pass):
    """Integer phases in the place of the angles of positions."""

    name: ClassVar[str] = "turn-positions"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a sine or cosine of positions was one."""
        del ctx
        writer = _Writer(graph)
        changes = [writer.rewrite(node) for node in standard(graph, "Sin", "Cos")]
        if any(changes):
            graph.cleanup(remove_unused_graph_inputs=False).toposort()
        return any(changes)


@dataclass
class _Writer:
    """Writes integer arithmetic beside the float one; each tensor once."""

    graph: Graph
    phases: dict[int, Tensor | None] = field(default_factory=dict)
    angles: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._taken = names_in(self.graph)

    def rewrite(self, node: Node) -> bool:
        """Let ``node`` read an angle within a turn."""
        source = node.inputs[0]
        phase = self._phase(source)
        if phase is None:
            return False
        if id(source) not in self.angles:
            narrow = self._apply("Cast", [phase], np.int32, source, to=_INT32)
            turns = self._apply("Cast", [narrow], np.float32, source, to=_FLOAT)
            self.angles[id(source)] = self._apply("Mul", [turns, self._constant("turn", TURN)], np.float32, source)
        node.inputs[0] = self.angles[id(source)]
        return True

    def _phase(self, tensor: Tensor) -> Tensor | None:
        """An integer tensor of 2^32 a turn for an angle; None where it is no multiple of integers."""
        if id(tensor) not in self.phases:
            self.phases[id(tensor)] = self._phase_of(tensor)
        return self.phases[id(tensor)]

    def _phase_of(self, tensor: Tensor) -> Tensor | None:
        scaled = made_by(tensor, "Mul", "Div", "MatMul")
        if scaled is not None:
            return self._scaled(scaled, tensor)
        moved = made_by(tensor, *_MOVES)
        if moved is None or constant_of(tensor) is not None:
            return None
        count = len(moved.inputs) if moved.op == "Concat" else 1
        phases = [self._phase(source) for source in moved.inputs[:count]]
        known = [phase for phase in phases if phase is not None]
        return (
            self._apply(moved.op, [*known, *moved.inputs[count:]], np.int64, tensor, **moved.attrs)
            if len(known) == count
            else None
        )

    def _scaled(self, node: Node, tensor: Tensor) -> Tensor | None:
        for slot in (0, 1):
            factor, count = self._frequencies(node.inputs[slot]), self._integers(node.inputs[1 - slot])
            if (
                factor is None
                or count is None
                or (node.op == "Div" and slot == 0)
                or (node.op == "MatMul" and not _is_outer(node, slot, factor))
            ):
                continue
            turns = np.rint((1 / factor if node.op == "Div" else factor) / (2 * pi) * 2.0**32)
            if np.all(np.abs(turns) < 2.0**32):
                return self._apply(
                    "Mul", [count, self._constant("frequencies", turns.astype(np.int64))], np.int64, tensor
                )
        return None

    def _frequencies(self, tensor: Tensor) -> Array | None:
        """A constant, spread or not."""
        spread = made_by(tensor, "Expand")
        value = constant_of(spread.inputs[0] if spread is not None else tensor)
        return None if value is None or value.dtype.kind != "f" else value.astype(np.float64)

    def _integers(self, tensor: Tensor) -> Tensor | None:
        """The int64 tensor that a float one of whole numbers was."""
        cast = made_by(tensor, "Cast")
        if cast is not None:
            source = cast.inputs[0]
            is_integer = isinstance(source.dtype, np.dtype | type) and np.dtype(source.dtype).kind in "iu"
            wide = is_integer and np.dtype(source.dtype) == np.int64
            return (
                source if wide else self._apply("Cast", [source], np.int64, tensor, to=_INT64) if is_integer else None
            )
        moved = made_by(tensor, *MOVEMENT)
        inner = None if moved is None else self._integers(moved.inputs[0])
        return (
            None
            if inner is None or moved is None
            else self._apply(moved.op, [inner, *moved.inputs[1:]], np.int64, tensor, **moved.attrs)
        )

    def _constant(self, base: str, values: Array | np.generic) -> Constant:
        return Constant(unique_name(self._taken, base), np.asarray(values))

    def _apply(self, op: str, inputs: list[Tensor], dtype: type, like: Tensor, **attrs: object) -> Tensor:
        name = unique_name(self._taken, f"{like.name}_{op}_{np.dtype(dtype).name}")
        output = Variable(unique_name(self._taken, f"{name}_out"), dtype=np.dtype(dtype), shape=like.shape)
        self.graph.nodes.append(Node(op, name, dict(attrs), inputs, [output]))
        return output


def _is_outer(node: Node, slot: int, factor: Array) -> bool:
    """True for an outer product (constant column times row, or the reverse): each result is one product."""
    return bool(factor.ndim > 1 and factor.shape[-1 if slot == 0 else -2] == 1)
