"""Feeds made up from what the graph says about its inputs.

- A float input is drawn from N(0, 1), pictures (rank 4) with equal power at every scale. One of 8-bit integers of three
  axes and more is a picture too, of some brightness and contrast, unless it picks rows of a table. Where BatchNorm
  statistics of the first layers behind it are known, its spread is then set so that these layers' outputs have the
  mean variance that was seen in training.
- Ids, masks, segments and positions of token models: see `qcompiler.feeds.tokens`.
- An integer of one number that is compared with a constant (a sample rate) is that constant.
- A symbolic dimension takes its size from ``Context.dims``, or 1 for the first axis, and a small even size for any
  other; with tokens, each feed has one of several lengths. Where the model cannot run with those, or says hardly
  anything (an audio model wants more samples than a text has tokens), `settle_sizes` looks for others.

What is to be drawn is read from the graph once: passes rewrite it, and the feeds stay the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import ModelError
from qcompiler.feeds.tokens import TokenInput, drawn_share, readers_behind, token_input
from qcompiler.graph.ir import Feed, Graph, Tensor, constant_of, consumers
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import BatchNormStatistics, Context
from qcompiler.shapes.decided import decided_sizes

__all__ = ["SyntheticFeeds", "settle_sizes"]

SEQUENCE = 32
"""Default size of a symbolic dimension of a tensor of tokens or features."""

LENGTHS = (4, 2, 1)
"""Texts have up to so many times `SEQUENCE` tokens: the first of these that the model takes."""

IMAGE = 64
"""Default size of a symbolic spatial dimension."""

TRIED = ((1, 128), (1, 512), (1, 1536), (1, 4096), (1, 16384), (SEQUENCE, SEQUENCE), (128, 128), (1, 12))
"""Sizes of the first axis and of the others that are tried where the default ones do not run."""

LARGEST_IMAGE = 512
"""The largest side of a picture among them."""

FEWEST = 2
"""Size of an output's symbolic axis (frames of audio) below which larger inputs are tried."""

SHORTEST = 8
"""Tokens of the shortest text."""

SMALLEST = 4
"""Side of a made-up picture's coarsest scale, in patches."""


@dataclass(frozen=True, eq=False)
class _Input:
    """One input and how it is drawn: as tokens, as numbers of some spread, or as the one number that is ``known``."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]
    tokens: TokenInput | None
    is_bytes: bool
    spread: float = 1.0
    known: int | None = None


class SyntheticFeeds:
    """``count`` feeds, the same at every iteration, whatever becomes of the graph.

    Args:
        graph: as it is now; nothing of it is read later.
        ctx: seed, sizes of dimensions and BatchNorm statistics.
        count: how many.
    """

    def __init__(self, graph: Graph, ctx: Context, count: int) -> None:
        self._seed, self._count, self._dims = ctx.seed, count, dict(ctx.dims)
        plain = [_read_input(graph, tensor) for tensor in graph.inputs]
        self._lengths = _lengths_taken(graph, plain, ctx)
        spreads = _spreads(graph, plain, ctx)
        self._inputs = [replace(each, spread=spreads.get(each.name, 1.0)) for each in plain]

    def __iter__(self) -> Iterator[Feed]:
        rng = np.random.default_rng(self._seed)
        for _ in range(self._count):
            length = int(rng.choice(self._lengths)) if len(self._lengths) > 1 else self._lengths[0]
            yield _feed(self._inputs, self._dims, length, rng)


def settle_sizes(graph: Graph, ctx: Context) -> None:
    """Give ``ctx.dims`` the sizes that weights decide; and sizes of `TRIED` for the symbols that have none, if the
    model runs with those and not with the default ones, or if every output then has `FEWEST` elements along its
    symbolic axes and not with the default ones; nothing is changed where it runs with none.
    """
    places: dict[str, tuple[int, bool]] = {}
    for tensor in graph.inputs:
        symbols = [(axis, size) for axis, size in enumerate(tensor.shape or ()) if isinstance(size, str)]
        for order, (axis, size) in enumerate(symbols):  # the first one of [2, batch, 128] is a batch, too
            rank = len(tensor.shape or ())
            if size not in ctx.dims:
                places.setdefault(size, (order if rank == 3 else axis, rank == 4))
    if not places or not graph.nodes:  # the inputs of a program, which any sizes fit
        return
    decided = decided_sizes(graph)
    given = dict(ctx.dims) | {name: decided[name] for name in places if name in decided}
    runner, runs, free = Runner(graph), [], {name: places[name] for name in places if name not in decided}
    larger = ({name: _larger(*place, *sizes) for name, place in free.items()} for sizes in TRIED if free)
    for found in ({}, *larger):
        ctx.dims = given | found
        try:
            outputs = runner.run(next(iter(SyntheticFeeds(graph, ctx, 1))))
        except ModelError:
            continue
        if not any(_hardly_anything(tensor, outputs[tensor.name], places) for tensor in graph.outputs):
            return
        runs.append(found)
    ctx.dims = given | (runs[0] if runs else {})


def _hardly_anything(tensor: Tensor, value: NDArray[Any], inputs: Container[str]) -> bool:
    """True for an output with fewer than `FEWEST` elements along a symbolic axis that is not one of the inputs'."""
    shape = tensor.shape if tensor.shape is not None and len(tensor.shape) == value.ndim else value.shape
    return value.size == 0 or any(
        isinstance(size, str) and size not in inputs and axis > 0 and value.shape[axis] < FEWEST
        for axis, size in enumerate(shape)
    )


