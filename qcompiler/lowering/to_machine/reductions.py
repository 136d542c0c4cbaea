"""Instructions of pools, reductions, Softmax and the normalizations."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.graph.ir import Node
from qcompiler.lowering.factors import DYNAMIC_COUNT, NORM_LIMIT
from qcompiler.lowering.to_machine.emitter import Emitter, output_fields
from qcompiler.lowering.to_machine.products import geometry
from qcompiler.lowering.to_machine.views import Order, View, channels_last, is_one, product
from qcompiler.runtime.instructions.opcodes import Reduction
from qcompiler.shapes.dims import to_nested


def _as_three(emitter: Emitter, view: View, axes: list[int], node: str) -> tuple[View, Order, dict[str, Any]]:
    """``view`` as [outer, k, inner] with ``axes`` in the middle: a dense view, its order, and the three sizes.

    The elements stay where they are when ``axes`` are neighbours in memory, in ascending order; else they are copied.
    """
    rest = [axis for axis in range(view.rank) if axis not in axes]
    order = view.order
    if order is None or not _adjacent([axis for axis in order if not is_one(view.shape[axis])], axes):
        order = (*rest, *axes)
        view = emitter.in_order(view, order, node)
    wide = [axis for axis in order if not is_one(view.shape[axis])]
    places = [i for i, axis in enumerate(wide) if axis in axes]
    first, last = (places[0], places[-1] + 1) if places else (len(wide), len(wide))
    sizes = [product([view.shape[axis] for axis in part]) for part in (wide[:first], wide[first:last], wide[last:])]
    return view, order, dict(zip(("outer", "k", "inner"), emitter.nested(sizes), strict=True))


def _adjacent(order: list[int], axes: list[int]) -> bool:
    places = [i for i, axis in enumerate(order) if axis in axes]
    found = [order[i] for i in places]
    return found == sorted(found) and (not places or places[-1] - places[0] + 1 == len(places))


def _reduced_result(emitter: Emitter, node: Node, axes: list[int], order: Order, dtype: Any = None) -> View:
    """The buffer of a reduction's result: its kept axes lie as they did in the input."""
    if int(node.attrs["keepdims"]):
        return emitter.new(node.outputs[0], order, dtype)
    kept = [axis for axis in range(len(order)) if axis not in axes]
    return emitter.new(node.outputs[0], tuple(kept.index(axis) for axis in order if axis in kept), dtype)


def emit_reduce(emitter: Emitter, node: Node) -> None:
    """Reduce."""
    axes = [int(axis) for axis in node.attrs["axes"]]
    x, order, sizes = _as_three(emitter, emitter.view(node.inputs[0]), axes, node.name)
    emitter.require_at_most(product([x.shape[axis] for axis in axes]), DYNAMIC_COUNT, node.name)
    y = _reduced_result(emitter, node, axes, order)
    kind = int(Reduction[str(node.attrs["kind"]).upper()])
    fields = {key: int(node.attrs[key]) for key in ("x_zp", "m", "n", "divide")}
    emitter.program.emit(
        "reduce", node=node.name, kind=kind, x=x.handle, y=y.handle, **sizes, **fields, **output_fields(node)
    )


def emit_argmax(emitter: Emitter, node: Node) -> None:
    """ArgMax."""
    axes = [int(node.attrs["axis"])]
    x, order, sizes = _as_three(emitter, emitter.view(node.inputs[0]), axes, node.name)
    y = _reduced_result(emitter, node, axes, order)
    emitter.program.emit(
        "argmax", node=node.name, x=x.handle, y=y.handle, select_last=int(node.attrs["select_last_index"]), **sizes
    )


def emit_topk(emitter: Emitter, node: Node) -> None:
    """TopK: positions alone."""
    axis = int(node.attrs["axis"])
    x, order, sizes = _as_three(emitter, emitter.view(node.inputs[0]), [axis], node.name)
    y = emitter.new(node.outputs[0], order)
    emitter.program.emit(
        "topk", node=node.name, x=x.handle, y=y.handle, count=to_nested(y.shape[axis]),
        smallest=1 - int(node.attrs["largest"]), **sizes,
    )  # fmt: skip


def emit_softmax(emitter: Emitter, node: Node) -> None:
    """Softmax."""
    x, order, sizes = _as_three(emitter, emitter.view(node.inputs[0]), [int(node.attrs["axis"])], node.name)
    y = emitter.new(node.outputs[0], order)
    coarse, middle, fine = (np.asarray(tensor.values) for tensor in node.inputs[1:])
    emitter.program.emit(
        "softmax",
        node=node.name,
        x=x.handle,
        y=y.handle,
        table_coarse=coarse,
        table_middle=middle,
        table_fine=fine,
        m=int(node.attrs["m"]),
        n=int(node.attrs["n"]),
        **sizes,
        **output_fields(node),
    )


def emit_norm(emitter: Emitter, node: Node) -> None:
    """LayerNorm, and InstanceNorm with one pair of parameters a channel."""
    view = emitter.view(node.inputs[0])
    axes = list(range(int(node.attrs["axis"]), view.rank))
    gamma, beta = (np.asarray(tensor.values) for tensor in node.inputs[1:])
    fields: dict[str, Any] = {}
    if node.op == "InstanceNorm":
        fields = {"per_row": 1, "channels": int(gamma.size)}
        rest = tuple(axis for axis in (view.order or ()) if axis not in axes)
        if rest != (0, 1):  # rows must count the channels fastest
            view = emitter.in_order(view, channels_last(view.rank), node.name)
    x, order, sizes = _as_three(emitter, view, axes, node.name)
    emitter.require_at_most(product([x.shape[axis] for axis in axes]), NORM_LIMIT, node.name)
    y = emitter.new(node.outputs[0], order)
    for key in ("epsilon", "epsilon_q", "n"):
        fields[key] = int(node.attrs[key])
    emitter.program.emit(
        "layernorm",
        node=node.name,
        x=x.handle,
        y=y.handle,
        gamma=gamma,
        beta=beta,
        **sizes,
        **fields,
        **output_fields(node),
    )


def emit_max_pool(emitter: Emitter, node: Node) -> None:
    """MaxPool."""
    order = channels_last(len(emitter.shape(node.inputs[0])))
    x = emitter.in_order(emitter.view(node.inputs[0]), order, node.name)
    y = emitter.new(node.outputs[0], order)
    emitter.program.emit("max_pool", node=node.name, x=x.handle, y=y.handle, **geometry(node, x, y))


def emit_average_pool(emitter: Emitter, node: Node) -> None:
    """AveragePool."""
    order = channels_last(len(emitter.shape(node.inputs[0])))
    x = emitter.in_order(emitter.view(node.inputs[0]), order, node.name)
    y = emitter.new(node.outputs[0], order)
    m, n = (np.asarray(tensor.values).astype(np.int32) for tensor in node.inputs[1:3])
    spatial = x.rank - 2
    ends = [0] * (2 - spatial) + [int(pad) for pad in node.attrs["pads"][spatial:]]
    emitter.program.emit(
        "average_pool",
        node=node.name,
        x=x.handle,
        y=y.handle,
        m=m,
        n=n,
        pad_bottom=ends[0],
        pad_right=ends[1],
        count_include_pad=int(node.attrs["count_include_pad"]),
        x_zp=int(node.attrs["x_zp"]),
        **geometry(node, x, y),
        **output_fields(node),
    )
