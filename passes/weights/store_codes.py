"""Replaces float constants behind QuantizeLinear by integer codes, and biases of quantized layers by int32 codes.

``Q(constant) -> DQ`` becomes ``codes -> DQ``; a bias becomes int32 behind a DequantizeLinear of scale ``scale_x *
scale_w[c]``, so that it adds to the accumulator as it stands. After this pass the graph is of stage QUANTIZED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph.ir import (
    Constant,
    Graph,
    QuantSpec,
    Stage,
    dequantize_constant,
    names_in,
    read_spec,
    spec_of,
    unique_name,
)
from ...graph.layers import Layer, bias_constant, find_layers
from ...pass_base import Context, Pass


def _store_weights(graph: Graph, taken: set[str]) -> bool:
    """Codes instead of QuantizeLinear over constants; equal ones are stored once."""
    stored: dict[tuple[Any, ...], Constant] = {}
    changed = False
    for node in graph.nodes:
        source = node.inputs[0] if node.op == "QuantizeLinear" else None
        spec = read_spec(node) if isinstance(source, Constant) else None
        if source is None or spec is None:
            continue
        key = (id(source), spec.dtype, spec.axis, spec.scale.tobytes(), spec.zero_point.tobytes())
        if key not in stored:
            stored[key] = Constant(
                unique_name(taken, f"{source.name}_codes"), np.asarray(spec.quantize(np.asarray(source.values)))
            )
        for reader in list(node.outputs[0].outputs):
            reader.inputs[0] = stored[key]
        node.outputs.clear()
        changed = True
    return changed


def bias_codes(bias: NDArray[Any], spec: QuantSpec) -> NDArray[np.int32]:
    """int32 codes of a bias [C] on the grid of its accumulator."""
    steps = np.rint(bias.astype(np.float64) / spec.scale.astype(np.float64))
    return np.clip(steps, -(2**31) + 1, 2**31 - 1).astype(np.int32)


def _store_bias(graph: Graph, layer: Layer, taken: set[str]) -> bool:
    bias, input_spec, weight = bias_constant(layer), spec_of(layer.node.inputs[0]), spec_of(layer.weight)
    if layer.bias_node is None or bias is None or bias.dtype != np.float32 or input_spec is None or weight is None:
        return False
    channels = weight.scale.size
    groups = int(layer.node.attrs.get("group", 1)) if layer.node.op == "ConvTranspose" else 1
    scale = np.tile(input_spec.scale * weight.scale.reshape(-1), groups).astype(np.float32)
    values = np.broadcast_to(np.asarray(bias.values).reshape(-1), (channels * groups,))
    spec = QuantSpec(scale, np.zeros(scale.shape, np.int32), np.dtype(np.int32), 0)
    layer.bias_node.inputs[layer.bias_slot] = dequantize_constant(
        graph, bias.name, bias_codes(values, spec), spec, taken
    )
    return True


@dataclass(frozen=True)
class StoreCodes(Pass):
    """Constants become integer codes, biases int32 in steps of their accumulator."""

    name: ClassVar[str] = "store-codes"
    ensures: ClassVar[Stage] = Stage.QUANTIZED

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the constants; True when there was one behind a QuantizeLinear."""
        taken = names_in(graph)
        changed = [_store_bias(graph, layer, taken) for layer in list(find_layers(graph))]
        changed.append(_store_weights(graph, taken))
        graph.cleanup(remove_unused_graph_inputs=False).toposort()
        return any(changed)
