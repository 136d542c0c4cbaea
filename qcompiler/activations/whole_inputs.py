"""Float inputs that hold whole numbers: ids that a model turns into integers itself, as Keras models do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcompiler.feeds.tokens import casts_to_integers
from qcompiler.graph.ir import Feed, Graph, Node, QuantSpec, is_float

WHOLE = QuantSpec.per_tensor(1.0, 0, np.int16)
"""Codes that are the numbers themselves."""


def whole_inputs(graph: Graph, data: Iterable[Feed]) -> dict[str, list[Node]]:
    """Casts to integers of the float inputs whose values are whole numbers within 16 bits in all feeds, by input."""
    found = {tensor.name: casts_to_integers(tensor) for tensor in graph.inputs if is_float(tensor)}
    found = {name: casts for name, casts in found.items() if casts}
    for feed in data if found else ():
        found = {name: casts for name, casts in found.items() if _fits(np.asarray(feed[name]))}
    return found


def _fits(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, np.rint(values)) and np.abs(values).max(initial=0) <= np.iinfo(np.int16).max)
