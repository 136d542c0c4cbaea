"""Bundles ``linear → function → linear`` into a smaller feature map with a closed-form fit (Scalable Neural Network Kernels, ICLR 2024).

    W2 f(W1 x + b1) + b2  ≈  A φ(P x + c) + B x + b

φ(P x + c) are drawn features (arc-cosine, Fourier, Maclaurin) or some of the block's own neurons, chosen on calibration data; A, B and b are the
ridge regression on the float model's outputs. Whole chains of layers are tried first, then each pair. Blocks are taken in graph order, each fitted
to the inputs that those before it leave; the layers behind are fitted again at the end. What stays:

- the block's error on feeds held out, and two standard errors, are within the budget;
- so is the error of the network's outputs;
- multiply-accumulates and bytes fall below the stated share.

Anything else leaves the graph as it was. The time on the machine is measured and reported; with ``latency=gate`` a block that is not faster is
refused, too, and then the result depends on the machine that compiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from ..calibration.feeds import held_feeds, spread_feeds
from ..calibration.network_loss import NetworkLoss
from ..calibration.sources import synthetic_source
from ..ir import Graph, copy_of
from ..pass_base import Context, Feed, Pass
from ..replacement.features import DIRECTIONS
from ..replacement.observe import Judgement, Observed
from ..replacement.regions import Region, find_chains, parts
from ..replacement.search import KINDS, Menu, Replacement, Survey, moment_bytes, survey
from ..report.record import Replaced
from ..runner import Runner
from ._heal import heal
from ._region_time import block_milliseconds, block_of

SHARES = (1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
"""Shares of a block's cost that are tried, cheapest first."""

LIMIT_BYTES = 1 << 30
"""Moments of one block."""

MOST_TRIALS = 3
"""Sizes of a block that are put to the test."""

HELD_FEEDS = 16
"""Feeds held out on which the network's outputs are compared."""

SURE = 2.0
"""Standard errors that the budget must leave room for."""

_SKIPS = {"auto": (True, False), "always": (True,), "never": (False,)}

Key = tuple[str, ...]
"""Names of a region's layers."""


@dataclass
class _Work:
    """The graph as it becomes, and what judges it."""

    graph: Graph
    reference: Graph
    data: Iterable[Feed]
    judge: NetworkLoss
    loss: float = 0.0
    done: list[str] = field(default_factory=list)

    def find(self, key: Key) -> Region | None:
        """The region of these layers, if it is still there."""
        regions = (region for chain in find_chains(self.graph) for region in parts(chain))
        return next((region for region in regions if _key(region) == key), None)


def _key(region: Region) -> Key:
    return tuple(layer.node.name for layer in region.layers)


