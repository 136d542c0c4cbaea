"""Replaces arithmetic on shapes by constants.

Every small integer tensor is inferred symbolically (`qcompiler.shapes.infer`). What is a number becomes a constant.
Arguments that still depend on a symbolic size are rewritten where their operator has a constant form:

    Reshape(x, [B, L, 12, 32])       -> [0, 0, 12, 32]     0 copies the input's own dimension, one -1 takes what is left
    Slice(x, ..., ends = [L])        -> ends = [2^63 - 1]  where L is the sliced dimension
    Expand(x, [B, 1, L])             -> [1, 1, 1]          where x has those sizes already
    Resize(x, sizes = [B, C, 2H, 2W])-> scales = [1, 1, 2, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sympy

from ...graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, Tensor, Variable, constant_of
from ...pass_base import Context, Pass
from ...rewriting.match import is_output, new_constant
from ...shapes.dims import Dim, same
from ...shapes.infer import Inferred, Shape, infer

_LIMIT = 64
"""Elements up to which an inferred value becomes a constant."""


def reshape_form(x: Shape, target: Sequence[Any]) -> list[int] | None:
    """A constant target that gives the sizes ``target``: numbers, 0 for the input's own dimension, one -1."""
    result: list[int] = []
    for index, size in enumerate(target):
        if isinstance(size, int) and size != 0:
            result.append(size)
        elif x is not None and index < len(x) and (size == 0 or same(x[index], size)):
            result.append(0)
        else:
            result.append(-1)
    return result if result.count(-1) <= 1 else None


def _reshape(node: Node, known: Inferred) -> list[int] | None:
    value = known.values.get(node.inputs[1].name)
    if value is None or node.attrs.get("allowzero", 0) or value.items.ndim != 1:
        return None
    return reshape_form(known.shapes.get(node.inputs[0].name), value.ints())


def _expand(node: Node, known: Inferred) -> list[int] | None:
    value, x = known.values.get(node.inputs[1].name), known.shapes.get(node.inputs[0].name)
    if value is None or x is None:
        return None
    target = value.ints()
    own = [1] * max(0, len(target) - len(x)) + list(x)
    own = own[len(own) - len(target) :]
    form = [1 if same(size, have) else size for size, have in zip(target, own, strict=True)]
    return form if all(isinstance(size, int) for size in form) else None


def _slice_ends(node: Node, known: Inferred) -> list[int] | None:
    """Ends that are the sliced dimension itself become 'to the end'; all steps must be positive."""
    value, x = known.values.get(node.inputs[2].name), known.shapes.get(node.inputs[0].name)
    axes, steps = (constant_of(node.inputs[index]) if len(node.inputs) > index else None for index in (3, 4))
    if (
        value is None
        or x is None
        or (steps is not None and np.any(steps <= 0))
        or (steps is None and len(node.inputs) > 4)
    ):
        return None
    if axes is None and len(node.inputs) > 3 and node.inputs[3].name:
        return None
    which = range(len(value.ints())) if axes is None else [int(axis) for axis in axes]
    form = [
        np.iinfo(np.int64).max if same(size, x[axis]) else size for size, axis in zip(value.ints(), which, strict=True)
    ]
    return form if all(isinstance(size, int) for size in form) else None


def _ratio(size: Any, have: Dim) -> float | None:
    ratio = sympy.cancel(sympy.sympify(size) / have)
    return float(ratio) if ratio.is_number and (int(ratio.q) & (int(ratio.q) - 1)) == 0 else None


def _resize_scales(node: Node, known: Inferred) -> list[float] | None:
    value, x = (
        (known.values.get(node.inputs[3].name), known.shapes.get(node.inputs[0].name))
        if len(node.inputs) > 3
        else (None, None)
    )
    if (
        value is None
        or x is None
        or "axes" in node.attrs
        or node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    ):
        return None
    scales = [_ratio(size, have) for size, have in zip(value.ints(), x, strict=True)]
    return None if any(scale is None for scale in scales) else [float(scale or 0) for scale in scales]


_FORMS = {"Reshape": (1, _reshape), "Expand": (1, _expand), "Slice": (2, _slice_ends)}


@dataclass(frozen=True)
class FoldShapes(Pass):
    """Fold shape arithmetic into constants. Declines where an argument has no constant form."""

    name: ClassVar[str] = "fold-shapes"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a value became constant."""
        known = infer(graph)
        changed = False
        for node in list(graph.nodes):
            for tensor in node.outputs:
                changed |= _fold_value(graph, tensor, known)
        for node in graph.nodes:
            if node.domain in STANDARD_DOMAINS:
                changed |= _fold_argument(graph, node, known, ctx)
        return changed


def _fold_value(graph: Graph, tensor: Tensor, known: Inferred) -> bool:
    """Turn a tensor whose elements are all numbers into a constant."""
    value = known.values.get(tensor.name)
    if value is None or not value.is_known or value.items.size > _LIMIT or is_output(graph, tensor):
        return False
    if (
        not isinstance(tensor, Variable)
        or not isinstance(tensor.dtype, np.dtype | type)
        or tensor.inputs[0].op == "Constant"
    ):
        return False
    tensor.inputs.clear()
    tensor.to_constant(value.items.astype(np.dtype(tensor.dtype)))
    return True


def _fold_argument(graph: Graph, node: Node, known: Inferred, ctx: Context) -> bool:
    """Give a node a constant argument in place of a computed one."""
    if node.op == "Resize":
        return _fold_resize(graph, node, known)
    index, form_of = _FORMS.get(node.op, (0, None))
    if form_of is None or constant_of(node.inputs[index]) is not None:
        return False
    form = form_of(node, known)
    if form is None:
        ctx.declined(
            node,
            f"'{node.inputs[index].name}' depends on symbolic sizes in a way that {node.op} cannot hold as a constant",
        )
        return False
    node.inputs[index] = new_constant(
        graph, f"{node.name}_{'ends' if node.op == 'Slice' else 'shape'}", np.asarray(form, np.int64)
    )
    return True


def _fold_resize(graph: Graph, node: Node, known: Inferred) -> bool:
    if len(node.inputs) < 4 or isinstance(node.inputs[3], Constant):
        return False
    scales = _resize_scales(node, known)
    if scales is None:
        return False
    node.inputs[2] = new_constant(graph, f"{node.name}_scales", np.asarray(scales, np.float32))
    del node.inputs[3]
    return True
