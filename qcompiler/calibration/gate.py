"""The gate every tuned pass goes through: a change stays only where the network gains on feeds it was not tuned on."""

from __future__ import annotations

from collections.abc import Sequence

from qcompiler.graph.ir import Feed, Graph
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.pass_base import Context
from qcompiler.records import Tuning

HELD_FEEDS = 16
"""Held-out feeds on which passes judge that change the whole network at once."""


def take_if_better(graph: Graph, tuned: Graph, held: Sequence[Feed], ctx: Context, *, most: float = 1.0) -> bool:
    """Make ``graph`` equal to ``tuned`` if its outputs on ``held`` are closer to the float model's; True if so.

    ``most`` is the share of the error that may be left: feeds held out are relatives of those that were measured, so a
    small gain on them may be none on others. Without a float model to compare with (``ctx.reference``) there is no
    judge, and the change stays.
    """
    if ctx.reference is not None:
        judge = NetworkLoss(ctx.reference, held)
        before, after = judge(graph), judge(tuned)
        kept = after < most * before
        ctx.report.tunings.append(Tuning(ctx.running, before, after, kept))
        if not kept:
            return False
    graph.nodes, graph.inputs, graph.outputs = tuned.nodes, tuned.inputs, tuned.outputs
    return True
