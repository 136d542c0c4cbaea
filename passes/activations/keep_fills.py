"""Fills reach the outputs of a program: what puts them there is brought into a form that the border of the machine has.

An output in which a fill (-1e9, finfo.min, -inf) stands beside data gets the nodes between the data and itself for its
own, since whoever else looks at the filled tensor reads codes. There,

- a fill that is computed (a ConstantOfShape times a number) becomes its number, expanded to the same shape;
- a fill that a mask adds to the datum becomes a choice by the mask, where it swallows the datum but for a
``1 / LARGEST``.

`lowering/fill_codes.py` gives the fill a code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...graph.exactness import filled, selections
from ...graph.fill_tails import ADDING, LARGEST, adds_little, fill_tail, filling_operands
from ...graph.ir import (
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    consumers,
    names_in,
    producer,
    unique_name,
)
from ...graph.mask_inputs import mask_inputs
from ...graph.value_kinds import Value, value_kinds
from ...pass_base import Context, Pass
from ...rewriting.match import insert_before, is_output

SMALL = 256.0
"""Two numbers up to that are told apart on any grid that holds them."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Neg": np.negative,
}  # fmt: skip


@dataclass(frozen=True)
class KeepFills(Pass):
    """Give outputs with fills nodes of their own, in which fills are constants."""

    name: ClassVar[str] = "keep-fills"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a fill became a constant, or a node was doubled."""
        graph.toposort()
        kinds = value_kinds(graph, mask_inputs(graph))
        fills, changed = filled(graph, kinds), False
        for output in list(graph.outputs):
            nodes = fill_tail(graph, kinds, fills, output)
            if nodes is not None and all(_becomes_constant(node, kinds) for node in nodes):
                changed |= _own(graph, nodes, output)
        kinds = value_kinds(graph, mask_inputs(graph))
        fills = filled(graph, kinds)
        for output in graph.outputs:
            for node in fill_tail(graph, kinds, fills, output) or []:
                changed |= _make_constant(graph, node, kinds)
        graph.toposort()
        return changed


def _becomes_constant(node: Node, kinds: Mapping[str, Value]) -> bool:
    """True unless a node puts a fill that has no constant form."""
    if node.op in ADDING:
        return adds_little(node, kinds) or _added(node, kinds) is not None
    computed = [slot for slot in filling_operands(node, kinds) if constant_of(node.inputs[slot]) is None]
    return not computed or (node.op == "Concat" and all(_number(node.inputs[slot], kinds) for slot in computed))


def _number(tensor: Tensor, kinds: Mapping[str, Value]) -> float | None:
    """The one number that a computed fill is."""
    values = kinds[tensor.name].values or ()
    return values[0] if len(values) == 1 else None


@dataclass(frozen=True)
class _Condition:
    """Where a mask puts its fill: where ``tensor`` is above or below ``middle`` (``op``: Greater or Less); without
    ``op``, where it is true (``chosen``) or false.
    """

    tensor: Tensor
    kinds: Mapping[str, Value]
    op: str = ""
    middle: float = 0.0
    chosen: bool = True


def _added(node: Node, kinds: Mapping[str, Value]) -> tuple[_Condition, float] | None:
    """The condition and the number where an Add or Sub fills with one number or nothing."""
    data = selections(node, kinds)
    masks = [tensor for tensor in node.inputs if all(tensor is not other for other in data)]
    if len(data) != 1 or len(masks) != 1 or (node.op == "Sub" and masks[0] is node.inputs[0]):
        return None
    values = kinds[masks[0].name].values or ()
    number = max(values, key=abs, default=0.0)
    if len(values) != 2 or 0.0 not in values or abs(number) < LARGEST:
        return None
    condition = _condition(masks[0], number, kinds)
    return None if condition is None else (condition, -number if node.op == "Sub" else number)


def _condition(tensor: Tensor, there: float, kinds: Mapping[str, Value]) -> _Condition | None:
    """Where ``tensor``, one of two numbers, is ``there``: told by the small numbers or the condition behind it."""
    while (step := _scaled(tensor, there, kinds)) is not None:
        tensor, there = step
    node, values = producer(tensor), kinds[tensor.name].values or ()
    if node is not None and node.op == "Where":
        branches = [constant_of(each) for each in node.inputs[1:]]
        if all(branch is not None and branch.size == 1 for branch in branches):
            chosen = float(np.reshape(branches[0], ())) == there  # type: ignore[arg-type]
            return _Condition(node.inputs[0], kinds, chosen=chosen)
    if len(values) != 2 or max(map(abs, values)) > SMALL:
        return None
    return _Condition(tensor, kinds, "Greater" if there == values[1] else "Less", sum(values) / 2)


def _scaled(tensor: Tensor, there: float, kinds: Mapping[str, Value]) -> tuple[Tensor, float] | None:
    """The operand of a sum or product with a scalar, and its value where the result is ``there``."""
    node = producer(tensor)
    if node is None or node.op not in _FUNCTIONS:
        return None
    constants = [constant_of(each) for each in node.inputs]
    operands = [each for each, value in zip(node.inputs, constants, strict=True) if value is None]
    if len(operands) != 1 or any(value is not None and value.size != 1 for value in constants):
        return None
    values = kinds[operands[0].name].values or ()
    for value in values if len(values) == 2 else ():
        numbers = [np.float64(value if each is None else each.reshape(())) for each in constants]
        if np.isclose(np.float32(_FUNCTIONS[node.op](*numbers)), np.float32(there), rtol=1e-6, atol=0):
            return operands[0], value
    return None


def _own(graph: Graph, nodes: list[Node], output: Tensor) -> bool:
    """Let an output have the nodes that lead to it for itself; False where it has."""
    inside = {id(node) for node in nodes}
    inner = [tensor for node in nodes for tensor in node.outputs if tensor is not output]
    if not consumers(output) and all(
        not is_output(graph, tensor) and all(id(reader) in inside for reader in consumers(tensor)) for tensor in inner
    ):
        return False
    taken, copies = names_in(graph), dict[int, Tensor]()
    for node in reversed(nodes):
        results = [
            Variable(unique_name(taken, f"{tensor.name}_filled"), dtype=tensor.dtype, shape=tensor.shape)
            for tensor in node.outputs
        ]
        inputs = [copies.get(id(tensor), tensor) for tensor in node.inputs]
        name = unique_name(taken, f"{node.name}_filled")
        graph.nodes.append(Node(node.op, name, dict(node.attrs), inputs, results, domain=node.domain))
        copies |= {id(tensor): copy for tensor, copy in zip(node.outputs, results, strict=True)}
    copy = copies[id(output)]
    output.name, copy.name = copy.name, output.name
    graph.outputs = [copy if tensor is output else tensor for tensor in graph.outputs]
    return True


def _make_constant(graph: Graph, node: Node, kinds: Mapping[str, Value]) -> bool:
    """Make the fills of a node constants; False where they are."""
    if node.op in ADDING:
        added = _added(node, kinds)
        if added is not None:
            _choose(graph, node, *added)
        return added is not None
    computed = [slot for slot in filling_operands(node, kinds) if constant_of(node.inputs[slot]) is None]
    written = [slot for slot in computed if not _is_expanded(node.inputs[slot])]
    for slot in written if node.op == "Concat" else []:
        number = _number(node.inputs[slot], kinds)
        if number is not None:
            node.inputs[slot] = _expanded(graph, node, node.inputs[slot], number)
    return bool(written)


def _is_expanded(tensor: Tensor) -> bool:
    node = producer(tensor)
    alone = node is not None and node.op == "Expand" and len(consumers(tensor)) == 1
    return node is not None and alone and constant_of(node.inputs[0]) is not None


def _constant(graph: Graph, number: float) -> Tensor:
    return Constant(unique_name(names_in(graph), "fill"), np.asarray(number, np.float32))


def _expanded(graph: Graph, node: Node, tensor: Tensor, number: float) -> Tensor:
    """``number`` in the shape of ``tensor``, in front of ``node``."""
    taken = names_in(graph)
    result = Variable(unique_name(taken, f"{tensor.name}_filled"), dtype=tensor.dtype, shape=tensor.shape)
    sizes = _sizes(tensor)
    if sizes is None:
        sizes = Variable(unique_name(taken, f"{tensor.name}_shape"), dtype=np.int64, shape=(len(tensor.shape),))
        insert_before(graph, node, Node("Shape", unique_name(taken, "Shape_fill"), {}, [tensor], [sizes]))
    expand = Node("Expand", unique_name(taken, "Expand_fill"), {}, [_constant(graph, number), sizes], [result])
    insert_before(graph, node, expand)
    return result


def _sizes(tensor: Tensor) -> Tensor | None:
    """The shape that a constant was expanded to before scalars were applied to it; None where nobody says."""
    node = producer(tensor)
    if node is None:
        return None
    if node.op == "ConstantOfShape":
        return node.inputs[0]
    if node.op == "Expand":
        value = constant_of(node.inputs[0])
        return node.inputs[1] if value is not None and value.size == 1 else None
    operands = [each for each in node.inputs if constant_of(each) is None]
    scalars = all((value := constant_of(each)) is None or value.size == 1 for each in node.inputs)
    return _sizes(operands[0]) if node.op in ("Add", "Sub", "Mul", "Div") and len(operands) == 1 and scalars else None


def _choose(graph: Graph, node: Node, condition: _Condition, fill: float) -> None:
    """Let an Add or Sub choose the fill where a condition says."""
    taken, tensor = names_in(graph), condition.tensor
    is_there = Variable(unique_name(taken, f"{tensor.name}_there"), dtype=np.bool_, shape=tensor.shape)
    data = selections(node, condition.kinds)[0]
    if condition.op:
        inputs = [tensor, _constant(graph, condition.middle)]
        insert_before(graph, node, Node(condition.op, unique_name(taken, "Compare_fill"), {}, inputs, [is_there]))
        tensor = is_there
    choices = [_constant(graph, fill), data]
    node.op, node.attrs, node.inputs = "Where", {}, [tensor, *(choices if condition.chosen else choices[::-1])]
