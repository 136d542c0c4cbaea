"""Three branches of one layer: how weights fall into them, and how to find them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcompiler.graph.ir import Graph, Node, constant_of
from qcompiler.graph.operators import LAYERS
from qcompiler.grids import cluster_centres
from qcompiler.rewriting.match import Array, made_by, sole_user, standard

BRANCHES = 3


@dataclass(frozen=True)
class Split:
    """Three layers of the same input whose results are added: ``total`` is the second Add."""

    branches: tuple[Node, ...]
    total: Node


def clusters(values: Array) -> list[Array]:
    """``values`` as three arrays of their shape that hold the low, the middle and the high ones, and zeros elsewhere.

    The bounds lie halfway between the centres of the best three clusters; a value on a bound belongs to the outer side.
    Fewer than three different values fill as many arrays. The sum of the three is ``values``, bit for bit.
    """
    centres = cluster_centres(values, BRANCHES)
    bounds = (centres[1:] + centres[:-1]) / 2
    low = values <= bounds[0] if len(bounds) else np.ones(values.shape, np.bool_)
    high = (values >= bounds[1]) & ~low if len(bounds) > 1 else np.zeros(values.shape, np.bool_)
    zero = np.zeros((), values.dtype)
    return [np.where(mask, values, zero) for mask in (low, ~low & ~high, high)]


def disjoint(parts: list[Array]) -> bool:
    """True where no place has more than one value that is not zero."""
    return bool(np.all(sum((part != 0).astype(np.int8) for part in parts) <= 1))


def find_splits(graph: Graph) -> Iterator[Split]:
    """Layers in three branches with float weights that do not overlap, in graph order."""
    for total in standard(graph, "Add"):
        inner = made_by(total.inputs[0], "Add")
        if inner is None:
            continue
        operands = [*inner.inputs, total.inputs[1]]
        if sole_user(graph, inner.outputs[0]) is not total:
            continue
        branches = [made_by(tensor, *LAYERS) for tensor in operands]
        found = tuple(
            branch
            for branch in branches
            if branch is not None and sole_user(graph, branch.outputs[0]) in (inner, total)
        )
        if len(found) == BRANCHES and _alike(found):
            yield Split(found, total)


def _alike(branches: Sequence[Node]) -> bool:
    first = branches[0]
    if any(
        node.op != first.op or node.attrs != first.attrs or node.inputs[0] is not first.inputs[0] for node in branches
    ):
        return False
    weights = [constant_of(node.inputs[1]) for node in branches]
    parts = [weight for weight in weights if weight is not None and weight.dtype.kind == "f"]
    if len(parts) < len(branches):
        return False
    return (
        len({part.shape for part in parts}) == 1
        and len({len(node.inputs) for node in branches}) == 1
        and disjoint(parts)
    )
