"""The gate of replacements: tried in a copy, kept where held-out errors and cost are within the budgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qcompiler.feeds.selection import held_feeds, spread_feeds
from qcompiler.feeds.sources import feeds_of
from qcompiler.graph.ir import Feed, Graph, copy_of
from qcompiler.graph.layers import Layer
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.pass_base import Context, Pass
from qcompiler.records import Replaced
from qcompiler.replacement.block_time import block_milliseconds, block_of
from qcompiler.replacement.chains import linear_output
from qcompiler.replacement.cost import Cost
from qcompiler.replacement.heal import heal
from qcompiler.replacement.observe import Observed

HELD_FEEDS = 16
"""Held-out feeds on which the network's outputs are compared."""

SURE = 0.977
"""Confidence that a block's error is within the budget: two standard errors, more where few samples were held out."""

MOST_TRIALS = 3
"""Sizes of a block that are tried in the network."""

Latency = Literal["off", "report", "gate"]


@dataclass(frozen=True, eq=False)
class Block:
    """What is to be replaced.

    Attributes:
        name: for people.
        first, last: its layers; they may be the same.
        cost: what it costs.
        products: length of the rows it is fitted to, which says how many are needed.
    """

    name: str
    first: Layer
    last: Layer
    cost: Cost
    products: int


@dataclass(eq=False)
class Trials:
    """The graph as it becomes, and what judges it.

    Attributes:
        graph: with all replacements that were kept; never the user's own.
        reference: the float graph.
        data: feeds.
        error: budget of a block's error, and of the outputs'.
        latency: what the time on the machine is for.
        ctx: of the running pass.
        quantize: passes that give a block its integer form, so that it can be timed.
    """

    graph: Graph
    reference: Graph
    data: Iterable[Feed]
    error: float
    latency: Latency
    ctx: Context
    quantize: Sequence[Pass]

    def __post_init__(self) -> None:
        self._judge = NetworkLoss(self.reference, held_feeds(self.data, HELD_FEEDS, self.ctx.seed))
        self._loss = self._judge(self.graph)
        self._kept = 0

    @staticmethod
    def of(graph: Graph, error: float, latency: Latency, ctx: Context, quantize: Sequence[Pass]) -> Trials:
        """Trials that begin with a graph, which stays as it is until `finish`."""
        data = feeds_of(graph, ctx)
        reference = ctx.reference if ctx.reference is not None else copy_of(graph)
        return Trials(copy_of(graph), reference, data, error, latency, ctx, quantize)

    @property
    def observed(self) -> Observed:
        """Feeds through the graph as it is and through the float graph."""
        return Observed(self.graph, self.reference, self.data, self.ctx.seed)

    def attempt(self, after: Graph, block: Block, form: str, cost: Cost) -> Replaced:
        """The verdict on ``after``, a copy with a block replaced; it becomes the graph where it is kept."""
        verdict = self.observed.judged(after, block.last, block.products)
        loss, bound, reason = self._judge(after), verdict.bound(SURE), ""
        if not bound <= self.error:
            reason = (
                f"as {form} its outputs err by {verdict.error:.3g} (up to {bound:.3g}), and {self.error:g} is allowed"
            )
        elif not loss <= self.error:
            reason = f"as {form} the network's outputs err by {loss:.3g}, and {self.error:g} is allowed"
        record = _record(self.ctx.running, block, form, cost, reason, verdict.error)
        record = replace(record, bound=bound, loss_before=self._loss, loss_after=loss)
        if record.kept and self.latency != "off":
            record = self._timed(record, after, block)
        if record.kept:
            self.graph, self._loss, self._kept = after, loss, self._kept + 1
        return record

    def hopeless(self, block: Block, form: str, cost: Cost, error: float) -> Replaced:
        """The record of a block whose best form within the cost was not worth a trial."""
        share = cost.macs / max(block.cost.macs, 1)
        reason = f"at {share:.0%} of its cost, as {form}, it errs by {error:.3g}, and {self.error:g} is allowed"
        return _record(self.ctx.running, block, form, cost, reason, error)

    def report(self, record: Replaced, block: Block) -> bool:
        """Write a record down; whether the block was replaced."""
        self.ctx.report.replacements.append(record)
        if not record.kept:
            self.ctx.declined(block.first.node, record.reason)
        return record.kept

    def finish(self, graph: Graph, *, healing: bool) -> bool:
        """Make ``graph`` what became of it; False, and nothing changed, where nothing was kept."""
        if not self._kept:
            return False
        if healing:
            self.graph = heal(self.graph, self.reference, self.data, self._judge, self.ctx)
        graph.nodes, graph.inputs, graph.outputs = self.graph.nodes, self.graph.inputs, self.graph.outputs
        # what follows shall come close to this; layers have other shapes than before
        self.ctx.reference = copy_of(graph)
        return True

    def _timed(self, record: Replaced, after: Graph, block: Block) -> Replaced:
        """The record with the block's times; refused where it is not faster and must be."""
        feed = spread_feeds(self.data, 1)[0]
        inputs, outputs = block.first.node.inputs[0].name, linear_output(block.last).name
        values = feed[inputs] if inputs in feed else Runner(self.graph, [inputs]).run(feed, [inputs])[inputs]
        times = block_milliseconds(
            [block_of(graph, inputs, outputs) for graph in (self.graph, after)], values, self.quantize
        )
        if times is None:
            return record
        slow = self.latency == "gate" and times[1] >= times[0]
        reason = (
            f"as {record.form} it takes {times[1]:.3g} ms on the machine, and {times[0]:.3g} ms before" if slow else ""
        )
        return replace(record, kept=not slow, reason=reason, milliseconds_before=times[0], milliseconds_after=times[1])


def _record(running: str, block: Block, form: str, cost: Cost, reason: str, error: float) -> Replaced:
    before = block.cost
    return Replaced(
        running, block.name, form, not reason, reason, before.macs, cost.macs, before.bytes, cost.bytes, error
    )
