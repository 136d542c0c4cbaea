"""What operators that move elements do to a transformation of channels."""

from __future__ import annotations

import numpy as np

from qcompiler.equivalence.axes import Index, aligned, moved_by_reshape, moved_by_transpose
from qcompiler.equivalence.visit import Effect, End, Link, Visit, no_effect, same_layout, stays
from qcompiler.graph.ir import Tensor, constant_of


def transpose(visit: Visit) -> Effect:
    """Transpose: the channels' axis moves along."""
    rank = len(visit.shape(visit.tensor) or ())
    permutation = visit.node.attrs.get("perm", list(range(rank))[::-1])
    return Effect(
        (Link(visit.other_side, moved_by_transpose(visit.layout, permutation, backward=visit.is_output)),), shifts=True
    )


def reshape(visit: Visit) -> Effect:
    """Reshape and its kin: the channels keep their order, or the rule gives up."""
    before, after = visit.shape(visit.tensor), visit.shape(visit.other_side)
    if (not visit.is_output and visit.slots != [0]) or before is None or after is None:
        return no_effect(f"where the {visit.node.op} puts the channels is unknown")
    moved = moved_by_reshape(visit.layout, before, after)
    if moved is None:
        return no_effect(f"the {visit.node.op} mixes the channels with another axis")
    return Effect(
        (Link(visit.other_side, moved.layout, moved.source),),
        block=None if moved.source is None else 1,
        shifts=moved.source is None,
    )


def _axes_of(visit: Visit, slot: int) -> set[int] | None:
    """The axes that a Slice or Pad names; all where it names none, None where they are not constant."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    if len(node.inputs) <= slot or not node.inputs[slot].name:
        return set(range(rank))
    axes = constant_of(node.inputs[slot])
    return None if axes is None else {int(axis) % max(rank, 1) for axis in np.reshape(axes, -1)}


def cut(visit: Visit) -> Effect:
    """Along other axes. The slice of a constant is a constant, too."""
    axes, source = _axes_of(visit, 3), constant_of(visit.node.inputs[0])
    if axes is None or axes & set(visit.layout):
        return no_effect("the Slice takes some of the channels")
    return (
        Effect(ends=(End(visit.node, "table", 0, True),), shifts=True)
        if source is not None
        else same_layout(visit, block=None)
    )


def pad(visit: Visit) -> Effect:
    """Pad: the channels stay, unless a constant is added on their axis or beside them."""
    node, axes = visit.node, _axes_of(visit, 3)
    pads = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    value = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    if (
        axes is None
        or pads is None
        or (node.attrs.get("mode", "constant") == "constant" and (value is None or np.any(value)))
    ):
        return no_effect("the Pad writes something else than 0")
    padded = {axis for axis, pair in zip(sorted(axes), np.reshape(pads, (2, -1)).T, strict=True) if np.any(pair)}
    return no_effect("the Pad adds channels") if padded & set(visit.layout) else same_layout(visit, block=None)


def resize(visit: Visit) -> Effect:
    """Along other axes."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axes = [int(axis) % max(rank, 1) for axis in node.attrs.get("axes", range(rank))]
    scales, sizes = (
        constant_of(node.inputs[slot]) if len(node.inputs) > slot and node.inputs[slot].name else None
        for slot in (2, 3)
    )
    stretched = (
        {axis for axis, scale in zip(axes, np.reshape(scales, -1), strict=True) if scale != 1}
        if scales is not None
        else set()
    )
    exact = scales is not None or (
        sizes is not None and node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    )
    if (
        not exact
        or stretched & set(visit.layout)
        or node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    ):
        return no_effect("the Resize may change the channels")
    return same_layout(visit, block=None)


def expand(visit: Visit) -> Effect:
    """Expand of other axes than the channels'."""
    rank, other = len(visit.shape(visit.tensor) or ()), len(visit.shape(visit.other_side) or ())
    layout = aligned(visit.layout, rank, other)
    if (
        layout is None
        or visit.sizes(visit.other_side, layout) != visit.own_sizes
        or (not visit.is_output and visit.slots != [0])
    ):
        return no_effect(f"the {visit.node.op} repeats the channels")
    return Effect((Link(visit.other_side, layout),))


def concat(visit: Visit) -> Effect:
    """Along another axis the parts are scaled alike; along the channels each part brings its own."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axis = int(node.attrs["axis"]) % max(rank, 1)
    if axis not in visit.layout:
        others = [tensor for tensor in (*node.inputs, *node.outputs) if tensor is not visit.tensor]
        if any(
            constant_of(tensor) is not None or visit.sizes(tensor, visit.layout) != visit.own_sizes for tensor in others
        ):
            return no_effect("the Concat joins a constant, or another number of channels")
        return Effect(tuple(Link(tensor, visit.layout) for tensor in others), shifts=True)
    parts = [visit.sizes(tensor, visit.layout) for tensor in node.inputs]
    if visit.layout != (axis,) or any(part is None for part in parts):
        return no_effect("the Concat puts channels of unknown number together")
    ends = np.cumsum([part[0] for part in parts if part is not None])
    return _parts(visit, node.outputs[0], list(node.inputs), [int(end) for end in ends])


def split(visit: Visit) -> Effect:
    """Split: parts of the channels to each output."""
    node, rank = visit.node, len(visit.shape(visit.tensor) or ())
    axis = int(node.attrs.get("axis", 0)) % max(rank, 1)
    if axis not in visit.layout:
        others = [tensor for tensor in (node.inputs[0], *node.outputs) if tensor is not visit.tensor]
        return Effect(tuple(Link(tensor, visit.layout) for tensor in others), shifts=True)
    parts = [visit.sizes(tensor, visit.layout) for tensor in node.outputs]
    if visit.layout != (axis,) or any(part is None for part in parts):
        return no_effect("the Split takes channels of unknown number")
    ends = np.cumsum([part[0] for part in parts if part is not None])
    return _parts(visit, node.inputs[0], list(node.outputs), [int(end) for end in ends])


def _parts(visit: Visit, whole: Tensor, parts: list[Tensor], ends: list[int]) -> Effect:
    """Links between a tensor and the parts that its channels consist of."""
    starts = [0, *ends[:-1]]
    if any(constant_of(part) is not None for part in parts):
        return no_effect("one of the parts is a constant")
    if visit.tensor is whole:
        return Effect(tuple(
            Link(part, visit.layout, here=np.arange(start, end), source=np.arange(start, end))
            for part, start, end in zip(parts, starts, ends, strict=True)
        ), block=1)  # fmt: skip
    places = [k for k, part in enumerate(parts) if part is visit.tensor]
    return Effect(
        tuple(Link(whole, visit.layout, source=_inside(starts[k], ends[k], ends[-1])) for k in places), block=1
    )


def _inside(start: int, end: int, total: int) -> Index:
    """For each of ``total`` channels its number within a part; -1 outside."""
    source = np.full(total, -1, np.int64)
    source[start:end] = np.arange(end - start)
    return source


def gather(visit: Visit) -> Effect:
    """Rows picked from a table."""
    node = visit.node
    table, picked = (
        constant_of(node.inputs[0]),
        len(visit.shape(node.inputs[1]) or ()) if visit.shape(node.inputs[1]) is not None else None,
    )
    if (
        table is None
        or not visit.is_output
        or int(node.attrs.get("axis", 0)) != 0
        or picked is None
        or min(visit.layout) < picked
    ):
        return stays(visit)
    return Effect(ends=(End(node, "table", 0, True),), block=None, shifts=True)
