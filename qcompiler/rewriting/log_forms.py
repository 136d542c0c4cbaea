"""Writes the logarithm of a tensor from the logarithms of what it is computed from.

A grid of even steps holds decades once it holds logarithms: its step is a *relative* error, the same for small values
and large ones. Products become sums, powers factors, and sums the log-sum-exp of their terms,

    log(a + b) = max + softplus(-|log a - log b|),
    log sum_i x_i = m + log sum_i exp(log x_i - m),  m = max_i log x_i

in which every exponential lies in (0, 1], so that 16 bits hold all that counts. A product with a matrix
without negative weights (bands of a spectrum) is a sum of terms ``log w_ij + log x_i`` over the few weights of each
column that are not zero.

Where a value is not computed from others in this way, its logarithm is that of its code, ``log max(|x|, floor)`` with a
floor below half a step of 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.intervals import Intervals
from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, constant_of, is_float, producer, unique_name
from qcompiler.graph.layers import find_layers
from qcompiler.graph.ranges import Range

__all__ = ["LEAST", "MOVES", "LogForms", "LogRule"]

LEAST = 1e-30
"""What stands for 0 where values come from a function of codes."""

MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand", "Tile", "Identity"})
"""Operators of one output that put the elements of their first input elsewhere."""

FLOOR = 2.0**-17
"""Least magnitude of a code, relative to the largest one: a quarter of a step of 16 bits."""

NEGLIGIBLE = 20.0
"""Logarithm below that of the other weights of a band at which a weight stands for none (2e-9)."""

FEW_TERMS = 256
FINE, COARSE = 2.0**-12, 2.0**-8
"""Steps of up to `FEW_TERMS` terms between 0 and 1, and of the logarithm of their sum: coarse enough for a few lines to
be as good as a table of all codes.
"""

NOTHING = 60.0
"""The same of a band without any weight."""

SPREAD, ALWAYS = 16, 4096
"""Terms of all bands together, relative to the values that they are taken from, up to which they are written out."""


Array = NDArray[Any]
LogRule = Callable[["LogForms", Node], Tensor | None]
"""The logarithm of a node's first output; None where it cannot tell."""