def _larger(axis: int, image: bool, first: int, others: int) -> int:
    """The size of an axis when the first one is ``first`` and the others ``others``; pictures have three channels."""
    if axis == 0:
        return first
    if not image:
        return others
    return 3 if axis == 1 else min(others, LARGEST_IMAGE)


def _read_input(graph: Graph, tensor: Tensor) -> _Input:
    shape = tuple(tensor.shape) if tensor.shape is not None else ()
    tokens = token_input(graph, tensor)
    is_bytes = _holds_bytes(tensor) and (tokens is None or tokens.kind == "mask")
    dtype = np.dtype(tensor.dtype)
    known = _compared_with(tensor) if dtype.kind in "iu" and all(size == 1 for size in shape) else None
    return _Input(tensor.name, dtype, shape, None if is_bytes else tokens, is_bytes, known=known)


def _feed(inputs: Sequence[_Input], dims: Mapping[str, int], length: int, rng: np.random.Generator) -> Feed:
    """One feed; all its texts have the same share of padding."""
    used = drawn_share(rng) if any(each.tokens is not None for each in inputs) else 1.0
    return {each.name: np.asarray(_draw(each, _shape(each, dims, length), used, rng)) for each in inputs}


def _lengths_taken(graph: Graph, inputs: Sequence[_Input], ctx: Context) -> tuple[int, ...]:
    """Lengths of a symbolic dimension. A table of positions ends somewhere, so the longest is tried."""
    open_axes = any(
        each.tokens is not None and any(isinstance(dim, str) and dim not in ctx.dims for dim in each.shape[1:])
        for each in inputs
    )
    if not open_axes:
        return (SEQUENCE,)
    runner = Runner(graph)
    for factor in LENGTHS[:-1]:
        longest = factor * SEQUENCE
        try:
            runner.run(_feed(inputs, ctx.dims, longest, np.random.default_rng(ctx.seed)))
        except ModelError:
            continue
        return tuple(longest >> halvings for halvings in range(longest.bit_length()) if longest >> halvings >= SHORTEST)
    return (SEQUENCE,)


