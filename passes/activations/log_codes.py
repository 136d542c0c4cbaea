"""Codes of logarithms where a relative precision is needed over decades: for the machine.

Where a logarithm, a quotient, a root or a reciprocal power reads values whose small ones even steps lose
(`activations.relative_need`), what these are computed from is written in logarithms (`rewriting.log_forms`), back to
the layers:

- ``log x`` is its logarithm as it comes;
- ``a / x``, and ``a`` times a reciprocal power of ``x``, are ``sign(a) exp(log|a| - log x)``;
- a root of ``x`` (the magnitude of a spectrum) is ``exp(log x / 2)``.

Where 8 even bits lose them and 16 do not, there are 16. Logarithms are taken of 16-bit codes. Where only a few layers
lie between them and the inputs (a Fourier transform, a projection), these get inputs of 16 bits and weights of 16 bits
(`activations.fine_layers`), and their channels grids of their own: noise of 8-bit weights and of the loudest channel
would drown small values before a logarithm is taken. An ``.onnx`` file leaves the same parts float
(`graph.float_zones`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...activations.fine_layers import refine_layers
from ...activations.relative_need import lost_operands, needs_relative, relative_operand, root_of
from ...calibration.collect import collect_ranges
from ...feeds.sources import feeds_of
from ...graph.float_zones import behind
from ...graph.ir import (
    Feed,
    Graph,
    Node,
    Tensor,
    constant_of,
    consumers,
    is_float,
    names_in,
    producer,
    replace_uses,
)
from ...graph.layers import Layer, find_layers
from ...graph.operators import LAYERS, NORMS, UNARIES
from ...graph.ranges import Range
from ...graph.runner import Runner
from ...pass_base import Context, Pass
from ...rewriting.log_forms import LogForms
from ...rewriting.log_rules import log_forms
from ...shapes.infer import annotate

_OPSET = 20
"""The oldest opset whose forms the logarithms have; the importer moves almost every model beyond it."""

QUIET = 1e-5
"""Least size of a channel relative to the largest one."""


@dataclass(frozen=True)
class LogCodes(Pass):
    """Logarithms in the place of what needs a relative precision."""

    name: ClassVar[str] = "log-codes"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an operand is written in logarithms."""
        if graph.opset < _OPSET or not any(needs_relative(node) for node in graph.nodes):
            return False
        data = feeds_of(graph, ctx)
        found = lost_operands(graph, data)
        _widen(graph, found.bytes, ctx)
        lost = found.words
        if not lost:
            return False
        forms = log_forms(graph, names_in(graph), _extents(graph, data), _channel_sizes(graph, data))
        changed = [_rewrite(graph, node, forms, lost) for node in list(graph.nodes)]
        if not any(changed):
            return False
        _replace_rest(graph, forms, lost)
        graph.cleanup(remove_unused_graph_inputs=False).toposort()
        refined = refine_layers(graph, _front_layers(forms), names_in(graph))
        annotate(graph)
        _mark(graph, forms, ctx)
        ctx.wide |= {tensor.name for tensor in refined}
        return True


def _widen(graph: Graph, lost: set[int], ctx: Context) -> None:
    """Ask for 16 bits where 8 lose small values, and behind that for what few layers compute from the inputs."""
    for node in graph.nodes:
        if not any(id(tensor) in lost for tensor in node.inputs):
            continue
        chain, layers, is_front = behind(*node.inputs)
        if node.op in NORMS and not is_front:
            continue
        for each in graph.nodes:
            if id(each) in chain or (is_front and id(each) in layers):
                ctx.wide |= {tensor.name for tensor in (*each.inputs[:1], *each.outputs)}


def _extents(graph: Graph, data: Iterable[Feed]) -> Mapping[str, Range]:
    """Ranges of all float tensors."""
    tensors: dict[int, Tensor] = {}
    for node in graph.nodes:
        for tensor in (*node.inputs, *node.outputs):
            if is_float(tensor) and constant_of(tensor) is None and tensor.name:
                tensors[id(tensor)] = tensor
    names = [tensor.name for tensor in tensors.values()]
    return collect_ranges(graph, names, data).ranges


def _channel_sizes(graph: Graph, data: Iterable[Feed]) -> dict[str, NDArray[np.float64]]:
    """By output of a layer that only a few layers precede, what its channels are divided by: half-way, in logarithms,
    between the largest magnitude of each and that of all, so that a channel may become much louder than it was seen.
    """
    layers = [layer for layer in find_layers(graph) if layer.node.op != "ConvTranspose" and _is_front(layer)]
    axes = {layer.node.outputs[0].name: 1 if layer.node.op == "Conv" else -1 for layer in layers}
    found: dict[str, NDArray[np.float64]] = {}
    runner = Runner(graph, list(axes)) if axes else None
    for feed in data if runner is not None else ():
        for name, values in runner.run(feed).items() if runner is not None else ():
            rows = np.abs(np.moveaxis(np.asarray(values, np.float64), axes[name], 0))
            largest = rows.reshape(rows.shape[0], -1).max(axis=1, initial=0.0)
            found[name] = np.maximum(largest, found.get(name, largest))
    largest = {name: max(float(sizes.max(initial=0.0)), 1e-30) for name, sizes in found.items()}
    return {name: np.sqrt(np.maximum(sizes / largest[name], QUIET)) * largest[name] for name, sizes in found.items()}


