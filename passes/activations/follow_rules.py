"""Does what the user's rules say of single nodes: stay float, read 16 bits, have weights on another grid.

It runs where grids of activations and weights are there and levels are not yet chosen. A node that is skipped reads the
float tensors in front of its pairs; the pairs stay for others that read them. The grid of a layer's weight goes to
``ctx.grids``, where `reconstruct-layers` and `round-weights` find it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from ...activations.int16 import gemm_slots, wide_spec, widen
from ...calibration.sensitivity import Pair, activation_units, find_pairs
from ...errors import OptionError, suggestion
from ...graph.ir import Graph, Node, names_in, producer, read_spec
from ...graph.layers import find_layers
from ...grids.named import grid_named
from ...layer_rules import LayerRule
from ...pass_base import Context, Pass
from .widen_activations import refusal

SKIPPED = "a rule of the user's keeps it float"


def matching(rule: LayerRule, graph: Graph) -> list[Node]:
    """The nodes that a rule is for. Raises OptionError where there is none."""
    names = [node for node in graph.nodes if fnmatchcase(node.name, rule.name)]
    found = [node for node in names if rule.op in ("", node.op)]
    if not found:
        near = suggestion(rule.name, [node.name for node in graph.nodes]) if not names else ""
        ops = suggestion(rule.op, sorted({node.op for node in graph.nodes})) if names else ""
        raise OptionError(f"rule {rule}: matches no node of the model{near or ops}; --print-after all lists them")
    return found


@dataclass(frozen=True)
class FollowRules(Pass):
    """Rules by name or operator.

    Attributes:
        rules: in their order; of two grids for a layer the later one counts.
    """

    name: ClassVar[str] = "follow-rules"
    rules: tuple[LayerRule, ...] = ()

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Follow every rule; True when the graph has changed. Raises OptionError for a rule that cannot be followed."""
        changed = False
        for rule, nodes in [(rule, matching(rule, graph)) for rule in self.rules]:
            if rule.grid:
                _set_grids(rule, nodes, graph, ctx)
            if rule.int16:
                changed |= _widen(rule, nodes, graph, ctx)
            for node in nodes if rule.skip else ():
                changed |= _skip(node, ctx)
        return changed


def _set_grids(rule: LayerRule, nodes: Sequence[Node], graph: Graph, ctx: Context) -> None:
    layers = {layer.node.name for layer in find_layers(graph)}
    chosen = [node.name for node in nodes if node.name in layers]
    if not chosen:
        raise OptionError(f"rule {rule}: matches no layer with stored weights, so there is nothing to put on a grid")
    ctx.grids |= dict.fromkeys(chosen, grid_named(rule.grid))


def _skip(node: Node, ctx: Context) -> bool:
    """Let ``node`` read what lies in front of its pairs; True where it read one."""
    changed = False
    for index, tensor in enumerate(node.inputs):
        dequantize = producer(tensor)
        quantize = producer(dequantize.inputs[0]) if dequantize and dequantize.op == "DequantizeLinear" else None
        if quantize is not None and quantize.op == "QuantizeLinear":
            node.inputs[index] = quantize.inputs[0]
            changed = True
    if changed:
        ctx.left_float(node, SKIPPED)
    return changed


def _widen(rule: LayerRule, nodes: Sequence[Node], graph: Graph, ctx: Context) -> bool:
    """16 bits for what the nodes read, with all tensors that share the grid; what cannot have them is warned of."""
    layers, taken, changed = {id(layer.node): layer for layer in find_layers(graph)}, names_in(graph), False
    wanted = {id(tensor) for node in nodes for tensor in node.inputs}
    for unit in activation_units(graph, find_pairs(graph)):
        spec = read_spec(unit[0].quantize)
        if spec is None or spec.dtype != np.uint8 or not _is_read(unit, wanted):
            continue
        wide = wide_spec(spec, producer(unit[0].quantize.inputs[0]))
        slots = gemm_slots([pair.dequantize.outputs[0] for pair in unit])
        reason = refusal(slots, layers, float(wide.scale))
        if reason is not None:
            ctx.warn(f"rule {rule}: '{unit[0].name}' stays at 8 bits: {reason}")
            continue
        widen(unit, slots, layers, taken)
        changed = True
    return changed


def _is_read(unit: Sequence[Pair], wanted: Collection[int]) -> bool:
    return any(id(pair.dequantize.outputs[0]) in wanted for pair in unit)
