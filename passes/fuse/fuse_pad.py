"""Padding with zeros moves into the convolution behind it.

    Conv(Pad(x, p, 0), W; pads = q) = Conv(x, W; pads = p + q)

where p pads nothing but spatial axes, and not by a negative amount. Models from frameworks that pad in a layer of its
own have it before every strided convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, constant_of, consumers
from ...pass_base import Context, Pass
from ...rewriting.match import is_output, scalar_of, standard


def _spatial_pads(node: Node) -> list[int] | str:
    """Amounts before and after each spatial axis, or the reason why they cannot move."""
    pads, value = constant_of(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    if pads is None or (len(node.inputs) > 3 and node.inputs[3].name):
        return "its amounts are computed, or given for some axes only"
    if node.attrs.get("mode", "constant") != "constant" or (value is not None and scalar_of(value) != 0.0):
        return "it does not pad with zeros"
    rank = pads.size // 2
    before, after = pads[:rank], pads[rank:]
    if np.any(pads < 0) or rank < 3 or np.any(before[:2]) or np.any(after[:2]):
        return "it cuts, or pads other axes than spatial ones"
    return [int(amount) for amount in (*before[2:], *after[2:])]


def _accepts(node: Node, pad: Node) -> bool:
    first_only = [index for index, tensor in enumerate(node.inputs) if tensor is pad.outputs[0]] == [0]
    return node.op == "Conv" and first_only and node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")


@dataclass(frozen=True)
class FusePad(Pass):
    """Let convolutions pad for themselves. Declines where anybody else reads the padded tensor."""

    name: ClassVar[str] = "fuse-pad"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a Pad was moved."""
        changes = [_fuse(graph, node, ctx) for node in standard(graph, "Pad")]
        return any(changes)


def _fuse(graph: Graph, node: Node, ctx: Context) -> bool:
    users = consumers(node.outputs[0])
    if not any(_accepts(user, node) for user in users):
        return False
    amounts = _spatial_pads(node)
    if isinstance(amounts, str):
        ctx.declined(node, amounts)
        return False
    inside = all(any(user is other for other in graph.nodes) for user in users)
    if is_output(graph, node.outputs[0]) or not inside or not all(_accepts(user, node) for user in users):
        ctx.declined(node, "others than convolutions read the padded tensor")
        return False
    for user in users:
        own = user.attrs.get("pads") if user.attrs.pop("auto_pad", "NOTSET") == "NOTSET" else None
        user.attrs["pads"] = [a + b for a, b in zip(amounts, own or [0] * len(amounts), strict=True)]
        user.inputs[0] = node.inputs[0]
    return True
