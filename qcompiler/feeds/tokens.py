"""Made-up inputs of token models: ids, masks, segments and positions that look used.

What a net for text does depends on padding as much as on words. So each feed has some length of its own and holds
padding behind it, wherever an input says which tokens count. Ids are drawn from the embedding that they pick from, and
what that table says about its rows stands in for the tokenizer:

- rows that training never moved lie close together, with little energy: they are left out;
- rows that training used most carry a few large coordinates, so their kurtosis is high: separators, punctuation, the
  shortest words. Half of all tokens are drawn from these, and so are the ends of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, consumers
from qcompiler.graph.mask_inputs import mask_inputs

__all__ = ["Kind", "TokenInput", "drawn_share", "token_input"]

Array = NDArray[Any]
Kind = Literal["ids", "mask", "fill", "segments", "positions"]

SEGMENTS = 4
"""A table of at most so many rows holds kinds of segments, not words."""

USUAL = 64
"""Rows of highest kurtosis that stand for the most usual tokens; of small tables, an eighth."""

UNMOVED = 0.5
"""Rows whose energy is less than this part of the table's median were hardly ever used."""

FULL = 0.25
"""Share of texts without padding."""

FILL = -1e4
"""What an additive mask holds at padding."""

_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_WRAPPING = frozenset({"Add", "Mod", "Mul", "Where"})
"""Arithmetic of integers by which negative indices count from the end."""


@dataclass(frozen=True, eq=False)
class TokenInput:
    """How to draw one input of ids, masks or positions, read from the graph once.

    Attributes:
        kind: what its values are; ``fill`` is a mask that is added to scores.
        rows: size of the smallest table that it picks from.
        usual, others: ids [n] of the most usual tokens, and of all that were used.
        padding: id behind the end of a text.
    """

    kind: Kind
    rows: int = 0
    usual: Array | None = None
    others: Array | None = None
    padding: int = 0

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any], used: float, rng: np.random.Generator) -> Array:
        """An array of ``shape`` with padding behind the share ``used`` of its last axis."""
        length = shape[-1] if shape else 1
        count = max(min(round(used * length), length), 1)
        inside = np.arange(length) < count
        if self.kind in ("mask", "fill"):
            return np.broadcast_to(inside if self.kind == "mask" else np.where(inside, 0, FILL), shape).astype(dtype)
        if self.kind == "positions":
            return np.broadcast_to(np.arange(length) % max(self.rows, 1), shape).astype(dtype)
        if self.kind == "segments":
            turn = rng.integers(0, count + 1)
            second = (np.arange(length) >= turn) & inside
            return np.broadcast_to(np.where(second, min(1, self.rows - 1), 0), shape).astype(dtype)
        return self._ids(shape, count, rng).astype(dtype)

    def _ids(self, shape: tuple[int, ...], count: int, rng: np.random.Generator) -> Array:
        """Words between two usual tokens, and padding."""
        usual, others = np.asarray(self.usual), np.asarray(self.others)
        ids = np.where(rng.random(shape) < 0.5, rng.choice(usual, shape), rng.choice(others, shape))
        if shape:
            ids[..., 0], ids[..., count - 1] = usual[0], rng.choice(usual[: max(len(usual) // 8, 1)])
            ids[..., count:] = self.padding
        return ids


def drawn_share(rng: np.random.Generator) -> float:
    """The part of a text's length that holds tokens."""
    return 1.0 if rng.random() < FULL else float(rng.uniform(0.1, 1.0))


def token_input(graph: Graph, tensor: Tensor) -> TokenInput | None:
    """How to draw ``tensor``; None where it is neither a mask nor picks rows of a table."""
    known = mask_inputs(graph).get(tensor.name)
    dtype = np.dtype(tensor.dtype)
    if known is not None and dtype.kind == "f":
        return TokenInput("fill" if known.hi == 0 else "mask")
    if dtype.kind not in "iub" and not casts_to_integers(tensor):
        return None
    tables = [table for node in readers_behind(tensor) if (table := picked_table(node)) is not None]
    if dtype == np.bool_ or (dtype.kind in "iu" and _is_mask(tensor)):
        return TokenInput("mask")
    if not tables:
        return None
    table = min(tables, key=len)
    if len(table) == 1:
        return None
    if "position" in tensor.name.lower():
        return TokenInput("positions", len(table))
    if len(table) <= SEGMENTS:
        return TokenInput("segments", len(table))
    padding = _padding_id(tensor, len(table))
    usual, others = _ranked(max(tables, key=lambda each: each[0].size), len(table), padding)
    return TokenInput("ids", len(table), usual, others, padding)


def _ranked(table: Array, rows: int, padding: int) -> tuple[Array, Array]:
    """Ids of the most usual tokens, best first, and of all that training used; without that of padding."""
    words = np.delete(np.arange(rows), padding)
    values = np.asarray(table[:rows], np.float64).reshape(rows, -1)[words]
    if values.shape[1] < SEGMENTS:
        return words, words
    centred = values - values.mean(axis=1, keepdims=True)
    variance = np.maximum(np.square(centred).mean(axis=1), 1e-30)
    kurtosis = np.square(np.square(centred)).mean(axis=1) / np.square(variance)
    moved = np.flatnonzero(variance >= UNMOVED**2 * np.median(variance))
    order = moved[np.argsort(-kurtosis[moved], kind="stable")]
    return words[order[: max(min(USUAL, len(order) // 8), 1)]], words[moved]


def _padding_id(tensor: Tensor, rows: int) -> int:
    """The id that the graph compares ids with, else 0."""
    for node in readers_behind(tensor):
        values = [constant_of(other) for other in node.inputs if other is not tensor] if node.op == "Equal" else []
        for value in values:
            if value is not None and value.size == 1 and 0 <= int(value.reshape(())) < rows:
                return int(value.reshape(()))
    return 0


def picked_table(node: Node) -> Array | None:
    """The constant table that a Gather picks rows of."""
    table = constant_of(node.inputs[0]) if node.op == "Gather" else None
    if table is None or not table.ndim or not table.size:
        return None
    return np.moveaxis(table, int(node.attrs.get("axis", 0)), 0)


def _is_mask(tensor: Tensor) -> bool:
    """By name, or by use: converted to float or bool instead of picking rows."""
    if "mask" in tensor.name.lower():
        return True
    readers = readers_behind(tensor)
    return any(node.op == "Cast" for node in consumers(tensor)) and not any(node.op == "Gather" for node in readers)


def casts_to_integers(tensor: Tensor) -> list[Node]:
    """Casts of a float tensor to integers, as embeddings of models whose inputs are all floats begin."""
    if np.dtype(tensor.dtype).kind != "f":
        return []
    return [
        node
        for node in consumers(tensor)
        if node.op == "Cast" and node.outputs[0].dtype is not None and np.dtype(node.outputs[0].dtype).kind in "iu"
    ]


def readers_behind(tensor: Tensor) -> Sequence[Node]:
    """Consumers of a tensor, through nodes that only pass it on."""
    found: list[Node] = []
    for node in consumers(tensor):
        found.append(node)
        if node.op in _PASSING or (node.op in _WRAPPING and _is_whole(node.outputs[0])):
            found += readers_behind(node.outputs[0])
    return found


def _is_whole(tensor: Tensor) -> bool:
    return tensor.dtype is not None and np.dtype(tensor.dtype).kind in "iu"