def _draw(each: _Input, shape: tuple[int, ...], used: float, rng: np.random.Generator) -> NDArray[Any]:
    if each.known is not None:
        return np.full(shape, each.known, each.dtype)
    if each.tokens is not None:
        return each.tokens.draw(shape, each.dtype, used, rng)
    if np.issubdtype(each.dtype, np.floating):
        values = (
            _image(shape, rng) if len(shape) == 4 and min(_sides(shape)) >= 2 * SMALLEST else rng.standard_normal(shape)
        )
        return (each.spread * values).astype(each.dtype)
    return _picture(shape, each.dtype, rng) if each.is_bytes else np.zeros(shape, each.dtype)


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
    """Noise of equal power at every scale, as in pictures: white noise hardly excites filters for large structures."""
    if _channels_last(shape):
        return np.ascontiguousarray(np.moveaxis(_image((shape[0], shape[3], *shape[1:3]), rng), 1, 3))
    height, width = shape[2:]
    total, size = rng.standard_normal(shape), SMALLEST
    while size < min(height, width):
        rows, columns = (np.minimum(np.arange(length) * size // length, size - 1) for length in (height, width))
        total += rng.standard_normal((*shape[:2], size, size))[:, :, rows][:, :, :, columns]
        size *= 2
    return np.asarray((total - total.mean()) / total.std())


def _shape(each: _Input, dims: Mapping[str, int], length: int) -> tuple[int, ...]:
    image = len(each.shape) == 4 and (np.issubdtype(each.dtype, np.floating) or each.is_bytes) and each.tokens is None
    last = image and _channels_last(each.shape)
    return tuple(
        _size(dim, axis + 1 if last and axis else axis, IMAGE if image else length, image, dims)
        for axis, dim in enumerate(each.shape)
    )


def _size(dim: Any, axis: int, usual: int, image: bool, dims: Mapping[str, int]) -> int:
    if isinstance(dim, int | np.integer) and dim >= 0:
        return int(dim)
    if dim in dims:
        return dims[dim]
    if axis == 0:
        return 1
    return 3 if image and axis == 1 else usual


def _compared_with(tensor: Tensor) -> int | None:
    """The one constant number that ``tensor`` is compared with for equality; None where there is none, or several."""
    others = [
        constant_of(other) for node in readers_behind(tensor) if node.op == "Equal"
        for other in node.inputs if constant_of(other) is not None
    ]  # fmt: skip
    numbers = {int(value.reshape(-1)[0]) for value in others if value is not None and value.size == 1}
    return numbers.pop() if len(numbers) == 1 else None


def _statistics(graph: Graph, ctx: Context) -> dict[str, BatchNormStatistics]:
    """What BatchNorms saw, by name of their outputs: of folded ones, and of those that the graph still has."""
    found = dict(ctx.batchnorm)
    for node in graph.nodes:
        values = [constant_of(tensor) for tensor in node.inputs[1:3]] if node.op == "BatchNormalization" else [None]
        if all(value is not None for value in values):
            gamma, beta = (np.asarray(value, np.float64) for value in values)
            found[node.outputs[0].name] = BatchNormStatistics(beta, gamma**2)
    return found


def _first_layers(tensor: Tensor, known: Mapping[str, BatchNormStatistics]) -> Iterator[str]:
    """Names of the outputs with statistics that a layer behind ``tensor`` gives, before or behind a BatchNorm."""
    for node in consumers(tensor):
        behind = [after.outputs[0].name for after in consumers(node.outputs[0]) if after.op == "BatchNormalization"]
        yield from (name for name in (node.outputs[0].name, *behind) if name in known)


def _spreads(graph: Graph, inputs: Sequence[_Input], ctx: Context) -> dict[str, float]:
    """Standard deviation of each float input under which the layers it feeds have the variance their BatchNorm saw."""
    known = _statistics(graph, ctx)
    layers = [(tensor.name, name) for tensor in graph.inputs for name in _first_layers(tensor, known)]
    if not layers:
        return {}
    feed = _feed(inputs, ctx.dims, SEQUENCE, np.random.default_rng(ctx.seed))
    try:
        values = Runner(graph, [name for _, name in layers]).run(feed)
    except ModelError:
        return {}  # whoever runs the feeds says so
    spreads: dict[str, list[float]] = {}
    for tensor, name in layers:
        out = values[name]
        axes = tuple(axis for axis in range(out.ndim) if axis != 1)
        ratio = known[name].variance / np.maximum(out.astype(np.float64).var(axis=axes), 1e-12)
        spreads.setdefault(tensor, []).append(float(np.sqrt(np.median(ratio))))
    return {name: float(np.mean(found)) for name, found in spreads.items()}
