"""The engine of the lowering: from float tensors between Q/DQ pairs to codes.

The float part of a quantized graph is read backwards from each QuantizeLinear node. ``Lowering.value(tensor, target)``
answers "which integer operators give the codes of this float tensor on that grid", by asking the rule of the operator
that writes it; the recursion ends at DequantizeLinear nodes, constants and graph inputs. Operators that only move
values hand the question on to their inputs, so a grid travels backwards through them and is changed (Requantize) once,
where codes on another grid begin.

A value that no QuantizeLinear node follows gets a grid of its own (``natural``): the one of its source for movers, else
an int16 grid that holds every value the operator can produce.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from qcompiler.errors import NoIntegerFormError, UnsupportedError
from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, Variable, is_float, producer, read_spec
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.constants import Array, Constants
from qcompiler.lowering.factors import fixed_point, requantized
from qcompiler.lowering.integer_graph import IntegerBuilder, Shape
from qcompiler.shapes import infer
from qcompiler.shapes.dims import Dim

_SEVERAL_OUTPUTS = ("Split", "LSTM", "GRU")

_WHY = {
    "If": "what it does depends on sizes or data; where it is sizes, fix them: --dim NAME=SIZE",
    "Loop": "the machine has no jumps; it runs no loops",
    "Scan": "the machine has no jumps; it runs no loops",
}
"""Said of control flow."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Rule:
    """How one float operator becomes integer ones.

    Attributes:
        lower: (lowering, node, index of the wanted output, target) -> its codes.
        bounds: (lowering, node) -> smallest and largest real value of the output.
        grid: (lowering, node) -> the natural grid, where it is not an int16 grid over ``bounds``.
    """

    lower: Callable[[Lowering, Node, int, Target], Coded]
    bounds: Callable[[Lowering, Node], Bounds]
    grid: Callable[[Lowering, Node], CodeGrid] | None = None


IntegerRule = Callable[["Lowering", Node], None]
"""Writes the integer or bool outputs of a node: ``lowering.integers[id(output)] = tensor`` for each."""


@dataclass(frozen=True)
class Border:
    """What the border does besides one grid of a tensor; each answers None where it has nothing to do.

    Attributes:
        enter: (lowering, tensor, target) -> codes of what is made of a float graph input.
        leave: (lowering, output) -> the output.
    """

    enter: Callable[[Lowering, Tensor, Target], Coded | None]
    leave: Callable[[Lowering, Tensor], Tensor | None]


LookUp = Callable[["Lowering", Node], Coded | None]
"""Codes in front of a DequantizeLinear as a table of other codes."""


class _Follows(UnsupportedError):
    """A value is missing because of a problem that has been recorded already."""


def _checked_index(node: Node, index: int) -> int:
    """``index``, if that output has an integer form."""
    if index > 0 and node.op not in _SEVERAL_OUTPUTS:
        raise UnsupportedError(f"its output '{node.outputs[index].name}' (number {index + 1}) has no integer form")
    return index


