"""16-bit grids: what they are, and where the int32 accumulators of the layers that read them provably hold.

``sum|w| * 2^15 + |bias| < 2^31`` for every output channel of a layer with stored weights; ``depth * |a| * |b| < 2^31``
for a product of two activations, where a row of probabilities sums to what it can sum to. The states that an LSTM or a
GRU begins with are not multiplied as they come, so they take 16 bits whatever the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.activations.pairs import set_grid
from qcompiler.calibration.needed import hold_wide_input
from qcompiler.calibration.sensitivity import Pair
from qcompiler.graph.ir import Node, QuantSpec, Tensor, consumers, producer, quantized_source, read_spec, spec_of
from qcompiler.graph.layers import (
    BIAS_LIMIT,
    Layer,
    bias_constant,
    bias_floor,
    set_weight_scale,
    underlying_constant,
    weight_slots,
)
from qcompiler.graph.operators import LAYERS, RECURRENT
from qcompiler.graph.placement import operand_slots
from qcompiler.lowering.factors import ACCUMULATOR_LIMIT, DYNAMIC_LIMIT

GEMMS = (*LAYERS, *RECURRENT)
CODE_LIMIT = 2.0**15


def wide_spec(spec: QuantSpec, source: Node | None) -> QuantSpec:
    """The int16 grid over the range of a uint8 one."""
    if source is not None and source.op == "Softmax" and spec.same_as(QuantSpec.per_tensor(1 / 255, 0, np.uint8)):
        return QuantSpec.per_tensor(2.0**-15, 0, np.int16)
    return spec.widened()


def gemm_slots(tensors: Sequence[Tensor]) -> list[tuple[Node, int]]:
    """Where GEMMs read one of ``tensors`` as an operand."""
    members = {id(tensor) for tensor in tensors}
    readers = [node for tensor in tensors for node in consumers(tensor) if node.op in GEMMS]
    unique = list({id(node): node for node in readers}.values())
    slots = [(node, slot) for node in unique for slot in operand_slots(node) if id(node.inputs[slot]) in members]
    return [(node, slot) for node, slot in slots if not is_state(node, slot)]


def is_state(node: Node, slot: int) -> bool:
    """True where a recurrent node reads the state that it begins with."""
    return node.op in RECURRENT and slot > 0


def slot_fits(node: Node, slot: int, layers: Mapping[int, Layer], scale: float) -> bool:
    """True when accumulators cannot leave int32 with int16 codes of that scale at a slot of `gemm_slots`."""
    if id(node) in layers:
        return weights_fit(layers[id(node)], scale)
    if node.op in RECURRENT:
        return _sequence_fits(node, scale)
    return node.op == "MatMul" and not weight_slots(node) and products_fit(node, slot)


def _sequence_fits(node: Node, scale: float) -> bool:
    """The same of the sequence that a recurrent node reads: weights [D, gates*H, K], biases [D, 2*gates*H]."""
    stored = underlying_constant(node.inputs[1])
    if stored is None:
        return False
    weight = np.asarray(stored.values, np.float64)
    if not hold_wide_input(weight.reshape(-1, weight.shape[-1])):
        return False
    if len(node.inputs) < 4 or not node.inputs[3].name:
        return True
    both, steps = underlying_constant(node.inputs[3]), np.abs(weight).max(axis=2) / 127 * scale
    return both is not None and bool(np.all(np.abs(both.values[:, : steps.shape[1]]) <= BIAS_LIMIT * steps))


def raised_scale(layer: Layer, input_scale: float) -> QuantSpec | None:
    """The weight's grid with scales large enough that the bias stays within `products.BIAS_LIMIT` steps.

    Only channels whose weights are next to nothing beside their bias are concerned; None for a weight without a grid
    per channel.
    """
    spec, bias = spec_of(layer.weight), bias_constant(layer)
    if spec is None or layer.values.dtype != np.float32:
        return None
    floor = bias_floor(None if bias is None else np.asarray(bias.values), input_scale, spec.scale.size)
    return replace(spec, scale=np.maximum(spec.scale, floor.reshape(spec.scale.shape)).astype(np.float32))


def weights_fit(layer: Layer, input_scale: float) -> bool:
    """True when the layer's accumulator cannot leave int32 with int16 inputs of that scale."""
    spec = raised_scale(layer, input_scale)
    if spec is None:
        return False
    codes = np.abs(spec.quantize(layer.values).astype(np.float64))
    sums = codes.sum(axis=tuple(axis for axis in range(codes.ndim) if axis != layer.axis))
    return bool(np.all(sums * CODE_LIMIT + bias_steps(layer, spec, input_scale) < ACCUMULATOR_LIMIT))


