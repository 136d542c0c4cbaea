"""What each operator does to a tensor whose channels are scaled, shifted or mixed.

A rule is asked about one node and one of its tensors, whose channels have a layout. Its answer names the other tensors that are scaled along
(*links*), the constants that can take the scale (*ends*), or why the channels must stay as they are (*frozen*).

    homogeneous    f(m x) = m f(x), m > 0      Relu, LeakyRelu, PRelu, MaxPool, ReduceMax        positive diagonal only (block = 1)
    linear         f(M x) = M f(x)             movement, Add, AveragePool, ReduceMean, Resize    any matrix
    product        (m x) g = m (x g)           Mul with a tensor that stays, Div by one          diagonal
    contraction    Q K^T = (M Q) (M^-T K)^T    MatMul of two activations                         a matrix a head, the inverse on the other side

A Clip keeps its bounds: they are scaled with the channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcompiler.equivalence.axes import Index, aligned, moved_by_reshape, moved_by_transpose
from qcompiler.equivalence.visit import Effect, End, Link, Visit
from qcompiler.graph.ir import STANDARD_DOMAINS, Tensor, constant_of, producer

__all__ = ["apply_rule"]

Rule = Callable[[Visit], Effect]


def _no(reason: str) -> Effect:
    return Effect(frozen=reason)


def _stays(visit: Visit) -> Effect:
    return _no(f"{visit.node.op} does not commute with a scaling of channels")


def _same_layout(visit: Visit, *, block: int | None, shifts: bool = False) -> Effect:
    """Input 0 and output 0, channel by channel."""
    node = visit.node
    if not visit.is_output and visit.slots != [0]:
        return _stays(visit)
    if visit.sizes(visit.other_side, visit.layout) != visit.own_sizes:
        return _no(f"the {node.op} changes the number of channels")
    return Effect((Link(visit.other_side, visit.layout),), block=block, shifts=shifts)


def _identity(visit: Visit) -> Effect:
    return _same_layout(visit, block=None, shifts=True)


def _homogeneous(visit: Visit) -> Effect:
    return _same_layout(visit, block=1)


def _linear(visit: Visit) -> Effect:
    return _same_layout(visit, block=None)


def _pool(visit: Visit) -> Effect:
    if len(visit.node.outputs) > 1 or visit.layout != (1,):
        return _stays(visit)
    return _same_layout(visit, block=1 if "Max" in visit.node.op else None)


def _clip(visit: Visit) -> Effect:
    bounds = [constant_of(tensor) for tensor in visit.node.inputs[1:] if tensor.name]
    if any(value is None or value.size != 1 for value in bounds):
        return _no("the bounds of the Clip are not constant")
    effect = _same_layout(visit, block=1)
    return Effect(effect.links, (End(visit.node, "bounds", 1, True),), effect.frozen, 1) if not visit.is_output else effect


def _prelu(visit: Visit) -> Effect:
    return _homogeneous(visit) if constant_of(visit.node.inputs[1]) is not None else _stays(visit)


def _transpose(visit: Visit) -> Effect:
    rank = len(visit.shape(visit.tensor) or ())
    permutation = visit.node.attrs.get("perm", list(range(rank))[::-1])
    return Effect((Link(visit.other_side, moved_by_transpose(visit.layout, permutation, backward=visit.is_output)),), shifts=True)


def _reshape(visit: Visit) -> Effect:
    before, after = visit.shape(visit.tensor), visit.shape(visit.other_side)
    if (not visit.is_output and visit.slots != [0]) or before is None or after is None:
        return _no(f"where the {visit.node.op} puts the channels is unknown")
    moved = moved_by_reshape(visit.layout, before, after)
    if moved is None:
        return _no(f"the {visit.node.op} mixes the channels with another axis")
    return Effect((Link(visit.other_side, moved.layout, moved.source),), block=None if moved.source is None else 1, shifts=moved.source is None)


def _axes_of(visit: Visit, slot: int) -> set[int] | None:
    """The axes that a Slice or Pad names; all where it names none, None where they are not constant."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    if len(node.inputs) <= slot or not node.inputs[slot].name:
        return set(range(rank))
    axes = constant_of(node.inputs[slot])
    return None if axes is None else {int(axis) % max(rank, 1) for axis in np.reshape(axes, -1)}


