"""What an ``.onnx`` file keeps in float because a grid would lose what matters there.

- *front*: what scales or normalizes an input before the first layer,
where columns or samples of it differ in size: quantized behind.
- *decades*: what a logarithm,
a high root or a reciprocal power reads. These need a relative precision of their input (the error of log x is that
  of x over x), which a uniform grid gives to its largest values alone; so their operands stay float back to the layer
  that computes them, and with the whole chain where it is a front end: few layers (a spectrum, then mel bands), or a
  bank of filters.
- *tail*: what only moves,
joins or rescales values on their way to an output: parts of an output that differ in size keep grids of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.intervals import Intervals
from qcompiler.graph.ir import (
    Graph,
    Node,
    Tensor,
    constant_of,
    consumers,
    float_inputs,
    float_outputs,
    is_float,
    producer,
)
from qcompiler.graph.operators import LAYERS, NORMS

__all__ = ["AT_DECADES", "AT_INPUT", "AT_OUTPUT", "behind", "border_zones", "float_zones", "is_unequal"]

Array = NDArray[Any]

AT_INPUT = "scales or normalizes an input whose parts differ in size; quantized behind it"
AT_DECADES = "what a logarithm or a root reads spans decades, which codes of even steps do not hold"
AT_OUTPUT = "on the way to an output, behind the last integer operator"

UNEQUAL = 8.0
"""Ratio of two columns' scales from which on they do not share a grid."""

RESOLVED = 64.0
"""Largest ratio of values whose logarithm 8-bit codes still resolve."""

FRONT_LAYERS = 3
"""Most layers between the input and a logarithm or root that needs small values, for a float front end."""

BANK_LAYERS = 256
"""The same of a bank of filters: layers between which nothing but linear operators stands."""

ROOT = 0.5
"""Exponent below which a power (cube root, reciprocal) needs small values resolved."""

