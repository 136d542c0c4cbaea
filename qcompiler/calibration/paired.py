"""What each layer multiplies in the float model beside what it multiplies in the graph as it is quantized so far.

Both are drawn at the same positions of the same feeds, so that a layer can be fitted to the *float model's* outputs of
the *quantized* inputs. Layers come one after the other, in graph order: what is done to one shows in the inputs of the
next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import Moments, ProductSum, rows_of_feed
from qcompiler.calibration.patches import products_of_row, sample_inputs
from qcompiler.calibration.prefix import Prefix
from qcompiler.errors import DataError
from qcompiler.feeds.mixup import with_mixtures
from qcompiler.feeds.selection import HELD_SHARE, count_feeds, held_out
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.layers import Layer

__all__ = ["PairedInputs", "PairedMoments", "paired_inputs"]

_PENDING = 2**20
"""Elements of vectors gathered on each side before they are multiplied; more than in `gram`, as one layer is done at a
time.
"""

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

    def reordered(self, order: NDArray[np.intp]) -> PairedMoments:
        """Those of vectors whose elements stand in another order."""
        return PairedMoments(
            self.exact.reordered(order), self.given.reordered(order), self.cross[:, order[:, None], order]
        )


@dataclass(frozen=True, eq=False)
class PairedInputs:
    """A layer of the quantized graph with the moments of its inputs: to fit on, and held out."""

    layer: Layer
    fit: PairedMoments
    held: PairedMoments


def _moments(total: ProductSum) -> PairedMoments:
    """Of the sides ``x`` and ``z``; the sum is spent."""
    products, (exact, given) = total.averages()
    return PairedMoments(
        Moments(products[0, 0], exact, total.rows), Moments(products[1, 1], given, total.rows), products[0, 1]
    )


def paired_inputs(
    source: Graph,
    graph: Graph,
    pairs: Sequence[tuple[Layer, Layer]],
    data: Iterable[Feed],
    *,
    seed: int = 0,
    mixup: bool = False,
) -> Iterator[PairedInputs]:
    """The moments of each layer's inputs in both graphs.

    Args:
        source: the float model.
        graph: sorted; a layer may be changed as soon as its moments are here, and must not be afterwards.
        pairs: each layer in ``source`` and in ``graph``, in the order of ``graph``; Conv, Gemm and MatMul.
        data: feeds.
        seed: of the split and of the draws.
        mixup: fit to mixtures of feeds besides, see `qcompiler.feeds.mixup`.

    Raises:
        DataError: no feed at all.
    """
    if not pairs:
        return
    feeds = count_feeds(data)
    if feeds == 0:
        raise DataError("the calibration set is empty; give at least one feed")
    held = held_out(feeds, seed)
    if held and mixup:
        data, feeds = with_mixtures(data, feeds, held, seed)
    exact_values, given_values = Prefix(source, data, feeds), Prefix(graph, data, feeds)
    for index, (exact, layer) in enumerate(pairs):
        groups, products = products_of_row(layer)
        count = rows_of_feed(products, feeds)
        fit, validate = (ProductSum(groups, products, 2, _PENDING) for _ in range(2))
        for number, values in enumerate(
            zip(exact_values.inputs_of(exact.node), given_values.inputs_of(layer.node), strict=True)
        ):
            x, z = (
                sample_inputs(layer, value, count, np.random.default_rng([seed, number, index])) for value in values
            )
            if held:
                (validate if number in held else fit).add(x, z)
            else:
                validate.add(x[:, ::HELD_SHARE], z[:, ::HELD_SHARE])
                fit.add(*(np.delete(v, np.s_[::HELD_SHARE], axis=1) if x.shape[1] > 1 else v for v in (x, z)))
        yield PairedInputs(layer, _moments(fit), _moments(validate))