def _slice(visit: Visit) -> Effect:
    """Along other axes. The slice of a constant is a constant, too."""
    axes, source = _axes_of(visit, 3), constant_of(visit.node.inputs[0])
    if axes is None or axes & set(visit.layout):
        return _no("the Slice takes some of the channels")
    return Effect(ends=(End(visit.node, "table", 0, True),), shifts=True) if source is not None else _same_layout(visit, block=None)


def _pad(visit: Visit) -> Effect:
    node, axes = visit.node, _axes_of(visit, 3)
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    if axes is None or pads is None or (node.attrs.get("mode", "constant") == "constant" and (value is None or np.any(value))):
        return _no("the Pad writes something else than 0")
    padded = {axis for axis, pair in zip(sorted(axes), np.reshape(pads, (2, -1)).T, strict=True) if np.any(pair)}
    return _no("the Pad adds channels") if padded & set(visit.layout) else _same_layout(visit, block=None)


def _resize(visit: Visit) -> Effect:
    """Along other axes."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axes = [int(axis) % max(rank, 1) for axis in node.attrs.get("axes", range(rank))]
    scales, sizes = (constant_of(node.inputs[slot]) if len(node.inputs) > slot and node.inputs[slot].name else None for slot in (2, 3))
    stretched = {axis for axis, scale in zip(axes, np.reshape(scales, -1), strict=True) if scale != 1} if scales is not None else set()
    exact = scales is not None or (sizes is not None and node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch")
    if not exact or stretched & set(visit.layout) or node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return _no("the Resize may change the channels")
    return _same_layout(visit, block=None)


def _expand(visit: Visit) -> Effect:
    rank, other = len(visit.shape(visit.tensor) or ()), len(visit.shape(visit.other_side) or ())
    layout = aligned(visit.layout, rank, other)
    if layout is None or visit.sizes(visit.other_side, layout) != visit.own_sizes or (not visit.is_output and visit.slots != [0]):
        return _no(f"the {visit.node.op} repeats the channels")
    return Effect((Link(visit.other_side, layout),))


def _reduce(visit: Visit) -> Effect:
    """ReduceMean, ReduceSum, ReduceMax over other axes."""
    node = visit.node
    rank = len(visit.shape(node.inputs[0]) or ())
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1].name else np.asarray(node.attrs.get("axes", range(rank)))
    if axes is None or rank == 0 or not (visit.is_output or visit.slots == [0]):
        return _stays(visit)
    gone = sorted(int(axis) % rank for axis in np.reshape(axes, -1))
    kept = list(range(rank)) if node.attrs.get("keepdims", 1) else [axis for axis in range(rank) if axis not in gone]
    before = tuple(kept[axis] for axis in visit.layout) if visit.is_output else visit.layout
    if set(before) & set(gone):
        return _no(f"the {node.op} adds the channels up")
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
            return _no(f"the {node.op} broadcasts along the channels")
        elif tensor is not visit.tensor:
            links.append(Link(tensor, layout))
    if len(ends) == 2:
        return _stays(visit)
    return Effect(tuple(links), tuple(ends) if visit.is_output else (), shifts=bool(ends) and node.op == "Add")


def _concat(visit: Visit) -> Effect:
    """Along another axis the parts are scaled alike; along the channels each part brings its own."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axis = int(node.attrs["axis"]) % max(rank, 1)
    if axis not in visit.layout:
        others = [tensor for tensor in (*node.inputs, *node.outputs) if tensor is not visit.tensor]
        if any(constant_of(tensor) is not None or visit.sizes(tensor, visit.layout) != visit.own_sizes for tensor in others):
            return _no("the Concat joins a constant, or another number of channels")
        return Effect(tuple(Link(tensor, visit.layout) for tensor in others), shifts=True)
    parts = [visit.sizes(tensor, visit.layout) for tensor in node.inputs]
    if visit.layout != (axis,) or any(part is None for part in parts):
        return _no("the Concat puts channels of unknown number together")
    ends = np.cumsum([part[0] for part in parts if part is not None])
    return _parts(visit, node.outputs[0], list(node.inputs), [int(end) for end in ends])