def bias_steps(layer: Layer, spec: QuantSpec, input_scale: float) -> NDArray[np.float64]:
    """Largest bias in steps of the accumulator: [C], or [1] where outputs share a channel's scale."""
    bias = bias_constant(layer)
    if bias is None:
        return np.zeros(1)
    values = np.abs(np.asarray(bias.values, np.float64)).reshape(-1)
    scale = spec.scale.reshape(-1).astype(np.float64)
    return (
        values / (input_scale * scale)
        if values.size == scale.size
        else np.array([values.max() / (input_scale * scale.min())])
    )


def products_fit(node: Node, slot: int) -> bool:
    """True when a MatMul of two activations keeps within int32 with int16 codes at ``slot`` and what the other has.

    Probabilities of a Softmax, ``1 / scale`` steps a row, each rounded by at most half a step, fit over every length
    that the machine takes.
    """
    other, shape = spec_of(node.inputs[1 - slot]), node.inputs[0].shape
    if other is None or not shape:
        return False
    depth = int(shape[-1]) if isinstance(shape[-1], int | np.integer) else None
    magnitudes = [255.0 if other.dtype == np.uint8 else CODE_LIMIT] * 2
    magnitudes[slot] = CODE_LIMIT
    step = _probability_step(node.inputs[0], widened=slot == 0)
    if step is not None:
        return (1 / step + (depth or DYNAMIC_LIMIT) / 2) * magnitudes[1] < ACCUMULATOR_LIMIT
    return depth is not None and depth * magnitudes[0] * magnitudes[1] < ACCUMULATOR_LIMIT


def _probability_step(tensor: Tensor, *, widened: bool) -> float | None:
    """Step of a last-axis Softmax's grid at 16 bits; None for other nodes, or where 0 is no code."""
    codes, spec = quantized_source(tensor), spec_of(tensor)
    quantize = None if codes is None else producer(codes)
    source = None if quantize is None else producer(quantize.inputs[0])
    if spec is None or source is None or source.op != "Softmax":
        return None
    last = int(source.attrs.get("axis", -1)) in (-1, len(tensor.shape or ()) - 1)
    return float((wide_spec(spec, source) if widened else spec).scale) if last and not spec.zero_point.any() else None


def widen(
    pairs: Sequence[Pair], slots: Sequence[tuple[Node, int]], layers: Mapping[int, Layer], taken: set[str]
) -> None:
    """Give pairs on one grid its int16 form, and raise the weight scales that a finer accumulator asks for.

    Args:
        pairs: they share a grid.
        slots: where layers read them.
        layers: those of the graph by id of their node.
        taken: names in the graph.
    """
    spec = read_spec(pairs[0].quantize)
    if spec is None:
        return
    wide = wide_spec(spec, producer(pairs[0].quantize.inputs[0]))
    for pair in pairs:
        set_grid(pair, wide, taken)
    for layer in (layers[id(node)] for node, _ in slots if id(node) in layers):
        raised = raised_scale(layer, float(wide.scale))
        if raised is not None:
            set_weight_scale(layer, raised.scale, taken)
