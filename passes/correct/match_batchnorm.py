"""Without data: made-up feeds with the statistics of training (`calibration.renormalize`).

`match-batchnorm` goes in front of the passes that measure, `unmatch-batchnorm` behind them. In between, the float graph
is one whose tensors have, on the made-up feeds, the means and deviations that BatchNorm saw in training, so ranges,
Gram matrices and corrections are those of realistic activations. Then each layer is given its own function back: its
weights, their scales and its bias are divided, its codes and all grids stay.

Both do nothing where calibration feeds were given, or where no statistics are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...calibration.renormalize import are_of_training, match_statistics, set_gain
from ...feeds.selection import count_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Graph, copy_of, names_in
from ...graph.layers import Layer, find_layers, weight_pair
from ...pass_base import Context, Pass
from .tune_statistics import apply_tuning


@dataclass(frozen=True)
class MatchBatchnorm(Pass):
    """Made-up feeds get the statistics of training, layer by layer."""

    name: ClassVar[str] = "match-batchnorm"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Scale and shift layers; True when there was one."""
        if not ctx.made_up:
            return False
        data = feeds_of(graph, ctx)
        matched = match_statistics(copy_of(graph), ctx.batchnorm, data, count_feeds(data)) if ctx.batchnorm else {}
        if not are_of_training(matched):
            ctx.warn(
                "BatchNorm statistics and made-up inputs are far apart: ranges hold both, and are wider than real "
                "inputs need"
            )
            return False
        ctx.matched, taken = matched, names_in(graph)
        layers = list(find_layers(graph))
        for layer in layers:
            if layer.node.name in matched:
                set_gain(layer, *matched[layer.node.name], taken)
        ctx.warn(
            f"without data: {len(matched)} of {len(layers)} layers have BatchNorm statistics of training, which "
            "ranges, corrections and the figures of this report follow; elsewhere made-up inputs stand in for real ones"
        )
        if matched and ctx.reference is not None:
            ctx.unmatched, ctx.reference = ctx.reference, copy_of(graph)
        return bool(matched)


@dataclass(frozen=True)
class UnmatchBatchnorm(Pass):
    """Layers that `match-batchnorm` changed compute what they did before."""

    name: ClassVar[str] = "unmatch-batchnorm"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Scale and shift them back; True when there was one."""
        taken = names_in(graph)
        if ctx.matched and ctx.reference is not None:
            ctx.matched_pair = ctx.reference, copy_of(graph)
        for layer in [layer for layer in find_layers(graph) if layer.node.name in ctx.matched]:
            gain, shift = ctx.matched[layer.node.name]
            _undo(layer, gain, shift, taken)
        changed, ctx.matched = bool(ctx.matched), {}
        ctx.reference, ctx.unmatched = ctx.unmatched or ctx.reference, None
        return changed


def _undo(layer: Layer, gain: NDArray[np.float64], shift: NDArray[np.float64], taken: set[str]) -> None:
    if weight_pair(layer) is None:
        set_gain(layer, 1 / gain, -shift / gain, taken)
        return
    apply_tuning(layer, (1 / gain).astype(np.float32), (-shift / gain).astype(np.float32), taken)