def _split(visit: Visit) -> Effect:
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axis = int(node.attrs.get("axis", 0)) % max(rank, 1)
    if axis not in visit.layout:
        others = [tensor for tensor in (node.inputs[0], *node.outputs) if tensor is not visit.tensor]
        return Effect(tuple(Link(tensor, visit.layout) for tensor in others), shifts=True)
    parts = [visit.sizes(tensor, visit.layout) for tensor in node.outputs]
    if visit.layout != (axis,) or any(part is None for part in parts):
        return _no("the Split takes channels of unknown number")
    ends = np.cumsum([part[0] for part in parts if part is not None])
    return _parts(visit, node.inputs[0], list(node.outputs), [int(end) for end in ends])


def _parts(visit: Visit, whole: Tensor, parts: list[Tensor], ends: list[int]) -> Effect:
    """Links between a tensor and the parts that its channels consist of."""
    starts = [0, *ends[:-1]]
    if any(constant_of(part) is not None for part in parts):
        return _no("one of the parts is a constant")
    if visit.tensor is whole:
        return Effect(tuple(
            Link(part, visit.layout, here=np.arange(start, end), source=np.arange(start, end))
            for part, start, end in zip(parts, starts, ends, strict=True)
        ), block=1)  # fmt: skip
    places = [k for k, part in enumerate(parts) if part is visit.tensor]
    return Effect(tuple(Link(whole, visit.layout, source=_inside(starts[k], ends[k], ends[-1])) for k in places), block=1)


def _inside(start: int, end: int, total: int) -> Index:
    """For each of ``total`` channels its number within a part; -1 outside."""
    source = np.full(total, -1, np.int64)
    source[start:end] = np.arange(end - start)
    return source


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
    """Mul and Div. A constant factor takes the scale, on either side; of two activations one carries it and the other one stays."""
    node = visit.node
    constants = [slot for slot, tensor in enumerate(node.inputs) if constant_of(tensor) is not None]
    if len(constants) == 1:
        if node.op == "Div" and constants == [0]:
            return _no("it divides")
        other = visit.other_variable
        same_rank = len(visit.shape(other) or ()) == len(visit.shape(visit.tensor) or ())
        if not same_rank or visit.sizes(other, visit.layout) != visit.own_sizes:
            return _no(f"the {node.op} broadcasts along the channels")
        return Effect(ends=(End(node, "factor", constants[0], visit.is_output),), block=1)
    carrier = 0 if node.op == "Div" else _carrier(visit)
    if node.inputs[0] is node.inputs[1] or constants or (not visit.is_output and visit.slots != [carrier]):
        return _no(f"it is a factor of a {node.op}")
    other = node.inputs[carrier] if visit.is_output else node.outputs[0]
    if visit.shape(other) != visit.shape(visit.tensor):
        return _no(f"the {node.op} broadcasts it")
    return Effect((Link(other, visit.layout),), block=1)


def _layer(visit: Visit) -> Effect:
    """Conv, ConvTranspose, Gemm with constant weights."""
    node = visit.node
    weight, bias = constant_of(node.inputs[1]), constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    if weight is None or bias is None or node.attrs.get("transA", 0):
        return _no(f"the weights of the {node.op} are not constant")
    if visit.layout != (1,) or not (visit.is_output or visit.slots == [0]):
        return _no(f"the {node.op} has its channels on another axis")
    group = int(node.attrs.get("group", 1))
    block = (visit.own_sizes or (1,))[0] // group
    padded = any(node.attrs.get("pads") or []) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if visit.is_output and bias.size > 1 and (bias.size, bias.shape[-1]) != (visit.own_sizes or (0,)) * 2:
        return _no(f"the {node.op} adds a matrix, not a bias")
    shifts = visit.is_output or (node.op in ("Conv", "Gemm") and not padded)
    return Effect(ends=(End(node, "weight", 1, visit.is_output),), block=block, shifts=shifts)


def _matmul(visit: Visit) -> Effect:
    node = visit.node
    weight, rank = constant_of(node.inputs[1]), len(visit.shape(visit.tensor) or ())
    if constant_of(node.inputs[0]) is not None or (weight is not None and weight.ndim != 2):
        return _no("the constant operand of the MatMul is not a matrix on the right")
    if weight is None:
        return _activations(visit)
    if visit.layout != (rank - 1,):
        return _no("the MatMul has its channels on another axis")
    return Effect(ends=(End(node, "weight", 1, visit.is_output),), shifts=True)


