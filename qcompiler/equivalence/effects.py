"""What each operator does to a tensor whose channels are scaled, shifted or mixed.

A rule is asked about one node and one of its tensors, whose channels have a layout. Its answer names the other tensors
that are scaled along (*links*), the constants that can take the scale (*ends*), or why the channels must stay as they
are (*frozen*).

    homogeneous    f(m x) = m f(x), m > 0    Relu, LeakyRelu, PRelu, MaxPool, ReduceMax: positive diagonal (block = 1)
    linear         f(M x) = M f(x)           movement, Add, AveragePool, ReduceMean, Resize: any matrix
    product        (m x) g = m (x g)         Mul with a tensor that stays, Div by one: diagonal
    contraction    Q K^T = (M Q) (M^-T K)^T  MatMul of two activations: a matrix a head, the inverse on the other side

A Clip keeps its bounds: they are scaled with the channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcompiler.equivalence import moves
from qcompiler.equivalence.axes import aligned
from qcompiler.equivalence.visit import Effect, End, Link, Visit, no_effect, same_layout, stays
from qcompiler.graph.ir import STANDARD_DOMAINS, constant_of, producer

__all__ = ["apply_rule"]

Rule = Callable[[Visit], Effect]


def _identity(visit: Visit) -> Effect:
    return same_layout(visit, block=None, shifts=True)


def _homogeneous(visit: Visit) -> Effect:
    return same_layout(visit, block=1)


def _linear(visit: Visit) -> Effect:
    return same_layout(visit, block=None)


def _pool(visit: Visit) -> Effect:
    if len(visit.node.outputs) > 1 or visit.layout != (1,):
        return stays(visit)
    return same_layout(visit, block=1 if "Max" in visit.node.op else None)


def _clip(visit: Visit) -> Effect:
    bounds = [constant_of(tensor) for tensor in visit.node.inputs[1:] if tensor.name]
    if any(value is None or value.size != 1 for value in bounds):
        return no_effect("the bounds of the Clip are not constant")
    effect = same_layout(visit, block=1)
    return (
        Effect(effect.links, (End(visit.node, "bounds", 1, True),), effect.frozen, 1) if not visit.is_output else
        effect
    )


def _prelu(visit: Visit) -> Effect:
    return _homogeneous(visit) if constant_of(visit.node.inputs[1]) is not None else stays(visit)


def _reduce(visit: Visit) -> Effect:
    """ReduceMean, ReduceSum, ReduceMax over other axes."""
    node = visit.node
    rank = len(visit.shape(node.inputs[0]) or ())
    axes = (
        constant_of(node.inputs[1])
        if len(node.inputs) > 1 and node.inputs[1].name
        else np.asarray(node.attrs.get("axes", range(rank)))
    )
    if axes is None or rank == 0 or not (visit.is_output or visit.slots == [0]):
        return stays(visit)
    gone = sorted(int(axis) % rank for axis in np.reshape(axes, -1))
    kept = list(range(rank)) if node.attrs.get("keepdims", 1) else [axis for axis in range(rank) if axis not in gone]
    before = tuple(kept[axis] for axis in visit.layout) if visit.is_output else visit.layout
    if set(before) & set(gone):
        return no_effect(f"the {node.op} adds the channels up")
    there = before if visit.is_output else tuple(kept.index(axis) for axis in before)
    return Effect((Link(visit.other_side, there),), block=1 if node.op in ("ReduceMax", "ReduceMin") else None)


def _add(visit: Visit) -> Effect:
    """Add and Sub: the operands and the sum are scaled alike; a constant operand takes the scale."""
    node = visit.node
    rank, links, ends = len(visit.shape(visit.tensor) or ()), [], []
    for slot, tensor in [*enumerate(node.inputs), (-1, node.outputs[0])]:
        shape = visit.shape(tensor)
        layout = None if shape is None else aligned(visit.layout, rank, len(shape))
        if slot >= 0 and constant_of(tensor) is not None:
            ends.append(End(node, "operand", slot, True))
        elif layout is None or visit.sizes(tensor, layout) != visit.own_sizes:
            return no_effect(f"the {node.op} broadcasts along the channels")
        elif tensor is not visit.tensor:
            links.append(Link(tensor, layout))
    if len(ends) == 2:
        return stays(visit)
    return Effect(tuple(links), tuple(ends) if visit.is_output else (), shifts=bool(ends) and node.op == "Add")


_FUNCTIONS = ("Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Gelu", "HardSwish", "Erf", "Exp", "Sqrt", "Reciprocal")


def _carrier(visit: Visit) -> int:
    """Which operand of a product of two activations carries the scale: the full one, or the one that is not a gate."""
    left, right = visit.node.inputs[:2]
    shapes = [visit.shape(tensor) for tensor in (left, right, visit.node.outputs[0])]
    if shapes[0] != shapes[2] or shapes[1] != shapes[2]:
        return 0 if shapes[0] == shapes[2] else 1
    maker = producer(left)
    return 1 if maker is not None and maker.op in _FUNCTIONS else 0


def _product(visit: Visit) -> Effect:
    """Mul and Div: a constant factor takes the scale; of two activations one carries it and the other stays."""
    node = visit.node
    constants = [slot for slot, tensor in enumerate(node.inputs) if constant_of(tensor) is not None]
    if len(constants) == 1:
        if node.op == "Div" and constants == [0]:
            return no_effect("it divides")
        other = visit.other_variable
        same_rank = len(visit.shape(other) or ()) == len(visit.shape(visit.tensor) or ())
        if not same_rank or visit.sizes(other, visit.layout) != visit.own_sizes:
            return no_effect(f"the {node.op} broadcasts along the channels")
        return Effect(ends=(End(node, "factor", constants[0], visit.is_output),), block=1)
    carrier = 0 if node.op == "Div" else _carrier(visit)
    if node.inputs[0] is node.inputs[1] or constants or (not visit.is_output and visit.slots != [carrier]):
        return no_effect(f"it is a factor of a {node.op}")
    other = node.inputs[carrier] if visit.is_output else node.outputs[0]
    if visit.shape(other) != visit.shape(visit.tensor):
        return no_effect(f"the {node.op} broadcasts it")
    return Effect((Link(other, visit.layout),), block=1)


def _layer(visit: Visit) -> Effect:
    """Conv, ConvTranspose, Gemm with constant weights."""
    node = visit.node
    weight, bias = (
        constant_of(node.inputs[1]),
        constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1),
    )
    if weight is None or bias is None or node.attrs.get("transA", 0):
        return no_effect(f"the weights of the {node.op} are not constant")
    if visit.layout != (1,) or not (visit.is_output or visit.slots == [0]):
        return no_effect(f"the {node.op} has its channels on another axis")
    group = int(node.attrs.get("group", 1))
    block = (visit.own_sizes or (1,))[0] // group
    padded = any(node.attrs.get("pads") or []) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if visit.is_output and bias.size > 1 and (bias.size, bias.shape[-1]) != (visit.own_sizes or (0,)) * 2:
        return no_effect(f"the {node.op} adds a matrix, not a bias")
    shifts = visit.is_output or (node.op in ("Conv", "Gemm") and not padded)
    return Effect(ends=(End(node, "weight", 1, visit.is_output),), block=block, shifts=shifts)


def _matmul(visit: Visit) -> Effect:
    node = visit.node
    weight, rank = constant_of(node.inputs[1]), len(visit.shape(visit.tensor) or ())
    if constant_of(node.inputs[0]) is not None or (weight is not None and weight.ndim != 2):
        return no_effect("the constant operand of the MatMul is not a matrix on the right")
    if weight is None:
        return _activations(visit)
    if visit.layout != (rank - 1,):
        return no_effect("the MatMul has its channels on another axis")
    return Effect(ends=(End(node, "weight", 1, visit.is_output),), shifts=True)


def _activations(visit: Visit) -> Effect:
    """MatMul of two activations: the free axis goes through; a scale along the summed axis is undone on the other side.

    A Softmax on the left averages, so that a shift goes through, too.
    """
    node, layout = visit.node, visit.layout
    tensors = (*node.inputs[:2], node.outputs[0])
    ranks = {len(visit.shape(tensor) or ()) for tensor in tensors}
    if len(ranks) > 1 or 0 in ranks or node.inputs[0] is node.inputs[1]:
        return no_effect("the MatMul broadcasts its operands")
    rank = ranks.pop()
    batch, last = set(range(rank - 2)), {axis for axis in layout if axis >= rank - 2}
    if any(
        visit.sizes(tensor, (axis,)) != visit.sizes(visit.tensor, (axis,))
        for tensor in tensors
        for axis in set(layout) & batch
    ):
        return no_effect("the MatMul broadcasts its operands")
    if len(last) != 1:
        return no_effect("a MatMul of two activations mixes its channels")
    axis = last.pop()
    block = (visit.sizes(visit.tensor, (axis,)) or (1,))[0] if layout[-1] == axis else 1
    place = -1 if visit.is_output else visit.slots[0]
    free = {-1: axis, 0: rank - 2, 1: rank - 1}[place]
    if axis == free:
        target = node.outputs[0] if place >= 0 else node.inputs[0 if axis == rank - 2 else 1]
        weights = producer(node.inputs[0])
        averages = (
            axis == rank - 1
            and weights is not None
            and weights.op == "Softmax"
            and int(weights.attrs.get("axis", -1)) % rank == rank - 1
        )
        return Effect((Link(target, layout),), block=block, shifts=averages)
    moved = tuple((rank - 1 if a == rank - 2 else rank - 2) if a == axis else a for a in layout)
    return Effect((Link(node.inputs[1 - place], moved, inverse=True),), block=block)


def _layer_norm(visit: Visit) -> Effect:
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    if not visit.is_output:
        return no_effect("LayerNormalization compares its channels")
    constants = [constant_of(tensor) for tensor in node.inputs[1:3]]
    if (
        any(value is None for value in constants)
        or int(node.attrs.get("axis", -1)) % rank != rank - 1
        or visit.layout != (rank - 1,)
    ):
        return no_effect("gain or bias of the LayerNormalization are not constant vectors")
    return Effect(ends=(End(node, "norm", 1, True),), block=1, shifts=True)


def _ignored(_visit: Visit) -> Effect:
    return Effect(shifts=True)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    **dict.fromkeys(("Relu", "LeakyRelu"), _homogeneous),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), moves.reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(("Add", "Sub"), _add), **dict.fromkeys(("Mul", "Div"), _product),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _layer),
    **dict.fromkeys(("Shape", "Size"), _ignored),
    "Neg": _linear, "PRelu": _prelu, "Clip": _clip, "Transpose": moves.transpose, "Slice": moves.cut, "Pad": moves.pad,
    "Resize": moves.resize, "Expand": moves.expand,
    "Concat": moves.concat, "Split": moves.split, "MatMul": _matmul,
    "LayerNormalization": _layer_norm, "Gather": moves.gather,
}  # fmt: skip


def apply_rule(visit: Visit) -> Effect:
    """What a node does to one of its tensors."""
    rule = RULES.get(visit.node.op) if visit.node.domain in STANDARD_DOMAINS else None
    known = visit.is_output or visit.slots or visit.node.op == "Split"
    return rule(visit) if rule is not None and known else stays(visit)
