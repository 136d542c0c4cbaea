"""Second moments of what layers multiply, streamed over the calibration feeds: the ``H = E[x xᵀ]`` of a `LayerProblem`.

Feeds are split, seeded, into those to fit on and those held out; every layer gets the moments of both. Never are more
activations held than those of one feed, nor more moments than a stated limit: layers go in groups, each one pass over
the feeds. Of the positions of a convolution and the rows of a product only a sample is taken; of too few feeds to
split, one vector in `HELD_SHARE` is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.patches import products_of_row, sample_inputs
from qcompiler.errors import DataError
from qcompiler.feeds.selection import HELD_SHARE, count_feeds, held_out
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.layers import Layer
from qcompiler.graph.runner import Runner
from qcompiler.linear_algebra import gram, matmul

__all__ = ["LayerInputs", "Moments", "ProductSum", "layer_inputs", "rows_of_feed"]

LIMIT_BYTES = 1 << 30
"""Gram matrices held at once, in bytes; layers beyond that take another pass over the feeds."""

FEWEST_ROWS, MOST_ROWS = 64, 4096
"""Least and largest number of vectors drawn from one feed."""

ROWS_PER_PRODUCT = 4
"""Vectors wanted over all feeds, relative to K: fewer would not determine the Gram matrix."""

_PENDING = 2**18
"""Elements of vectors gathered before they are multiplied."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of a layer's input vectors.

    Attributes:
        gram: float64 [G, K, K], the mean of ``x xᵀ``.
        mean: float64 [G, K].
        rows: number of vectors.
    """

    gram: NDArray[np.float64]
    mean: NDArray[np.float64]
    rows: int

    def with_those(self, other: Moments) -> Moments:
        """The moments of all vectors of both."""
        rows = max(self.rows + other.rows, 1)
        mine, theirs = self.rows / rows, other.rows / rows
        return Moments(mine * self.gram + theirs * other.gram, mine * self.mean + theirs * other.mean, rows)

    def about(self, mean: NDArray[np.float64]) -> Moments:
        """The moments of vectors with another ``mean`` [G, K] whose covariance is what these scatter about that mean.

        So a bias that was fitted to one set of vectors is judged on another one.
        """
        crossed = self.mean[:, :, None] * mean[:, None, :]
        own = mean[:, :, None] * mean[:, None, :]
        return Moments(self.gram - crossed - crossed.transpose(0, 2, 1) + 2 * own, mean, self.rows)

    def reordered(self, order: NDArray[np.intp]) -> Moments:
        """Those of vectors whose elements stand in another order."""
        return Moments(self.gram[:, order[:, None], order], self.mean[:, order], self.rows)


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """A layer with the moments of its inputs: to fit on, and held out."""

    layer: Layer
    fit: Moments
    held: Moments


class ProductSum:
    """Products of vectors as they grow, over ``sides`` kinds of vectors drawn together.

    Vectors are gathered first: one large product is faster than many small ones.
    """

    def __init__(self, groups: int, products: int, sides: int = 1, pending: int = _PENDING) -> None:
        self._pairs = list(combinations_with_replacement(range(sides), 2))
        self._products: list[Array] = [np.zeros((groups, products, products)) for _ in self._pairs]
        self._means: list[Array] = [np.zeros((groups, products)) for _ in range(sides)]
        self._pending: list[tuple[Array, ...]] = []
        self._most, self.rows = pending, 0

    def add(self, *vectors: Array) -> None:
        """Account for vectors float32 [G, P, K], one array a side."""
        self._pending.append(vectors)
        if sum(part[0].size for part in self._pending) >= self._most:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        sides = [np.concatenate(parts, axis=1) for parts in zip(*self._pending, strict=True)]
        self._pending = []
        self.rows += sides[0].shape[1]
        for mean, vectors in zip(self._means, sides, strict=True):
            mean += vectors.sum(axis=1, dtype=np.float64)
        for total, (left, right) in zip(self._products, self._pairs, strict=True):
            total += gram(sides[left]) if left == right else matmul(sides[left].transpose(0, 2, 1), sides[right])

    def averages(self) -> tuple[dict[tuple[int, int], Array], list[Array]]:
        """Mean products [G, K, K] by the numbers of their sides, and mean vectors [G, K]; the sums are spent."""
        self._flush()
        for total in (*self._products, *self._means):
            total /= max(self.rows, 1)
        return dict(zip(self._pairs, self._products, strict=True)), self._means

    def moments(self) -> Moments:
        """Those of a single side."""
        products, means = self.averages()
        return Moments(products[0, 0], means[0], self.rows)


def rows_of_feed(products: int, feeds: int) -> int:
    """Vectors to draw from each of ``feeds`` feeds for a layer of this reduction length."""
    return min(max(-(-ROWS_PER_PRODUCT * products // feeds), FEWEST_ROWS), MOST_ROWS)


def layer_inputs(
    graph: Graph, layers: Sequence[Layer], data: Iterable[Feed], *, seed: int = 0, limit: int = LIMIT_BYTES
) -> Iterator[LayerInputs]:
    """The moments of each layer's inputs.

    Args:
        graph: a graph that onnxruntime runs, float or with Q/DQ pairs.
        layers: of that graph; Conv, Gemm and MatMul.
        data: feeds; read once for every group of layers.
        seed: of the split and of the draws.
        limit: bytes of moments to hold at once; a layer whose own are larger comes alone.

    Raises:
        DataError: no feed at all.
    """
    if not layers:
        return
    feeds = count_feeds(data)
    if feeds == 0:
        raise DataError("the calibration set is empty; give at least one feed")
    for group in _groups(layers, limit):
        yield from _observe(graph, group, data, feeds, seed)


def _groups(layers: Sequence[Layer], limit: int) -> Iterator[list[tuple[int, Layer]]]:
    """Consecutive (index, layer) whose moments stay within ``limit`` bytes."""
    group: list[tuple[int, Layer]] = []
    size = 0
    for index, layer in enumerate(layers):
        groups, products = products_of_row(layer)
        needed = 2 * 8 * groups * products**2
        if group and size + needed > limit:
            yield group
            group, size = [], 0
        group.append((index, layer))
        size += needed
    if group:
        yield group


def _observe(
    graph: Graph, group: Sequence[tuple[int, Layer]], data: Iterable[Feed], feeds: int, seed: int
) -> Iterator[LayerInputs]:
    held = held_out(feeds, seed)
    shapes = [products_of_row(layer) for _, layer in group]
    fits, helds = ([ProductSum(*shape) for shape in shapes] for _ in range(2))
    wanted = [layer.node.inputs[0].name for _, layer in group]
    runner = Runner(graph, list(dict.fromkeys(wanted)))
    for number, feed in enumerate(data):
        values = runner.run(feed)
        for (index, layer), (_, products), fit, validate, name in zip(group, shapes, fits, helds, wanted, strict=True):
            vectors = sample_inputs(
                layer, values[name], rows_of_feed(products, feeds), np.random.default_rng([seed, number, index])
            )
            if held:
                (validate if number in held else fit).add(vectors)
            else:
                validate.add(vectors[:, ::HELD_SHARE])
                fit.add(np.delete(vectors, np.s_[::HELD_SHARE], axis=1) if vectors.shape[1] > 1 else vectors)
    for (_, layer), fit, validate in zip(group, fits, helds, strict=True):
        yield LayerInputs(layer, fit.moments(), validate.moments())