def _activations(visit: Visit) -> Effect:
    """MatMul of two activations: the free axis goes through; what is scaled along the summed axis is divided on the other side.

    A Softmax on the left averages, so that a shift goes through, too.
    """
    node, layout = visit.node, visit.layout
    tensors = (*node.inputs[:2], node.outputs[0])
    ranks = {len(visit.shape(tensor) or ()) for tensor in tensors}
    if len(ranks) > 1 or 0 in ranks or node.inputs[0] is node.inputs[1]:
        return _no("the MatMul broadcasts its operands")
    rank = ranks.pop()
    batch, last = set(range(rank - 2)), {axis for axis in layout if axis >= rank - 2}
    if any(visit.sizes(tensor, (axis,)) != visit.sizes(visit.tensor, (axis,)) for tensor in tensors for axis in set(layout) & batch):
        return _no("the MatMul broadcasts its operands")
    if len(last) != 1:
        return _no("a MatMul of two activations mixes its channels")
    axis = last.pop()
    block = (visit.sizes(visit.tensor, (axis,)) or (1,))[0] if layout[-1] == axis else 1
    place = -1 if visit.is_output else visit.slots[0]
    free = {-1: axis, 0: rank - 2, 1: rank - 1}[place]
    if axis == free:
        target = node.outputs[0] if place >= 0 else node.inputs[0 if axis == rank - 2 else 1]
        weights = producer(node.inputs[0])
        averages = axis == rank - 1 and weights is not None and weights.op == "Softmax" and int(weights.attrs.get("axis", -1)) % rank == rank - 1
        return Effect((Link(target, layout),), block=block, shifts=averages)
    moved = tuple((rank - 1 if a == rank - 2 else rank - 2) if a == axis else a for a in layout)
    return Effect((Link(node.inputs[1 - place], moved, inverse=True),), block=block)


def _layer_norm(visit: Visit) -> Effect:
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    if not visit.is_output:
        return _no("LayerNormalization compares its channels")
    constants = [constant_of(tensor) for tensor in node.inputs[1:3]]
    if any(value is None for value in constants) or int(node.attrs.get("axis", -1)) % rank != rank - 1 or visit.layout != (rank - 1,):
        return _no("gain or bias of the LayerNormalization are not constant vectors")
    return Effect(ends=(End(node, "norm", 1, True),), block=1, shifts=True)


def _gather(visit: Visit) -> Effect:
    """Rows picked from a table."""
    node = visit.node
    table, picked = constant_of(node.inputs[0]), len(visit.shape(node.inputs[1]) or ()) if visit.shape(node.inputs[1]) is not None else None
    if table is None or not visit.is_output or int(node.attrs.get("axis", 0)) != 0 or picked is None or min(visit.layout) < picked:
        return _stays(visit)
    return Effect(ends=(End(node, "table", 0, True),), block=None, shifts=True)


def _ignored(_visit: Visit) -> Effect:
    return Effect(shifts=True)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    **dict.fromkeys(("Relu", "LeakyRelu"), _homogeneous),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _pool),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduce),
    **dict.fromkeys(("Add", "Sub"), _add), **dict.fromkeys(("Mul", "Div"), _product),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _layer),
    **dict.fromkeys(("Shape", "Size"), _ignored),
    "Neg": _linear, "PRelu": _prelu, "Clip": _clip, "Transpose": _transpose, "Slice": _slice, "Pad": _pad, "Resize": _resize, "Expand": _expand,
    "Concat": _concat, "Split": _split, "MatMul": _matmul, "LayerNormalization": _layer_norm, "Gather": _gather,
}  # fmt: skip


def apply_rule(visit: Visit) -> Effect:
    """What a node does to one of its tensors."""
    rule = RULES.get(visit.node.op) if visit.node.domain in STANDARD_DOMAINS else None
    known = visit.is_output or visit.slots or visit.node.op == "Split"
    return rule(visit) if rule is not None and known else _stays(visit)