class LogForms:
    """Writes logarithms beside the tensors of a graph, each once.

    Attributes:
        written: the nodes, which are in the graph.
        entries: tensors of whose codes a logarithm is taken.
        steps: by name, the step of a tensor's grid where that is known.
    """

    def __init__(
        self, graph: Graph, taken: set[str], extents: Mapping[str, Range], sizes: Mapping[str, Array],
        rules: Mapping[str, LogRule],
    ) -> None:  # fmt: skip
        """``rules``: of operators; the rest is that of `log_rules.log_forms`."""
        self._sizes, self._rules = sizes, rules
        self.written: list[Node] = []
        self.entries: list[Tensor] = []
        self.steps: dict[str, float] = {}
        self._graph, self._taken, self._extents = graph, taken, dict(extents)
        self._intervals = Intervals(graph)
        self._forms: dict[int, Tensor | None] = {}
        self._of_codes: set[int] = set()
        self._magnitudes: dict[int, Tensor] = {}
        self._kept: list[Tensor] = []  # ids stay theirs
        self._moved: dict[int, list[Tensor]] = {}
        self._base = "log"

    def of(self, tensor: Tensor) -> Tensor | None:
        """The logarithm of a tensor without negative values; None where it may have some, or is not known."""
        if id(tensor) not in self._forms:
            self._kept.append(tensor)
            before, self._base = self._base, tensor.name
            known = constant_of(tensor) is not None
            self._forms[id(tensor)] = self._of_constant(tensor) if known else self._new(tensor)
            self._base = before
        return self._forms[id(tensor)]

    def derived(self, tensor: Tensor) -> Tensor | None:
        """The logarithm of a tensor, written from those of what it is computed from; None where only its own codes
        would tell it.
        """
        form = self.of(tensor)
        return None if id(tensor) in self._of_codes else form

    def magnitude(self, tensor: Tensor) -> Tensor:
        """The logarithm of the absolute value of a tensor."""
        if id(tensor) not in self._magnitudes:
            self._kept.append(tensor)
            form = self.of(tensor)
            self._magnitudes[id(tensor)] = self._new_magnitude(tensor) if form is None else form
        return self._magnitudes[id(tensor)]

    def _new_magnitude(self, tensor: Tensor) -> Tensor:
        node = producer(tensor)
        before, self._base = self._base, tensor.name
        if node is not None and node.op in (*MOVES, "Split"):
            outputs = self._moved.get(id(node)) or self.moved(node, self.magnitude(node.inputs[0]))
            self._moved[id(node)] = outputs
            found = next(moved for moved, own in zip(outputs, node.outputs, strict=True) if own is tensor)
        else:
            found = self._entry(tensor, signed=True)
        self._base = before
        return found

    def sign(self, tensor: Tensor) -> Tensor:
        """-1, 0 or 1."""
        self.enter(tensor)
        steep = self.op("Mul", tensor, self.number(1 / self._floor(tensor)))
        return self.op("Clip", steep, self.number(-1.0), self.number(1.0))

    def take_extent(self, tensor: Tensor, other: Tensor) -> None:
        """Note that a tensor stands for another one of the graph."""
        if other.name in self._extents:
            self._extents[tensor.name] = self._extents[other.name]

    def op(self, op: str, *inputs: Tensor, **attrs: Any) -> Variable:
        """The float output of a new node."""
        return self._write(op, inputs, attrs, 1)[0]

    def moved(self, node: Node, form: Tensor) -> list[Tensor]:
        """The outputs of a mover on a logarithm."""
        return [*self._write(node.op, (form, *node.inputs[1:]), dict(node.attrs), len(node.outputs))]

    def _write(self, op: str, inputs: Sequence[Tensor], attrs: dict[str, Any], count: int) -> list[Variable]:
        names = [unique_name(self._taken, f"{self._base}_log_{op}") for _ in range(count)]
        outputs = [Variable(name, dtype=np.dtype(np.float32)) for name in names]
        node = Node(op, unique_name(self._taken, f"{names[0]}_node"), attrs, list(inputs), outputs)
        self.written.append(node)
        self._graph.nodes.append(node)
        return outputs

    def number(self, value: float | Array) -> Constant:
        """A float constant."""
        return Constant(unique_name(self._taken, "log_constant"), np.asarray(value, np.float32))

    def integers(self, values: Array) -> Constant:
        """A constant of axes or places."""
        return Constant(unique_name(self._taken, "log_indices"), np.asarray(values, np.int64))

    def _of_constant(self, tensor: Tensor) -> Tensor | None:
        values = np.asarray(constant_of(tensor))
        if values.dtype.kind != "f" or not values.size or values.min() < 0:
            return None
        return self.number(np.log(np.maximum(values.astype(np.float64), LEAST)))

    def _new(self, tensor: Tensor) -> Tensor | None:
        node = producer(tensor)
        first = node is not None and is_float(tensor) and tensor is node.outputs[0]
        rule = self._rules.get(node.op) if node is not None and first else None
        found = None if rule is None or node is None else rule(self, node)
        if found is not None:
            return found
        if self._intervals.of(tensor).lo < 0 or not is_float(tensor):
            return None
        self._of_codes.add(id(tensor))
        return self._entry(tensor, signed=False)

    def _entry(self, tensor: Tensor, *, signed: bool) -> Tensor:
        """The logarithm of a tensor's codes."""
        sizes = self._sizes.get(tensor.name)
        source = tensor if sizes is None else self._equalized(tensor, sizes)
        self.enter(source)
        values = self.op("Abs", source) if signed else source
        form = self.op("Log", self.op("Max", values, self.number(self._floor(source))))
        return form if sizes is None else self.op("Add", form, self._along_channels(tensor, np.log(sizes)))

    def _equalized(self, tensor: Tensor, sizes: Array) -> Tensor:
        """The output of a layer with its channels divided by their sizes."""
        node = producer(tensor)
        layer = next(each for each in find_layers(self._graph) if each.node is node)
        others = [1] * (layer.values.ndim - 1)
        weights = np.moveaxis(np.moveaxis(layer.values, layer.axis, 0) / sizes.reshape(-1, *others), 0, layer.axis)
        biases = [constant_of(each) for each in layer.node.inputs[2:]]
        constants = [self.number(values / sizes) for values in biases if values is not None]
        return self.op(layer.node.op, layer.node.inputs[0], self.number(weights), *constants, **layer.node.attrs)

    def _along_channels(self, tensor: Tensor, values: Array) -> Constant:
        node = producer(tensor)
        is_image = node is not None and node.op == "Conv"
        behind = node.inputs[1].values.ndim - 2 if is_image and node is not None else 0
        return self.number(values.reshape(-1, *[1] * behind))

    def enter(self, tensor: Tensor) -> None:
        """Note that the codes of a tensor are read."""
        if all(tensor is not known for known in self.entries):
            self.entries.append(tensor)

    def _floor(self, tensor: Tensor) -> float:
        extent = self._extents.get(tensor.name, Range(-1.0, 1.0))
        return max(FLOOR * max(-extent.lo, extent.hi), LEAST)

    def times(self, form: Tensor, factor: float) -> Tensor:
        """A logarithm times a number: that of a power."""
        return form if factor == 1.0 else self.op("Mul", form, self.number(factor))

    def joined(self, op: str, node: Node) -> Tensor | None:
        """An operator on the logarithms of the first two inputs; None where one of them has none."""
        forms = [self.of(tensor) for tensor in node.inputs[:2]]
        return None if forms[0] is None or forms[1] is None else self.op(op, forms[0], forms[1])

    def sum_of(self, first: Tensor, second: Tensor) -> Tensor:
        """log(a + b) of two logarithms; a number among them makes it a function of the other."""
        numbers = [constant_of(form) for form in (first, second)]
        if any(number is not None and number.size == 1 for number in numbers):
            form, number = (first, second) if numbers[1] is not None else (second, first)
            return self.op("Add", self.op("Softplus", self.op("Sub", form, number)), number)
        least, most = self.op("Min", first, second), self.op("Max", first, second)
        return self.op("Add", most, self._on(FINE, self.op("Softplus", self._below(least, most))))

    def sum_over(
        self, form: Tensor, axes: list[Tensor], *, keep: bool, count: int | None, op: str = "ReduceSum"
    ) -> Tensor:
        """log of a sum (or mean) over ``axes`` (none: all), from the logarithms of its terms, ``count`` of them.

        The largest term is 1, so a sum is no less; of a mean nothing is known.
        """
        most = self.op("ReduceMax", form, *axes, keepdims=1)
        terms = self.op("Exp", self._below(form, most))
        if count is not None and count <= FEW_TERMS:
            self._on(FINE, terms)
        total = self.op(op, terms, *axes, keepdims=int(keep))
        if op == "ReduceSum":
            total = self._on(COARSE, self.op("Log", self.op("Max", total, self.number(1.0))))
        else:
            total = self.op("Log", total)
        return self.op("Add", most if keep else self.op("Squeeze", most, *axes), total)

    def _below(self, form: Tensor, most: Tensor) -> Tensor:
        """What a logarithm is below the largest: at most 0, also for codes that do not occur, of which a function is
        rather a line then.
        """
        return self.op("Min", self.op("Sub", form, most), self.number(0.0))

    def _on(self, step: float, tensor: Tensor) -> Tensor:
        self.steps[tensor.name] = step
        return tensor

    def product(self, form: Tensor, weights: Array, axis: int, behind: int) -> Tensor | None:
        """log of a sum of products with weights [F, M] over an axis of F, which becomes one of M; None: too many terms.

        Args:
            form: logarithms.
            weights: none is negative.
            axis: of ``form``; counted from its end if negative.
            behind: how many axes follow it.
        """
        bands = [np.flatnonzero(column) for column in weights.T]
        widest = max(max((band.size for band in bands), default=0), 1)
        if widest * len(bands) > max(SPREAD * weights.shape[0], ALWAYS):
            return self._dense_product(form, weights, behind) if behind < 2 else None
        positive = np.log(weights[weights > 0].astype(np.float64)) if (weights > 0).any() else np.zeros(1)
        places = np.zeros((len(bands), widest), np.int64)
        logs = np.full((len(bands), widest), positive.min() - NOTHING)
        for row, band in enumerate(bands):
            if band.size:
                values = np.log(weights[band, row].astype(np.float64))
                places[row], logs[row] = band[0], values.max() - NEGLIGIBLE
                places[row, :band.size], logs[row, :band.size] = band, values
        terms = self.op("Gather", form, self.integers(places), axis=axis)
        terms = self.op("Add", terms, self.number(logs.reshape(*logs.shape, *[1] * behind)))
        place = self.integers(np.array([axis if axis < 0 else axis + 1]))
        return self.sum_over(terms, [place], keep=False, count=widest)

    def _dense_product(self, form: Tensor, weights: Array, behind: int) -> Tensor:
        """The same by a layer on what lies between 0 and 1: relative to the largest value along the axis."""
        most = self.op("ReduceMax", form, self.integers(np.array([-1 - behind])), keepdims=1)
        terms = self.op("Exp", self._below(form, most))
        sides = (self.number(np.ascontiguousarray(weights.T)), terms) if behind else (terms, self.number(weights))
        total = self.op("MatMul", *sides)
        self.enter(total)
        floor = self.number(FLOOR * float(weights.sum(axis=0).max()))
        return self.op("Add", self.op("Log", self.op("Max", total, floor)), most)
