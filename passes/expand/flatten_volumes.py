"""Convolutions and pools over three axes as ones over two, with the depth in the batch.

    Conv3D(x)[n, :, d] = Conv2D([x[n, :, s d - p], x[n, :, s d - p + t], …]) : the slices of a kernel's depth side by
    side as channels

so that one accumulator still sums all products of an output: the same arithmetic, on movements that cost the machine
a copy. A MaxPool takes the largest of its slices first, then pools the picture. Height, width and depth must be known
(``--dim``); the batch need not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, Tensor, constant_of, names_in
from ...pass_base import Context, Pass
from ...rewriting.match import standard
from ...rewriting.node_writer import Results, Writer, given, rank_of
from ...shapes.infer import annotate

_VOLUME = 5


@dataclass(frozen=True)
class FlattenVolumes(Pass):
    """Conv and MaxPool of rank 5 in terms of rank 4. Declines groups, and sizes that are not known."""

    name: ClassVar[str] = "flatten-volumes"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was replaced."""
        taken, changed = names_in(graph), False
        for node in [node for node in standard(graph, "Conv", "MaxPool") if rank_of(node.inputs[0]) == _VOLUME]:
            writer = Writer(node, taken, {})
            results = _flat(writer, node)
            if isinstance(results, str):
                ctx.declined(node, results)
            elif results is not None:
                writer.replace(graph, results)
                annotate(graph)  # the next node asks for the sizes of this one's output
                changed = True
        return changed


def _flat(w: Writer, node: Node) -> Results:
    x, y = node.inputs[0], node.outputs[0]
    weight = constant_of(given(node, 1)) if node.op == "Conv" else None
    kernel = list(node.attrs.get("kernel_shape", () if weight is None else weight.shape[2:]))
    if node.op == "Conv" and (weight is None or int(node.attrs.get("group", 1)) != 1):
        return "its weights are not constant, or it has groups"
    if y.shape is None or not all(isinstance(size, int | np.integer) for size in (*x.shape[1:], *y.shape[1:])):
        return "it needs known sizes of all but the batch; fix them: --dim NAME=SIZE"
    if (
        node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or node.attrs.get("ceil_mode", 0)
        or len(node.outputs) > 1
    ):
        return "its padding is automatic or its sizes are rounded up"
    strides, dilations = (list(node.attrs.get(name, [1, 1, 1])) for name in ("strides", "dilations"))
    pads = list(node.attrs.get("pads", [0] * 6))
    depth = _slices(w, _padded(w, node, pads), int(y.shape[2]), (kernel[0], strides[0], dilations[0]))
    picture = {
        "kernel_shape": kernel[1:],
        "strides": strides[1:],
        "dilations": dilations[1:],
        "pads": [*pads[1:3], *pads[4:6]],
    }
    if weight is None:
        flat = w.op(
            "MaxPool", _pictures(w, reduce(lambda one, other: w.op("Max", one, other), depth), x.shape), **picture
        )
    else:
        channels = list(x.shape)
        channels[1] = kernel[0] * x.shape[1]
        together = depth[0] if len(depth) == 1 else w.op("Concat", *depth, axis=1)
        by_depth = w.constant("weight", weight.transpose(0, 2, 1, 3, 4).reshape(len(weight), -1, *weight.shape[3:]))
        flat = w.op("Conv", _pictures(w, together, channels), by_depth, given(node, 2), **picture)
    apart = w.op("Reshape", flat, w.int64("volume", [-1, int(y.shape[2]), int(y.shape[1]), *map(int, y.shape[3:])]))
    return [w.op("Transpose", apart, perm=[0, 2, 1, 3, 4])]


def _padded(w: Writer, node: Node, pads: list[int]) -> Tensor:
    """The input, padded along its depth."""
    if not (pads[0] or pads[3]):
        return node.inputs[0]
    fill = float(np.finfo(np.float32).min) if node.op == "MaxPool" else 0.0
    return w.op(
        "Pad",
        node.inputs[0],
        w.int64("pads", [0, 0, pads[0], 0, 0, 0, 0, pads[3], 0, 0]),
        w.constant("fill", fill),
        mode="constant",
    )


def _slices(w: Writer, x: Tensor, count: int, window: tuple[int, int, int]) -> list[Tensor]:
    """For each tap of a kernel's depth, the ``count`` slices of x that it meets."""
    taps, stride, dilation = window
    ends = [tap * dilation + (count - 1) * stride + 1 for tap in range(taps)]
    axis, step = w.int64("depth", [2]), w.int64("stride", [stride])
    return [
        w.op("Slice", x, w.int64("start", [tap * dilation]), w.int64("end", [end]), axis, step)
        for tap, end in enumerate(ends)
    ]


def _pictures(w: Writer, x: Tensor, shape: list[int]) -> Tensor:
    """[N, C, D, H, W] as [N*D, C, H, W]."""
    turned = w.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return w.op("Reshape", turned, w.int64("pictures", [-1, int(shape[1]), int(shape[3]), int(shape[4])]))
