"""What each layer multiplies in the float model beside what it multiplies in the graph as it is quantized so far.

Both are drawn at the same positions of the same feeds, so that a layer can be fitted to the *float model's* outputs of the *quantized* inputs. Layers
come one after the other, in graph order: what is done to one shows in the inputs of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.feeds import HELD_SHARE, count_feeds, held_out
from qcompiler.calibration.gram import Moments, rows_of_feed
from qcompiler.calibration.patches import products_of_row, sample_inputs
from qcompiler.calibration.prefix import Prefix
from qcompiler.errors import DataError
from qcompiler.ir import Graph
from qcompiler.layers import Layer
from qcompiler.pass_base import Feed
from qcompiler.runner import Runner

__all__ = ["PairedInputs", "PairedMoments", "paired_inputs"]

SAMPLE_BYTES = 1 << 28
"""Vectors of the float model held at once; more layers mean more runs of it."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PairedMoments:
    """Moments of the float model's vectors ``x``, of the quantized graph's ``z``, and of both together.

    Attributes:
        exact: moments of ``x``.
        given: moments of ``z``.
        cross: float64 [G, K, K], the mean of ``x zᵀ``.
    """

    exact: Moments
    given: Moments
    cross: NDArray[np.float64]

    def with_those(self, other: PairedMoments) -> PairedMoments:
        """The moments of all vectors of both."""
        exact, given = self.exact.with_those(other.exact), self.given.with_those(other.given)
        mine, theirs = self.exact.rows / max(exact.rows, 1), other.exact.rows / max(exact.rows, 1)
        return PairedMoments(exact, given, mine * self.cross + theirs * other.cross)


@dataclass(frozen=True, eq=False)
class PairedInputs:
    """A layer of the quantized graph with the moments of its inputs: to fit on, and held out."""

    layer: Layer
    fit: PairedMoments
    held: PairedMoments


class _Sum:
    """Moments as they grow."""

    def __init__(self, groups: int, products: int) -> None:
        self._exact, self._given, self._cross = (np.zeros((groups, products, products)) for _ in range(3))
        self._means = np.zeros((2, groups, products))
        self._rows = 0

    def add(self, x: Array, z: Array) -> None:
        """Account for vectors float32 [G, P, K]."""
        self._rows += x.shape[1]
        across = x.transpose(0, 2, 1)
        self._exact += across @ x
        self._cross += across @ z
        self._given += z.transpose(0, 2, 1) @ z
        for total, vectors in zip(self._means, (x, z), strict=True):
            total += vectors.sum(axis=1, dtype=np.float64)

    def moments(self) -> PairedMoments:
        """What was seen; the sums are spent."""
        count = max(self._rows, 1)
        for total in (self._exact, self._given, self._cross, self._means):
            total /= count
        exact, given = (Moments(gram, mean, self._rows) for gram, mean in zip((self._exact, self._given), self._means, strict=True))
        return PairedMoments(exact, given, self._cross)


def paired_inputs(
    source: Graph, graph: Graph, pairs: Sequence[tuple[Layer, Layer]], data: Iterable[Feed], *, seed: int = 0
) -> Iterator[PairedInputs]:
    """The moments of each layer's inputs in both graphs.

    Args:
        source: the float model.
        graph: sorted; a layer may be changed as soon as its moments are here, and must not be afterwards.
        pairs: each layer in ``source`` and in ``graph``, in the order of ``graph``; Conv, Gemm and MatMul.
        data: feeds.
        seed: of the split and of the draws.

    Raises:
        DataError: no feed at all.
    """
    feeds = count_feeds(data)
    if feeds == 0:
        raise DataError("the calibration set is empty; give at least one feed")
    prefix, held = Prefix(graph, data, feeds), held_out(feeds, seed)
    for group in _groups(pairs, feeds):
        samples = _exact_vectors(source, [(index, exact) for index, exact, _ in group], data, feeds, seed)
        for (index, _, layer), vectors in zip(group, samples, strict=True):
            fit, validate = (_Sum(*products_of_row(layer)) for _ in range(2))
            for number, (x, values) in enumerate(zip(vectors, prefix.inputs_of(layer.node), strict=True)):
                z = sample_inputs(layer, values, x.shape[1], np.random.default_rng([seed, number, index]))
                if held:
                    (validate if number in held else fit).add(x, z)
                else:
                    last = x.shape[1] > 1
                    validate.add(x[:, ::HELD_SHARE], z[:, ::HELD_SHARE])
                    fit.add(*(np.delete(v, np.s_[::HELD_SHARE], axis=1) if last else v for v in (x, z)))
            yield PairedInputs(layer, fit.moments(), validate.moments())


def _groups(pairs: Sequence[tuple[Layer, Layer]], feeds: int) -> Iterator[list[tuple[int, Layer, Layer]]]:
    """Consecutive (index, exact, layer) whose vectors of the float model stay within `SAMPLE_BYTES`."""
    group: list[tuple[int, Layer, Layer]] = []
    size = 0
    for index, (exact, layer) in enumerate(pairs):
        groups, products = products_of_row(exact)
        needed = 4 * feeds * rows_of_feed(products, feeds) * groups * products
        if group and size + needed > SAMPLE_BYTES:
            yield group
            group, size = [], 0
        group.append((index, exact, layer))
        size += needed
    if group:
        yield group


def _exact_vectors(source: Graph, layers: Sequence[tuple[int, Layer]], data: Iterable[Feed], feeds: int, seed: int) -> list[list[Array]]:
    """For each layer a sample of the vectors it multiplies in the float model, float32 [G, P, K] a feed."""
    found: list[list[Array]] = [[] for _ in layers]
    runner = Runner(source, list(dict.fromkeys(layer.node.inputs[0].name for _, layer in layers)))
    for number, feed in enumerate(data):
        values = runner.run(feed)
        for (index, layer), vectors in zip(layers, found, strict=True):
            count = rows_of_feed(products_of_row(layer)[1], feeds)
            vectors.append(sample_inputs(layer, values[layer.node.inputs[0].name], count, np.random.default_rng([seed, number, index])))
    return found