def _is_front(layer: Layer) -> bool:
    _, _, is_front = behind(layer.node.outputs[0])
    biases = layer.node.inputs[2:]
    return is_front and all(constant_of(bias) is not None for bias in biases)


def _rewrite(graph: Graph, node: Node, forms: LogForms, lost: set[int]) -> bool:
    """Let a node's readers read what logarithms give; a reciprocal hands its need on."""
    if root_of(node) is not None and id(node.inputs[0]) in lost:
        form = forms.derived(node.outputs[0])
        return form is not None and _replace(graph, node, forms, lost, forms.op("Exp", form))
    operand = relative_operand(node)
    if node.op == "Mul":
        slot = next((slot for slot in (1, 0) if id(node.inputs[slot]) in lost and producer(node.inputs[slot])), None)
        reciprocal = None if slot is None else node.inputs[slot]
        if slot is None or reciprocal is None or not _is_reciprocal(reciprocal):
            return False
        return _replace(graph, node, forms, lost, _scaled(forms, node.inputs[1 - slot], forms.of(reciprocal)))
    form = forms.of(operand) if operand is not None and id(operand) in lost else None
    if form is None:
        return False
    if node.op == "Log":
        return _replace(graph, node, forms, lost, form)
    if node.op == "Div" and constant_of(node.inputs[0]) is None:
        return _replace(graph, node, forms, lost, _scaled(forms, node.inputs[0], forms.times(form, -1.0)))
    if forms.of(node.outputs[0]) is not None:
        lost.add(id(node.outputs[0]))
    return True


def _is_reciprocal(tensor: Tensor) -> bool:
    node = producer(tensor)
    return node is not None and (node.op == "Div" or relative_operand(node) is not None) and node.op != "Log"


def _scaled(forms: LogForms, tensor: Tensor, form: Tensor | None) -> Tensor | None:
    """A tensor times what a logarithm stands for."""
    if form is None:
        return None
    own = forms.of(tensor)
    power = forms.op("Exp", forms.op("Add", forms.magnitude(tensor), form))
    return power if own is not None else forms.op("Mul", forms.sign(tensor), power)


def _replace(graph: Graph, node: Node, forms: LogForms, lost: set[int], tensor: Tensor | None) -> bool:
    if tensor is None:
        return False
    output = node.outputs[0]
    writers = {id(node) for node in forms.written}
    if id(producer(tensor)) not in writers or any(tensor is each for each in graph.outputs):
        tensor = forms.op("Identity", tensor)
    forms.take_extent(tensor, output)
    tensor.shape = output.shape
    replace_uses(graph, output, tensor)
    lost |= {id(tensor)} if id(output) in lost else set()
    if any(tensor is each for each in graph.outputs):
        tensor.name, output.name = output.name, f"{output.name}_even"
    return True


def _replace_rest(graph: Graph, forms: LogForms, lost: set[int]) -> None:
    """Reciprocals that others than products read."""
    own = {id(node) for node in forms.written}
    for node in [node for node in graph.nodes if id(node) not in own and node.outputs]:
        output = node.outputs[0]
        if id(output) not in lost or not _is_reciprocal(output):
            continue
        form = forms.derived(output)
        if form is not None and (consumers(output) or any(output is each for each in graph.outputs)):
            _replace(graph, node, forms, lost, forms.op("Exp", form))


def _front_layers(forms: LogForms) -> set[int]:
    """Ids of the layers between the inputs and the codes of which logarithms are taken, where these are a front end."""
    found: set[int] = set()
    for tensor in forms.entries:
        _, layers, is_front = behind(tensor)
        found |= layers if is_front else set()
    return found


def _mark(graph: Graph, forms: LogForms, ctx: Context) -> None:
    """Tell which tensors need 16 bits, and which lie inside a function of one element and have no grid."""
    own = {id(node) for node in forms.written}
    written = [node for node in graph.nodes if id(node) in own]
    ctx.inner |= {node.outputs[0].name for node in written if _is_inside(graph, node, own)}
    ctx.wide |= {tensor.name for node in written for tensor in node.outputs} | {each.name for each in forms.entries}
    ctx.steps |= forms.steps
    for tensor in forms.entries:
        _, layers, is_front = behind(tensor)
        nodes = [node for node in graph.nodes if is_front and id(node) in layers]
        ctx.wide |= {each.name for node in nodes for each in (node.inputs[0], node.outputs[0])}


def _is_inside(graph: Graph, node: Node, own: set[int]) -> bool:
    """True for a result that one function of a chain hands to the next, or that a positive factor follows."""
    output = node.outputs[0]
    readers = consumers(output)
    if len(readers) != 1 or id(readers[0]) not in own or any(output is each for each in graph.outputs):
        return False
    return _is_function(readers[0]) and (_is_function(node) or _is_factor(readers[0]))


def _is_function(node: Node) -> bool:
    """True for a function of one element, numbers beside it or not."""
    varying = [tensor for tensor in node.inputs if constant_of(tensor) is None]
    numbers = [constant_of(tensor) for tensor in node.inputs]
    single = len(varying) == 1 and all(number is None or number.size == 1 for number in numbers)
    return single and (node.op in UNARIES or node.op in ("Add", "Sub", "Mul", "Div", "Max", "Min"))


def _is_factor(node: Node) -> bool:
    numbers = [number for tensor in node.inputs if (number := constant_of(tensor)) is not None]
    return node.op == "Mul" and bool(numbers) and float(numbers[0].reshape(-1)[0]) > 0 and node.op not in LAYERS