_AFFINE = ("Add", "Sub", "Mul", "Div")
_MOVING = frozenset(
    {
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
_STATISTICS = frozenset(
    {
        "InstanceNormalization",
        "LayerNormalization",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
    }
)
_ELEMENTWISE = frozenset({*_AFFINE, "Abs", "Clip", "Max", "Min", "Neg", "Pow", "Reciprocal", "Relu", "Sqrt", "Where"})
_FRONT = _MOVING | _STATISTICS | _ELEMENTWISE
_LINEAR = _MOVING | {"Add", "AveragePool", "Div", "Mul", "Neg", "ReduceMean", "ReduceSum", "Sub", "Sum"}
_CARRYING = (_FRONT | {"Exp", "Softplus", "Sum", "AveragePool", "MaxPool"}) - {"Gather", "Where"}
_LEAVING = _MOVING - {"Cast", "Expand", "Gather", "Pad"}


def float_zones(graph: Graph, lost: Collection[int] = ()) -> dict[int, str]:
    """Nodes to leave float, by id, with the reason. The graph is in topological order.

    ``lost``: ids of divisors and other operands that span decades on the feeds (`activations.relative_need`).
    """
    front = _front(graph)
    decades = _decades(graph, lost)
    found = {**dict.fromkeys(decades, AT_DECADES), **dict.fromkeys(front, AT_INPUT)}
    return {**dict.fromkeys(_tail(graph, found), AT_OUTPUT), **found}


def border_zones(graph: Graph) -> set[int]:
    """What the border of the machine does by itself, as a grid for each column, by id.

    It scales float inputs whose columns differ in size, and joins the parts of an output.
    """
    scalers = _scalers(graph)
    known = {id(tensor): False for tensor in float_inputs(graph)}
    found: set[int] = set()
    for node in graph.nodes:
        operands = [tensor for tensor in node.inputs if constant_of(tensor) is None]
        mine = operands and all(id(each) in known and len(consumers(each)) == 1 for each in operands)
        if mine and ((node.op == "Concat" and _is_given(operands, graph)) or id(node.outputs[0]) in scalers):
            scaled = node.op != "Concat" and (is_unequal(node) or scalers[id(node.outputs[0])].is_unequal)
            known[id(node.outputs[0])] = scaled or any(known[id(each)] for each in operands)
            found.add(id(node))
    chains = [node for node in graph.nodes if id(node) in found]
    unequal = _ends_unequal(chains, known)
    outputs = {id(tensor) for tensor in float_outputs(graph)}
    joins = [node for node in graph.nodes if node.op == "Concat" and id(node.outputs[0]) in outputs]
    return unequal | {
        id(node)
        for node in joins
        if all(_leaves(reader, graph) for reader in consumers(node.outputs[0]))
        and all(part.inputs for part in node.inputs)
    }


def _leaves(node: Node, graph: Graph) -> bool:
    """True for the Cast of an output of another float type."""
    return node.op == "Cast" and any(node.outputs[0] is tensor for tensor in graph.outputs)


def _is_given(tensors: Iterable[Tensor], graph: Graph) -> bool:
    return all(any(tensor is given for given in float_inputs(graph)) for tensor in tensors)


@dataclass(frozen=True, eq=False)
class _Scaler:
    """``factor * x + offset`` of an input, with a number for each column or one for all."""

    factor: Array
    offset: Array

    def then(self, op: str, constant: Array) -> _Scaler:
        """Followed by a sum, a difference, a product or a quotient with a constant."""
        if op in ("Add", "Sub"):
            return _Scaler(self.factor, self.offset + (constant if op == "Add" else -constant))
        with np.errstate(divide="ignore", invalid="ignore"):
            by = constant if op == "Mul" else 1 / constant
            return _Scaler(self.factor * by, self.offset * by)

    @property
    def is_unequal(self) -> bool:
        """True where results of about -1 to 1 come from columns of very different size, or far from 0.

        What takes a mean off alone says nothing of the size.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([(-1 - self.offset) / self.factor, (1 - self.offset) / self.factor])
            widths = np.abs(1 / self.factor)
        if np.all(self.factor == 1) or not (np.isfinite(ends).all() and np.isfinite(widths).all() and ends.size):
            return False
        return float(np.abs(ends).max()) >= UNEQUAL * float(widths.min())


def _scalers(graph: Graph) -> dict[int, _Scaler]:
    """What sums and products with constants make of float inputs, as they are or joined, by id of the result."""
    plain = _Scaler(np.ones(()), np.zeros(()))
    known = {id(tensor): plain for tensor in float_inputs(graph)}
    found: dict[int, _Scaler] = {}
    for node in graph.nodes:
        operands = [tensor for tensor in node.inputs if constant_of(tensor) is None]
        if node.op == "Concat" and operands and _is_given(node.inputs, graph):
            known[id(node.outputs[0])] = plain
        if node.op not in _AFFINE or len(operands) != 1 or id(operands[0]) not in known or _divides(node):
            continue
        constant = next(value for tensor in node.inputs if (value := constant_of(tensor)) is not None)
        result = known[id(operands[0])].then(node.op, np.asarray(constant, np.float64))
        known[id(node.outputs[0])] = found[id(node.outputs[0])] = result
    return found


def _divides(node: Node) -> bool:
    """True for a constant minus or divided by the input."""
    return node.op in ("Sub", "Div") and constant_of(node.inputs[0]) is not None


def _ends_unequal(chains: list[Node], known: dict[int, bool]) -> set[int]:
    """The nodes of the chains in the end of which columns have been scaled apart."""
    found: set[int] = set()
    for node in reversed(chains):
        later = [reader for reader in consumers(node.outputs[0]) if any(reader is other for other in chains)]
        if any(id(reader) in found for reader in later) or (not later and known[id(node.outputs[0])]):
            found.add(id(node))
    return found


def _front(graph: Graph) -> set[int]:
    """What stands between the float inputs and the first layers, where an input's columns or samples differ in size."""
    known = {id(tensor) for tensor in graph.inputs if is_float(tensor)}
    found: dict[int, Node] = {}
    for node in graph.nodes:
        operands = [tensor for tensor in node.inputs if tensor.name and constant_of(tensor) is None]
        if operands and node.op in _FRONT and all(id(tensor) in known for tensor in operands):
            found[id(node)] = node
            known |= {id(tensor) for tensor in node.outputs}
    scalers = _scalers(graph)
    apart = any(is_unequal(node) or _normalizes(node) for node in found.values())
    if apart or any(scaler.is_unequal for key, scaler in scalers.items() if key in known):
        return set(found)
    return set()


def is_unequal(node: Node) -> bool:
    """True for a factor whose columns differ in size."""
    if node.op not in ("Mul", "Div"):
        return False
    values = [
        np.abs(value[value != 0])
        for tensor in node.inputs
        if (value := constant_of(tensor)) is not None and value.size > 1
    ]
    return any(value.size > 1 and float(value.max()) >= UNEQUAL * float(value.min()) for value in values)


def _normalizes(node: Node) -> bool:
    """True for what takes each sample's own mean or size off it."""
    if node.op in NORMS:
        return True
    return (
        node.op == "Div"
        and all(constant_of(tensor) is None for tensor in node.inputs)
        and _is_statistic(node.inputs[1])
    )


def _is_statistic(tensor: Tensor, depth: int = 6) -> bool:
    node = producer(tensor)
    if node is None or depth == 0:
        return False
    return node.op in _STATISTICS or (
        node.op in _FRONT and any(_is_statistic(each, depth - 1) for each in node.inputs if constant_of(each) is None)
    )


def _decades(graph: Graph, lost: Collection[int]) -> set[int]:
    """What logarithms and roots read, back to the layers that compute it, and these operators themselves; by id."""
    intervals = Intervals(graph)
    found: set[int] = set()
    for node in graph.nodes:
        measured = next((tensor for tensor in node.inputs if id(tensor) in lost), None)
        if measured is not None and node.op in (*NORMS, "Div", "Pow", "Reciprocal", "Sqrt"):
            found |= _dividing(node)
            continue
        operand = _relative_operand(node)
        if operand is None or constant_of(operand) is not None or not is_float(operand) or _holds_a_one(operand):
            continue
        extent = intervals.of(operand)
        if extent.lo > 0 and extent.hi <= RESOLVED * extent.lo:
            continue
        chain, layers, is_front = behind(operand)
        if node.op == "Log" or (is_front and layers):
            found |= chain | {id(node)}
            found |= layers if is_front else set()
    return found


def _dividing(node: Node) -> set[int]:
    """A division by what spans decades, or a root of it, and what computes its operands; a normalization behind a front
    end alone.
    """
    chain, layers, is_front = behind(*node.inputs)
    if node.op in NORMS and not (is_front and layers):
        return set()
    exponent = constant_of(node.inputs[1]) if node.op == "Pow" else None
    inverts = node.op not in ("Div", "Sqrt") and not (exponent is not None and np.all(exponent > 0))
    products = {id(user) for user in consumers(node.outputs[0]) if user.op == "Mul" and inverts}
    return chain | {id(node)} | products | (layers if is_front else set())


def _holds_a_one(tensor: Tensor) -> bool:
    """True for ``sum(exp(x - max(x)))``, as in LogSoftmax: a term is 1, so its logarithm needs no small values."""
    sums = producer(tensor)
    powers = None if sums is None or sums.op != "ReduceSum" else producer(sums.inputs[0])
    difference = None if powers is None or powers.op != "Exp" else producer(powers.inputs[0])
    if difference is None or difference.op != "Sub":
        return False
    largest = producer(difference.inputs[1])
    return largest is not None and largest.op == "ReduceMax" and largest.inputs[0] is difference.inputs[0]


def _relative_operand(node: Node) -> Tensor | None:
    """The input whose relative precision matters to a node."""
    if node.op == "Log":
        return node.inputs[0]
    exponent = constant_of(node.inputs[1]) if node.op == "Pow" else None
    return (
        node.inputs[0] if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) < ROOT else None
    )


def behind(*tensors: Tensor) -> tuple[set[int], set[int], bool]:
    """What computes tensors: operators of an element, of movement and of sums; layers; and whether these are a front
    end, that is all there is up to the inputs: `FRONT_LAYERS` layers, or a bank of filters.

    Behind other layers only what stands behind the last ones is told.
    """
    chain, layers, whole = _walk(tensors, BANK_LAYERS)
    if whole and (len(layers) <= FRONT_LAYERS or _is_bank(layers.values())):
        return set(chain), set(layers), True
    chain, layers, whole = _walk(tensors, 0)
    return set(chain), set(layers), whole


def _is_bank(layers: Iterable[Node]) -> bool:
    """True where layers, of known weights, and what computes their inputs are linear."""
    nodes = list(layers)
    chain, _, _ = _walk([node.inputs[0] for node in nodes], BANK_LAYERS)
    return all(any(constant_of(each) is not None for each in node.inputs[:2]) for node in nodes) and all(
        node.op in _LINEAR and (node.op not in ("Div", "Mul") or not _multiplies(node)) for node in chain.values()
    )


def _multiplies(node: Node) -> bool:
    """True for a product or a quotient of two tensors, and for a number divided by one."""
    return constant_of(node.inputs[1]) is None and (node.op == "Div" or constant_of(node.inputs[0]) is None)


def _walk(tensors: Iterable[Tensor], most: int) -> tuple[dict[int, Node], dict[int, Node], bool]:
    """Operators and layers (up to ``most``) behind tensors by id, and whether these are all up to the inputs."""
    chain: dict[int, Node] = {}
    layers: dict[int, Node] = {}
    pending, whole = [tensor for tensor in tensors if constant_of(tensor) is None], True
    while pending:
        node = producer(pending.pop())
        if node is None or id(node) in chain or id(node) in layers:
            continue
        if node.op in LAYERS and len(layers) < most:
            layers[id(node)] = node
        elif node.op in _CARRYING or (most and node.op == "Log"):
            chain[id(node)] = node
        else:
            whole = False
            continue
        pending += [each for each in node.inputs if constant_of(each) is None and is_float(each)]
    return chain, layers, whole


def _tail(graph: Graph, floats: Collection[int]) -> set[int]:
    """What only moves, joins or rescales values on their way to the outputs."""
    outputs = {id(tensor) for tensor in (*graph.outputs, *float_outputs(graph))}
    found: set[int] = set()
    for node in reversed(graph.nodes):
        leaves = all(id(tensor) in outputs or consumers(tensor) for tensor in node.outputs)
        readers = [reader for tensor in node.outputs for reader in consumers(tensor)]
        inside = all(id(reader) in found or _leaves(reader, graph) for reader in readers)
        if leaves and inside and (node.op in _LEAVING or _rescales(node, floats)):
            found.add(id(node))
    return found


def _rescales(node: Node, floats: Collection[int]) -> bool:
    """True for a sum or product with a constant, or with what stays float (a scale taken off an input)."""
    if node.op not in _AFFINE:
        return False
    known = [
        constant_of(tensor) is not None or ((source := producer(tensor)) is not None and id(source) in floats)
        for tensor in node.inputs
    ]
    return known.count(False) == 1
