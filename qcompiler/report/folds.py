"""A quantized graph with the ranges that some of its calibration feeds give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qcompiler.activations.settle import settle
from qcompiler.graph.ir import Feed, Graph, QuantSpec, copy_of
from qcompiler.graph.runner import Runner
from qcompiler.report.honest import Values

__all__ = ["runs_of_folds"]


def runs_of_folds(
    graph: Graph, given: Mapping[str, tuple[QuantSpec, QuantSpec]], others: Mapping[str, Sequence[QuantSpec]]
) -> Callable[[int], Callable[[Feed], Values]]:
    """What runs the graph with the ranges of all feeds but those of a fold.

    Args:
        graph: with Q/DQ pairs; it is not changed.
        given: by the name of a tensor in front of a pair, the grid it was given, and another.
        others: likewise, for each fold the grid without its feeds.
    """

    def run(fold: int) -> Callable[[Feed], Values]:
        copy = copy_of(graph)
        settle(copy, {name: (given[name][0], grids[fold]) for name, grids in others.items()})
        return Runner(copy).run

    return run
