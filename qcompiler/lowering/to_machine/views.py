"""Views: how a tensor of the integer graph lies in memory.

Transpose, Slice, Squeeze, Unsqueeze and Expand only change a view (its strides and offset); nothing is copied until an
instruction needs the elements in another order. Images are dense in the order (N, spatial axes, C); adjacent transposes
cancel by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

from qcompiler.runtime.program.builder import Buffer, Constant
from qcompiler.shapes.dims import Dim, as_dim, same

Handle: TypeAlias = "Buffer | Constant"
Order = tuple[int, ...]


def product(sizes: Sequence[Dim]) -> Dim:
    """Product of sizes."""
    total: Dim = 1
    for size in sizes:
        total = as_dim(total * size)
    return total


def contiguous(sizes: Sequence[Dim]) -> list[Dim]:
    """Element strides of a dense row-major array."""
    strides: list[Dim] = []
    step: Dim = 1
    for size in reversed(sizes):
        strides.append(step)
        step = as_dim(step * size)
    return strides[::-1]


def channels_last(rank: int) -> Order:
    """The order of an image's axes in memory: N, spatial axes, C."""
    return (0, *range(2, rank), 1) if rank >= 3 else tuple(range(rank))


@dataclass(frozen=True)
class View:
    """A tensor in memory: ``element[i...] = handle[offset + sum(i * stride)]``.

    Attributes:
        shape, strides: by ONNX axis.
        order: the axes from the outermost to the innermost, when the elements lie densely in that order from the
            handle's start; None when they do not.
    """

    handle: Handle
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0
    order: Order | None = None

    @staticmethod
    def dense(handle: Handle, shape: Sequence[Dim], order: Order | None = None) -> View:
        """Dense elements in ``order`` (default: that of the axes)."""
        axes = tuple(range(len(shape))) if order is None else order
        steps = dict(zip(axes, contiguous([shape[axis] for axis in axes]), strict=True))
        return View(handle, tuple(shape), tuple(steps[axis] for axis in range(len(shape))), 0, axes)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def count(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    def lies_in(self, order: Order) -> bool:
        """True when the elements are dense in ``order``; axes of size 1 may stand anywhere."""
        return self.order is not None and self._wide(self.order) == self._wide(order)

    def _wide(self, order: Order) -> Order:
        return tuple(axis for axis in order if not is_one(self.shape[axis]))

    # ------------------------------------------------------------------ movers that copy nothing
    def transposed(self, perm: Sequence[int]) -> View:
        """Axis i of the result is axis ``perm[i]``."""
        place = {axis: i for i, axis in enumerate(perm)}
        order = None if self.order is None else tuple(place[axis] for axis in self.order)
        return replace(
            self, shape=tuple(self.shape[a] for a in perm), strides=tuple(self.strides[a] for a in perm), order=order
        )

    def without(self, axes: Sequence[int]) -> View:
        """Drop axes of size 1."""
        kept = [axis for axis in range(self.rank) if axis not in axes]
        place = {axis: i for i, axis in enumerate(kept)}
        order = None if self.order is None else tuple(place[axis] for axis in self.order if axis in place)
        return replace(
            self, shape=tuple(self.shape[a] for a in kept), strides=tuple(self.strides[a] for a in kept), order=order
        )

    def with_ones(self, axes: Sequence[int]) -> View:
        """Insert axes of size 1 at these positions of the result."""
        rank = self.rank + len(axes)
        kept = [axis for axis in range(rank) if axis not in axes]
        shape, strides = [1] * rank, [0] * rank
        for old, new in enumerate(kept):
            shape[new], strides[new] = self.shape[old], self.strides[old]
        order = None if self.order is None else (*axes, *(kept[axis] for axis in self.order))
        return replace(self, shape=tuple(shape), strides=tuple(strides), order=order)

    def sliced(self, axis: int, start: Dim, size: Dim, step: int) -> View:
        """``size`` elements along ``axis`` from ``start``, ``step`` apart."""
        if step == 1 and start == 0 and same(size, self.shape[axis]):
            return self
        shape, strides = list(self.shape), list(self.strides)
        offset = as_dim(self.offset + start * strides[axis])
        shape[axis], strides[axis] = size, as_dim(strides[axis] * step)
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset, order=None)

    def misfits(self, shape: Sequence[Dim]) -> list[tuple[Dim, Dim]]:
        """Pairs of sizes (of the view, of ``shape``) that must be equal for `broadcast` and are not known to be."""
        sizes = self.shape[max(self.rank - len(shape), 0) :]
        pairs = zip(sizes, shape[len(shape) - len(sizes) :], strict=True)
        return [(have, want) for have, want in pairs if not is_one(have) and not same(have, want)]

    def broadcast(self, shape: Sequence[Dim]) -> View:
        """The view with the axes of ``shape``, repeated along its axes of size 1; other sizes are taken to fit."""
        lead = len(shape) - self.rank
        sizes, strides = [1] * lead + list(self.shape), [0] * lead + list(self.strides)
        steps = tuple(0 if is_one(have) else step for have, step in zip(sizes, strides, strict=True))
        repeated = any(is_one(have) and not is_one(want) for have, want in zip(sizes, shape, strict=True))
        return replace(self, shape=tuple(shape), strides=steps, order=None if lead or repeated else self.order)

    def merged(self, first: int, last: int) -> tuple[Dim, Dim] | None:
        """Axes ``first`` to ``last`` (exclusive) as one (size, stride); None when no stride reaches all elements."""
        axes = [axis for axis in range(first, last) if not is_one(self.shape[axis])]
        for outer, inner in pairwise(axes):
            if not same(self.strides[outer], as_dim(self.strides[inner] * self.shape[inner])):
                return None
        return product([self.shape[axis] for axis in axes]), (self.strides[axes[-1]] if axes else 0)


def is_one(size: Dim) -> bool:
    """True for a size that is 1 whatever the symbols are."""
    return isinstance(size, int) and size == 1


def coalesce(sizes: Sequence[Dim], strides: Sequence[Sequence[Dim]]) -> tuple[list[Dim], list[list[Dim]]]:
    """Fewest axes for a walk: drops sizes of 1, joins neighbours over which every operand steps evenly.

    Args:
        sizes: outermost axis first.
        strides: for each operand one stride per axis.
    """
    axes = [i for i, size in enumerate(sizes) if not is_one(size)]
    shape: list[Dim] = []
    steps: list[list[Dim]] = [[] for _ in strides]
    for axis in axes:
        if shape and all(
            same(walk[-1], as_dim(operand[axis] * sizes[axis])) for walk, operand in zip(steps, strides, strict=True)
        ):
            shape[-1] = as_dim(shape[-1] * sizes[axis])
            for walk, operand in zip(steps, strides, strict=True):
                walk[-1] = operand[axis]
            continue
        shape.append(sizes[axis])
        for walk, operand in zip(steps, strides, strict=True):
            walk.append(operand[axis])
    return shape or [1], [walk or [0] for walk in steps]
