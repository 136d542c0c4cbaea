"""Ranks and sizes of tensors, as the lowering needs them."""

from __future__ import annotations

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Tensor


def rank_of(tensor: Tensor) -> int:
    """Number of axes.

    Raises:
        UnsupportedError: the rank is unknown.
    """
    if tensor.shape is None:
        raise UnsupportedError(f"the rank of '{tensor.name}' is unknown; run shape inference on the model first")
    return len(tensor.shape)


def static_shape(tensor: Tensor, why: str) -> list[int]:
    """The shape, all of whose sizes after the first (the batch) must be numbers; a symbolic batch is returned as -1.

    Raises:
        UnsupportedError: another size is symbolic or unknown.
    """
    rank_of(tensor)
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    if any(size < 0 for size in sizes[1:]):
        raise UnsupportedError(
            f"{why}, but '{tensor.name}' has the shape {list(tensor.shape)}; fix its sizes: --dim NAME=SIZE"
        )
    return sizes


def size_along(tensor: Tensor, axis: int) -> int | None:
    """The size of one axis; None when it is symbolic."""
    rank_of(tensor)
    size = tensor.shape[axis]
    return size if isinstance(size, int) else None


def count_along(tensor: Tensor, axes: list[int]) -> int | None:
    """Number of elements over ``axes``; None when one of them is symbolic."""
    total = 1
    for axis in axes:
        size = size_along(tensor, axis)
        if size is None:
            return None
        total *= size
    return total