def _listed(problems: Mapping[str, str]) -> str:
    """What stands in the way, by label ``'name' (Op)``: nodes of one operator and one reason are named once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for label, reason in problems.items():
        alike.setdefault((label.rpartition(" ")[2], reason), []).append(label)
    return "; ".join(
        f"{labels[0]}{f' and {len(labels) - 1} more' if len(labels) > 1 else ''}: {reason}"
        for (_, reason), labels in alike.items()
    )


class Lowering:
    """The state of lowering one graph.

    Attributes:
        source: the quantized graph; it is not changed.
        constants: values known at lowering.
        out: the integer graph under construction.
        integers: tensor of the integer graph for each integer or bool tensor of the source, by id.
        shared: codes of all outputs of a node that writes them at once, by a key of its rule.
    """

    def __init__(
        self,
        source: Graph,
        rules: Mapping[str, Rule],
        integer_rules: Mapping[str, IntegerRule],
        look_up: LookUp,
        border: Border,
    ) -> None:
        self.source = source
        self.constants = Constants(source)
        self._shapes = infer.infer_shapes(source)
        self.out = IntegerBuilder(source)
        self.integers: dict[int, Tensor] = {}
        self.shared: dict[str, list[Coded]] = {}
        self._rules, self._integer_rules, self._look_up, self._border = rules, integer_rules, look_up, border
        self._memo: dict[tuple[int, CodeGrid, int, int], Coded] = {}
        self._stored: dict[int, Coded | None] = {}
        self._bounds: dict[int, Bounds] = {}
        self._problems: dict[str, str] = {}
        self._culprits: dict[str, str] = {}

    def run(self) -> Graph:
        """The integer graph.

        Raises:
            NoIntegerFormError: names every node that has no integer form, and why.
        """
        self._inputs()
        for node in self.source.nodes:
            if node.op == "QuantizeLinear" and not self.constants.is_constant(node.outputs[0]):
                self._stored[id(node.outputs[0])] = self._guarded(node, self._quantized)
        outputs = [self._guarded_output(tensor) for tensor in self.source.outputs]
        if self._problems:
            count = len(self._problems)
            raise NoIntegerFormError(f"no integer form for {count} node(s): {_listed(self._problems)}", self._culprits)
        self.out.graph.outputs = [tensor for tensor in outputs if tensor is not None]
        return self.out.graph

    # ------------------------------------------------------------------ borders
    def _inputs(self) -> None:
        for tensor in self.source.inputs:
            copy = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
            self.out.graph.inputs.append(copy)
            self.integers[id(tensor)] = copy

    def _guarded(self, node: Node, work: Callable[[Node], Coded]) -> Coded | None:
        try:
            with self.out.written_for(node.name):
                return work(node)
        except _Follows:
            return None
        except UnsupportedError as error:
            self._record(node, str(error))
            return None

    def _record(self, node: Node | None, reason: str, label: str = "") -> None:
        """Note why there is no integer form; ``label``: of what, where it is not the node itself."""
        self._problems.setdefault(label or (f"'{node.name}' ({node.op})" if node is not None else ""), reason)
        if node is not None:
            self._culprits.setdefault(node.name, reason)

    def _quantized(self, node: Node) -> Coded:
        spec = read_spec(node)
        if spec is None:
            raise UnsupportedError("its scale or zero point is computed while the model runs")
        return self.value(node.inputs[0], Target.whole(CodeGrid.from_spec(spec), node.outputs[0].name))

    def _guarded_output(self, tensor: Tensor) -> Tensor | None:
        try:
            return self._output(tensor)
        except _Follows:
            return None
        except UnsupportedError as error:
            self._record(producer(tensor), str(error), f"output '{tensor.name}'")
            return None

    def _output(self, tensor: Tensor) -> Tensor:
        if not is_float(tensor):
            return self._integer_output(tensor)
        joined = self._border.leave(self, tensor)
        if joined is not None:
            return joined
        node = producer(tensor)
        widened = node is not None and node.op == "Cast" and is_float(node.inputs[0])
        codes = self.natural(node.inputs[0] if widened and node is not None else tensor)
        result = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
        attrs = {"scale": codes.grid.scale, "zp": codes.grid.zero_point}
        self.out.append("Dequantize", [codes.tensor], attrs, [result])
        return result

    def _integer_output(self, tensor: Tensor) -> Tensor:
        inner = self.integer(tensor)
        result = Variable(tensor.name, dtype=inner.dtype, shape=tensor.shape)
        self.out.append("Identity", [inner], {}, [result])
        return result

    def shape_of(self, tensor: Tensor) -> tuple[Dim, ...]:
        """The symbolic shape of a tensor of the source.

        Raises:
            UnsupportedError: it is unknown.
        """
        shape = self._shapes.get(tensor.name)
        if shape is None:
            raise UnsupportedError(f"the shape of '{tensor.name}' is unknown; run shape inference on the model first")
        return shape

    # ------------------------------------------------------------------ float values
    def value(self, tensor: Tensor, target: Target) -> Coded:
        """Codes of a float tensor on the target's grid, clamped to [target.lo, target.hi].

        Raises:
            UnsupportedError: some operator behind it has no integer form.
        """
        key = (id(tensor), *target.key)
        if key not in self._memo:
            self._memo[key] = self._value(tensor, target)
        return self._memo[key]

    def _value(self, tensor: Tensor, target: Target) -> Coded:
        known = self.constants.value(tensor)
        if known is not None:
            return self.constant(known, target)
        node = producer(tensor)
        if node is None:
            return self._quantized_input(tensor, target)
        if node.op == "DequantizeLinear":
            return requantized(self.out, self.codes_behind(node), target, 1.0, tensor.shape)
        scaled = self._border.enter(self, tensor, target)
        if scaled is not None:
            return scaled
        rule = self._rule(node)
        index = next(i for i, output in enumerate(node.outputs) if output is tensor)
        try:
            with self.out.written_for(node.name):
                return rule.lower(self, node, _checked_index(node, index), target)
        except _Follows:
            raise
        except UnsupportedError as error:
            self._record(node, str(error))
            raise _Follows(str(error)) from error

    def constant(self, values: Array, target: Target) -> Coded:
        """A constant as codes."""
        codes = np.clip(target.grid.quantize(values), target.lo, target.hi).astype(target.grid.dtype)
        lo, hi = (
            (int(codes.min()), int(codes.max())) if codes.size else (target.grid.zero_point, target.grid.zero_point)
        )
        return Coded(self.out.constant(target.name, codes), target.grid, lo, hi)

    def _rule(self, node: Node) -> Rule:
        rule = self._rules.get(node.op) if node.domain in STANDARD_DOMAINS else None
        if rule is None:
            self._record(node, _WHY.get(node.op, "this operator has no integer form"))
            raise _Follows(node.name)
        return rule

    def _quantized_input(self, tensor: Tensor, target: Target) -> Coded:
        source = self.integers.get(id(tensor))
        if source is None or not is_float(tensor):
            raise UnsupportedError(f"it reads '{tensor.name}', which is neither codes nor a float graph input")
        grid = target.grid
        if (target.lo, target.hi) != (grid.qmin, grid.qmax):
            plain = self.value(tensor, Target.whole(grid, f"{tensor.name}_codes"))
            return requantized(self.out, plain, target, 1.0, tensor.shape)
        attrs = {"scale": grid.scale, "zp": grid.zero_point, "dtype": grid.dtype}
        codes = self.out.op("Quantize", target.name, [source], attrs, grid.dtype, tensor.shape)
        return Coded(codes, grid, grid.qmin, grid.qmax)

    def codes_behind(self, node: Node) -> Coded:
        """The codes that a DequantizeLinear node reads."""
        tensor = node.inputs[0]
        if id(tensor) not in self._stored:
            self._stored[id(tensor)] = self._foreign_codes(node)
        return self.stored_codes(tensor)

    def stored_codes(self, tensor: Tensor) -> Coded:
        """What a QuantizeLinear node wrote to ``tensor``."""
        stored = self._stored.get(id(tensor))
        if stored is None:
            raise _Follows(tensor.name)
        return stored

    def _foreign_codes(self, node: Node) -> Coded:
        """Codes that come from elsewhere than a QuantizeLinear node: an integer graph input, or integer operators."""
        spec = read_spec(node)
        if spec is None:
            raise UnsupportedError(f"'{node.name}' (DequantizeLinear) has no constant scale")
        known = self._look_up(self, node)
        if known is not None:
            return known
        grid = CodeGrid.from_spec(spec)
        shift = grid.zero_point - int(spec.zero_point.reshape(()))
        target = Target.whole(CodeGrid(1.0, shift, grid.dtype), f"{node.inputs[0].name}_codes")
        plain = self.integer_codes(node.inputs[0], target)
        return Coded(plain.tensor, grid, plain.lo, plain.hi)

    def integer_codes(self, tensor: Tensor, target: Target) -> Coded:
        """An integer or bool tensor as codes (QuantizeInteger): its values stand for themselves."""
        m, n = fixed_point(1.0 / target.grid.scale)
        attrs = {"m": m, "n": n, **target.attributes()}
        codes = self.out.op(
            "QuantizeInteger", target.name, [self.integer(tensor)], attrs, target.grid.dtype, tensor.shape
        )
        return Coded(codes, target.grid, target.lo, target.hi)

    def natural(self, tensor: Tensor) -> Coded:
        """Codes of a float tensor on its own grid."""
        node = producer(tensor)
        if node is not None and node.op == "DequantizeLinear" and not self.constants.is_constant(tensor):
            return self.codes_behind(node)
        return self.value(tensor, Target.whole(self.natural_grid(tensor), f"{tensor.name}_codes"))

    def natural_grid(self, tensor: Tensor) -> CodeGrid:
        """The grid a float tensor has, or gets where no QuantizeLinear node follows it."""
        node = producer(tensor)
        if node is None or self.constants.is_constant(tensor):
            return self._constant_grid(node) or CodeGrid.covering(*self.bounds(tensor))
        if node.op == "DequantizeLinear":
            return self.codes_behind(node).grid
        rule = self._rule(node)
        return rule.grid(self, node) if rule.grid is not None else CodeGrid.covering(*self.bounds(tensor))

    @staticmethod
    def _constant_grid(node: Node | None) -> CodeGrid | None:
        """The grid of a constant that is stored as activation codes."""
        spec = read_spec(node) if node is not None and node.op == "DequantizeLinear" else None
        if spec is None or spec.scale.size > 1 or spec.dtype.itemsize > 2 or spec.dtype.kind not in "iu":
            return None
        return CodeGrid.from_spec(spec)

    def bounds(self, tensor: Tensor) -> Bounds:
        """Smallest and largest real value of a float tensor."""
        if id(tensor) not in self._bounds:
            self._bounds[id(tensor)] = self._find_bounds(tensor)
        return self._bounds[id(tensor)]

    def _find_bounds(self, tensor: Tensor) -> Bounds:
        known = self.constants.value(tensor)
        if known is not None:
            finite = known[np.isfinite(known)]
            return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        node = producer(tensor)
        if node is None:
            raise UnsupportedError(
                f"it needs the range of '{tensor.name}'; put a QuantizeLinear/DequantizeLinear pair behind that tensor"
            )
        if node.op == "DequantizeLinear":
            return self.codes_behind(node).bounds
        return self._rule(node).bounds(self, node)

    # ------------------------------------------------------------------ integer values
    def integer(self, tensor: Tensor) -> Tensor:
        """The integer graph's form of an integer or bool tensor."""
        if id(tensor) in self.integers:
            return self.integers[id(tensor)]
        known = self.constants.value(tensor)
        if known is not None:
            return self.out.constant(tensor.name, known)
        node = producer(tensor)
        if node is None:
            raise UnsupportedError(f"it reads '{tensor.name}', which nothing writes")
        rule = self._integer_rules.get(node.op)
        if rule is None:
            why = _WHY.get(node.op, "this operator has no integer form on integers")
            self._record(node, why)
            raise _Follows(node.name)
        try:
            with self.out.written_for(node.name):
                rule(self, node)
        except _Follows:
            raise
        except UnsupportedError as error:
            self._record(node, str(error))
            raise _Follows(str(error)) from error
        if id(tensor) not in self.integers:
            self._record(node, f"its output '{tensor.name}' has no integer form")
            raise _Follows(node.name)
        return self.integers[id(tensor)]

    def emit(self, kind: str, inputs: list[Tensor], attrs: Mapping[str, object], target: Target, shape: Shape) -> Coded:
        """Append an operator that writes codes on the target's grid; ``attrs`` are its own, the output's are added."""
        codes = self.out.op(kind, target.name, inputs, {**attrs, **target.attributes()}, target.grid.dtype, shape)
        return Coded(codes, target.grid, target.lo, target.hi)
