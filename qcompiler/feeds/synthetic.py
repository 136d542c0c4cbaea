"""Feeds made up from what the graph says about its inputs.

- A float input is drawn from N(0, 1), pictures (rank 4) with equal power at every scale. One of 8-bit integers of three
  axes and more is a picture too, of some brightness and contrast, unless it picks rows of a table. Where BatchNorm
  statistics of the first layers behind it are known, its spread is then set so that these layers' outputs have the
  mean variance that was seen in training.
- An integer input that picks rows of a table is drawn from the table's rows; one that is named or used as a mask is 1.
- An integer of one number that is compared with a constant (a sample rate) is that constant.
- A symbolic dimension takes its size from ``Context.dims``, or 1 for the first axis, and a small even size for any
  other. Where the model cannot run with those (an audio model wants more samples than a text has tokens),
  `settle_sizes` looks for larger ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.graph.ir import Feed, Graph, Node, Tensor, constant_of, consumers
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import Context

__all__ = ["SyntheticFeeds", "settle_sizes"]

SEQUENCE = 32
"""Default size of a symbolic dimension of a tensor of tokens or features."""

IMAGE = 64
"""Default size of a symbolic spatial dimension."""

LARGER = ((1, 128), (1, 512), (1, 1536), (1, 4096), (1, 16384), (SEQUENCE, SEQUENCE))
"""Sizes of the first axis and of the others that are tried where the default ones do not run."""

LARGEST_IMAGE = 512
"""The largest side of a picture among them."""

SMALLEST = 4
"""Patches a side at the coarsest scale of a made-up picture."""

_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class SyntheticFeeds:
    """``count`` feeds, the same at every iteration."""

    graph: Graph
    ctx: Context
    count: int

    def __iter__(self) -> Iterator[Feed]:
        rng = np.random.default_rng(self.ctx.seed)
        spread = _spreads(self.graph, self.ctx)
        for _ in range(self.count):
            yield {
                tensor.name: _draw(tensor, self.ctx, rng, spread.get(tensor.name, 1.0)) for tensor in self.graph.inputs
            }


def settle_sizes(graph: Graph, ctx: Context) -> None:
    """Give ``ctx.dims`` sizes of `LARGER` for the symbols that have none, if the model runs with those and not with
    the default ones; nothing is changed where it runs with none.
    """
    places: dict[str, tuple[int, bool]] = {}
    for tensor in graph.inputs:
        symbols = [(axis, size) for axis, size in enumerate(tensor.shape or ()) if isinstance(size, str)]
        for order, (axis, size) in enumerate(symbols):  # the first one of [2, batch, 128] is a batch, too
            image = len(tensor.shape or ()) == 4
            if size not in ctx.dims:
                places.setdefault(size, (axis if image else order, image))
    if not places:
        return
    runner, given = Runner(graph), dict(ctx.dims)
    larger = ({name: _larger(*place, *sizes) for name, place in places.items()} for sizes in LARGER)
    for found in ({}, *larger):
        ctx.dims = given | found
        try:
            runner.run(next(iter(SyntheticFeeds(graph, ctx, 1))))
        except ModelError:
            continue
        return
    ctx.dims = given


def _larger(axis: int, image: bool, first: int, others: int) -> int:
    """The size of an axis when the first one is ``first`` and the others ``others``; pictures have three channels."""
    if axis == 0:
        return first
    if not image:
        return others
    return 3 if axis == 1 else min(others, LARGEST_IMAGE)


def _draw(tensor: Tensor, ctx: Context, rng: np.random.Generator, spread: float) -> NDArray[Any]:
    dtype, shape = np.dtype(tensor.dtype), _shape(tensor, ctx)
    if np.issubdtype(dtype, np.floating):
        values = (
            _image(shape, rng) if len(shape) == 4 and min(_sides(shape)) >= 2 * SMALLEST else rng.standard_normal(shape)
        )
        return (spread * values).astype(dtype)
    high = _table_rows(tensor)
    if _holds_bytes(tensor) and not high:
        return _picture(shape, dtype, rng)
    if dtype == np.bool_ or _is_mask(tensor):
        return np.ones(shape, dtype)
    known = _compared_with(tensor)
    if known is not None and np.prod(shape) == 1:
        return np.full(shape, known, dtype)
    return rng.integers(0, high, shape).astype(dtype) if high else np.zeros(shape, dtype)


def _holds_bytes(tensor: Tensor) -> bool:
    """True for 8-bit integers of three axes and more that are not called a mask."""
    dtype = np.dtype(tensor.dtype)
    return (
        dtype.kind in "iu"
        and dtype.itemsize == 1
        and len(tensor.shape or ()) >= 3
        and "mask" not in tensor.name.lower()
    )


def _picture(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """8-bit values around a grey between a quarter and three quarters of full brightness."""
    large = len(shape) == 4 and min(_sides(shape)) >= 2 * SMALLEST
    values = _image(shape, rng) if large else rng.standard_normal(shape)
    limits = np.iinfo(dtype)
    grey, contrast = limits.min + 255 * rng.uniform(0.25, 0.75), 255 * rng.uniform(0.1, 0.3)
    return np.clip(np.rint(grey + contrast * values), limits.min, limits.max).astype(dtype)


def _channels_last(shape: tuple[Any, ...]) -> bool:
    """True where the last of four axes holds one, three or four channels, and the second one more."""
    return len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width."""
    return shape[1:3] if _channels_last(shape) else shape[2:]


