"""``linear → function → linear`` as a smaller, closed-form feature map (Scalable Neural Network Kernels, ICLR 2024).

    W2 f(W1 x + b1) + b2  ≈  A φ(P x + c) + B x + b

φ(P x + c) are drawn features (arc-cosine, Fourier, Maclaurin) or some of the block's own neurons, chosen on calibration
data; A, B and b are the ridge regression on the float model's outputs. Whole chains of layers are tried first, then
each pair. Blocks are taken in graph order, each fitted to the inputs that those before it leave; the layers behind are
fitted again at the end. What stays:

- the block's error on feeds held out is within the budget, with two standard errors to spare;
- so is the error of the network's outputs;
- multiply-accumulates and bytes fall below the stated share.

Anything else leaves the graph as it was. The time on the machine is measured and reported; with ``latency=gate`` a
block that is not faster is refused, too, and then the result depends on the machine that compiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...calibration.gram import LIMIT_BYTES
from ...graph.ir import Graph, copy_of
from ...pass_base import Context, Pass
from ...replacement.chains import Region, find_chains, parts
from ...replacement.features import DIRECTIONS
from ...replacement.survey import KINDS, Menu, Replacement, Survey, moment_bytes, survey
from ...replacement.trial import MOST_TRIALS, Block, Latency, Trials
from ..activations.quantize_activations import QuantizeActivations
from ..weights.quantize_weights import QuantizeWeights

SHARES = (1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
"""Shares of a block's cost that are tried, cheapest first."""

_SKIPS = {"auto": (True, False), "always": (True,), "never": (False,)}

Key = tuple[str, ...]
"""Names of a region's layers."""


def _key(region: Region) -> Key:
    return tuple(layer.node.name for layer in region.layers)


def _find(graph: Graph, key: Key) -> Region | None:
    """The region of these layers, if it is there."""
    regions = (region for chain in find_chains(graph) for region in parts(chain))
    return next((region for region in regions if _key(region) == key), None)


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
    latency: Latency = "report"

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
        chains = [
            [_key(region) for region in parts(chain) if self.chains or len(region.layers) == 2]
            for chain in find_chains(graph)
        ]
        if not chains:
            return False
        trials = Trials.of(graph, self.error, self.latency, ctx, (QuantizeActivations(), QuantizeWeights()))
        for index, keys in enumerate(chains):
            self._chain(trials, keys, ctx)
            ctx.on_step(index + 1, len(chains))
        return trials.finish(graph, healing=self.heal)

    def _chain(self, trials: Trials, keys: list[Key], ctx: Context) -> None:
        """The whole chain, or, where that cannot be, its pairs."""
        for index, key in enumerate(keys):
            region = _find(trials.graph, key)
            if region is None:  # the pair before it got a skip
                continue
            followed = len(key) == 2 and index + 1 < len(keys)
            menu = Menu(
                self.kinds.split(","),
                self.directions,
                (False,) if followed else _SKIPS[self.skip],
                self.skip != "never",
                ctx.seed,
            )
            if moment_bytes(region, menu, self.cost) > LIMIT_BYTES:
                ctx.declined(region.layers[0].node, f"its moments would take more than {LIMIT_BYTES >> 20} MiB")
            elif self._region(trials, region, menu) and len(key) > 2:
                return

    def _region(self, trials: Trials, region: Region, menu: Menu) -> bool:
        """Try one region; whether it was replaced."""
        block = Block(region.name, region.layers[0], region.layers[-1], region.cost, sum(region.widths[:2]))
        found = survey(region, trials.observed, menu, self.cost)
        record = None
        for candidate in self._candidates(found):
            after = copy_of(trials.graph)
            inner = _find(after, _key(region))
            if inner is not None:
                candidate.write(after, inner)
            record = trials.attempt(
                after.cleanup(remove_unused_graph_inputs=False).toposort(), block, candidate.title, candidate.cost
            )
            if record.kept:
                break
        if record is None:
            best = found.best(self.cost)
            if best is None:
                trials.ctx.declined(block.first.node, f"no form of it costs at most {self.cost:.0%}")
                return False
            record = trials.hopeless(block, best.title, best.cost, best.fit.held)
        return trials.report(record, block)

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
