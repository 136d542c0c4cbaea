"""How far a rewritten graph's outputs are from the float model's: the judge of every tuned pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner
from qcompiler.losses.output_loss import OUTPUT_LOSSES, OutputLoss

__all__ = ["NetworkLoss", "float_outputs", "relative_errors"]

Array = NDArray[Any]

SQUARED = OUTPUT_LOSSES["mse"]


def float_outputs(values: Mapping[str, Array]) -> list[Array]:
    """Those of a model's outputs that are of a float type."""
    return [value for value in values.values() if np.issubdtype(value.dtype, np.floating)]


def relative_errors(values: Sequence[Array], expected: Sequence[Array]) -> list[float]:
    """Squared error of each array over the energy of the one expected."""
    return [SQUARED.loss(value, want) for value, want in zip(values, expected, strict=True)]


class NetworkLoss:
    """Loss of the float outputs, averaged over outputs and feeds.

    Args:
        reference: the float graph.
        feeds: what to compare on; its outputs are computed once.
        loss: of one output; by default its squared error over its energy.
    """

    def __init__(self, reference: Graph, feeds: Sequence[Feed], loss: OutputLoss = SQUARED) -> None:
        runner = Runner(reference)
        self._feeds, self._expected, self._loss = feeds, [float_outputs(runner.run(feed)) for feed in feeds], loss

    def __call__(self, graph: Graph) -> float:
        """The loss of a graph; 0 without float outputs."""
        return self.of(Runner(graph).run)

    def of(self, run: Callable[[Feed], Mapping[str, Array]]) -> float:
        """The loss of anything that gives outputs for a feed; one whose size, which is data, is another counts as 0."""
        found = [
            self._loss.loss(value if value.shape == want.shape else np.zeros_like(want), want)
            for feed, expected in zip(self._feeds, self._expected, strict=True)
            for value, want in zip(float_outputs(run(feed)), expected, strict=True)
        ]
        return float(np.mean(found)) if found else 0.0