def _image(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of equal power at every scale, as pictures have it: white noise hardly excites filters that look for large
    things.
    """
    if _channels_last(shape):
        return np.ascontiguousarray(np.moveaxis(_image((shape[0], shape[3], *shape[1:3]), rng), 1, 3))
    height, width = shape[2:]
    total, size = rng.standard_normal(shape), SMALLEST
    while size < min(height, width):
        rows, columns = (np.minimum(np.arange(length) * size // length, size - 1) for length in (height, width))
        total += rng.standard_normal((*shape[:2], size, size))[:, :, rows][:, :, :, columns]
        size *= 2
    return np.asarray((total - total.mean()) / total.std())


def _shape(tensor: Tensor, ctx: Context) -> tuple[int, ...]:
    shape = tensor.shape if tensor.shape is not None else ()
    image = len(shape) == 4 and (np.issubdtype(np.dtype(tensor.dtype), np.floating) or _holds_bytes(tensor))
    last = image and _channels_last(tuple(shape))
    return tuple(_size(dim, axis + 1 if last and axis else axis, image, ctx) for axis, dim in enumerate(shape))


def _size(dim: Any, axis: int, image: bool, ctx: Context) -> int:
    if isinstance(dim, int | np.integer) and dim >= 0:
        return int(dim)
    if dim in ctx.dims:
        return ctx.dims[dim]
    if axis == 0:
        return 1
    if image and axis == 1:
        return 3
    return IMAGE if image else SEQUENCE


def _is_mask(tensor: Tensor) -> bool:
    """By name, or by use: converted to float or bool instead of picking rows."""
    if "mask" in tensor.name.lower():
        return True
    readers = _readers_behind(tensor)
    return any(node.op == "Cast" for node in consumers(tensor)) and not any(node.op == "Gather" for node in readers)


def _compared_with(tensor: Tensor) -> int | None:
    """The one constant number that ``tensor`` is compared with for equality; None where there is none, or several."""
    others = [
        constant_of(other) for node in _readers_behind(tensor) if node.op == "Equal"
        for other in node.inputs if constant_of(other) is not None
    ]  # fmt: skip
    numbers = {int(value.reshape(-1)[0]) for value in others if value is not None and value.size == 1}
    return numbers.pop() if len(numbers) == 1 else None


def _readers_behind(tensor: Tensor) -> list[Node]:
    """Consumers of a tensor, through nodes that only pass it on."""
    found: list[Node] = []
    for node in consumers(tensor):
        found.append(node)
        if node.op in _PASSING:
            found += _readers_behind(node.outputs[0])
    return found


def _table_rows(tensor: Tensor) -> int | None:
    """Rows of the smallest table that ``tensor`` picks from."""
    sizes = []
    for node in _readers_behind(tensor):
        table = constant_of(node.inputs[0]) if node.op == "Gather" else None
        if table is not None and table.ndim:
            sizes.append(table.shape[int(node.attrs.get("axis", 0))])
    return min(sizes, default=None)


def _spreads(graph: Graph, ctx: Context) -> dict[str, float]:
    """Standard deviation of each float input under which the layers it feeds have the variance their BatchNorm saw."""
    layers = [
        (tensor, node.outputs[0].name)
        for tensor in graph.inputs
        for node in consumers(tensor)
        if node.outputs[0].name in ctx.batchnorm
    ]
    if not layers:
        return {}
    rng = np.random.default_rng(ctx.seed)
    feed = {tensor.name: _draw(tensor, ctx, rng, 1.0) for tensor in graph.inputs}
    values = Runner(graph, [name for _, name in layers]).run(feed)
    spreads: dict[str, list[float]] = {}
    for tensor, name in layers:
        out = values[name]
        axes = tuple(axis for axis in range(out.ndim) if axis != 1)
        ratio = ctx.batchnorm[name].variance / np.maximum(out.astype(np.float64).var(axis=axes), 1e-12)
        spreads.setdefault(tensor.name, []).append(float(np.sqrt(np.median(ratio))))
    return {name: float(np.mean(found)) for name, found in spreads.items()}