@dataclass(frozen=True)
class SnnkBundle(Pass):
    """Blocks of layers become smaller feature maps.

    Attributes:
        error: budget of a block's error, and of the outputs', both squared and relative.
        cost: largest share of a block's multiply-accumulates and bytes that its replacement may take.
        goal: the smallest within the budget, or the most exact one that the cost admits.
        kinds: feature maps to try, separated by commas: neurons, relu, cos, product.
        directions: drawn projections: orthogonal, or hadamard (±1).
        skip: maps with an affine skip, without, or both.
        chains: try whole chains of more than two layers.
        heal: fit the layers behind again.
        latency: off, report, or gate.
    """

    name: ClassVar[str] = "snnk-bundle"
    error: float = 0.02
    cost: float = 0.75
    goal: Literal["size", "error"] = "size"
    kinds: str = ",".join(KINDS)
    directions: str = DIRECTIONS[0]
    skip: Literal["auto", "always", "never"] = "auto"
    chains: bool = True
    heal: bool = True
    latency: Literal["off", "report", "gate"] = "report"

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds.split(",") if kind not in KINDS]
        if unknown:
            raise ValueError(f"feature map '{unknown[0]}' is unknown; known: {', '.join(KINDS)}")
        if self.directions not in DIRECTIONS:
            raise ValueError(f"directions must be one of {', '.join(DIRECTIONS)}")
        if not (self.error > 0 and 0 < self.cost < 1):
            raise ValueError("error must be above 0, cost between 0 and 1")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace what the budgets admit; True when anything was."""
        chains = find_chains(graph)
        if not chains:
            return False
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        reference = ctx.reference if ctx.reference is not None else copy_of(graph)
        judge = NetworkLoss(reference, held_feeds(data, HELD_FEEDS, ctx.seed))
        work = _Work(copy_of(graph), reference, data, judge, judge(graph))
        keys = [[_key(region) for region in parts(chain) if self.chains or len(region.layers) == 2] for chain in chains]
        for index, chain in enumerate(keys):
            self._chain(work, chain, ctx)
            ctx.on_step(index + 1, len(keys))
        if not work.done:
            return False
        if self.heal:
            work.graph = heal(work.graph, reference, data, judge, ctx)
        graph.nodes, graph.inputs, graph.outputs = work.graph.nodes, work.graph.inputs, work.graph.outputs
        ctx.reference = copy_of(graph)  # what follows shall come close to this; layers have other shapes than before
        return True

    def _chain(self, work: _Work, keys: list[Key], ctx: Context) -> None:
        """The whole chain, or, where that cannot be, its pairs."""
        for index, key in enumerate(keys):
            region = work.find(key)
            if region is None:
                continue
            followed = len(key) == 2 and index + 1 < len(keys)
            kept = self._region(work, region, ctx, skips=(False,) if followed else None)
            if kept and len(key) > 2:
                return

    def _region(self, work: _Work, region: Region, ctx: Context, skips: tuple[bool, ...] | None) -> bool:
        menu = Menu(self.kinds.split(","), self.directions, skips or _SKIPS[self.skip], self.skip != "never", ctx.seed)
        node = region.layers[0].node
        if moment_bytes(region, menu, self.cost) > LIMIT_BYTES:
            ctx.declined(node, f"its moments would take more than {LIMIT_BYTES >> 20} MiB")
            return False
        found = survey(region, Observed(work.graph, work.reference, work.data, ctx.seed), menu, self.cost)
        record: Replaced | None = None
        for candidate in self._candidates(found):
            record, after = self._try(work, region, candidate, ctx)
            if record.kept:
                work.graph, work.loss = after, record.loss_after or 0.0
                work.done.append(region.name)
                break
        if record is None:
            record = self._hopeless(found)
        ctx.report.replacements.append(record)
        if not record.kept:
            ctx.declined(node, record.reason)
        return record.kept

    def _candidates(self, found: Survey) -> list[Replacement]:
        """What is worth a trial: cheapest first, or the best one of the largest cost."""
        if self.goal == "error":
            best = found.best(self.cost)
            return [] if best is None else [best]
        promising: list[Replacement] = []
        for share in (*(share for share in SHARES if share < self.cost), self.cost):
            best = found.best(share)
            if best is not None and best.fit.held <= self.error:
                promising.append(best)
            if len(promising) == MOST_TRIALS:
                break
        return promising

    def _try(self, work: _Work, region: Region, candidate: Replacement, ctx: Context) -> tuple[Replaced, Graph]:
        """A replacement in a copy of the graph, with all its figures."""
        after = copy_of(work.graph)
        inner = next(each for chain in find_chains(after) for each in parts(chain) if _key(each) == _key(region))
        candidate.write(after, inner)
        after.cleanup(remove_unused_graph_inputs=False).toposort()
        observed = Observed(work.graph, work.reference, work.data, ctx.seed)
        verdict = observed.judged(after, region, sum(region.widths[:2]))
        loss = work.judge(after)
        record = self._record(candidate, verdict, work.loss, loss)
        if record.kept and self.latency != "off":
            record = self._timed(record, work, after, region)
        return record, after

    def _record(self, candidate: Replacement, verdict: Judgement, loss_before: float, loss: float) -> Replaced:
        before, after, bound = candidate.region.cost, candidate.cost, verdict.error + SURE * verdict.deviation
        reason = ""
        if not bound <= self.error:
            reason = f"as {candidate.title} its outputs err by {verdict.error:.3g} (up to {bound:.3g}), and {self.error:g} is allowed"
        elif not loss <= self.error:
            reason = f"as {candidate.title} the network's outputs err by {loss:.3g}, and {self.error:g} is allowed"
        return Replaced(
            self.name, candidate.region.name, candidate.title, not reason, reason, before.macs, after.macs, before.bytes, after.bytes,
            verdict.error, bound, loss_before, loss,
        )  # fmt: skip

    def _timed(self, record: Replaced, work: _Work, after: Graph, region: Region) -> Replaced:
        """The record with the block's times; refused where it is not faster and must be."""
        feed = spread_feeds(work.data, 1)[0]
        inputs, outputs = region.inputs.name, region.outputs.name
        values = feed[inputs] if inputs in feed else Runner(work.graph, [inputs]).run(feed, [inputs])[inputs]
        times = block_milliseconds([block_of(graph, inputs, outputs) for graph in (work.graph, after)], values)
        if times is None:
            return record
        slow = self.latency == "gate" and times[1] >= times[0]
        reason = f"as {record.form} it takes {times[1]:.3g} ms on the machine, and {times[0]:.3g} ms before" if slow else ""
        return replace(record, kept=not slow, reason=reason, milliseconds_before=times[0], milliseconds_after=times[1])

    def _hopeless(self, found: Survey) -> Replaced:
        """The record of a region for which nothing came near the budget: its best form within the cost."""
        best, before = found.best(self.cost), found.region.cost
        if best is None:
            reason = f"no form of it costs at most {self.cost:.0%}"
            return Replaced(self.name, found.region.name, "", False, reason, before.macs, before.macs, before.bytes, before.bytes, None)
        reason = f"at {best.cost.macs / before.macs:.0%} of its cost, as {best.title}, it errs by {best.fit.held:.3g}, and {self.error:g} is allowed"
        return Replaced(
            self.name, found.region.name, best.title, False, reason, before.macs, best.cost.macs, before.bytes, best.cost.bytes, best.fit.held
        )
