"""Puts other ranges in the place of those that a graph was fitted with.

A grid that is still the one it was given, or its 16-bit or signed form, becomes the same form of another one. Others
(of few bits, on a curve) were searched and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from qcompiler.activations.int16 import wide_spec
from qcompiler.activations.pairs import set_grid
from qcompiler.calibration.sensitivity import find_pairs
from qcompiler.graph.ir import Graph, Node, QuantSpec, names_in, producer, read_spec

__all__ = ["settle"]


def _as_it_is(spec: QuantSpec, _source: Node | None) -> QuantSpec:
    return spec


def _wide(spec: QuantSpec, source: Node | None) -> QuantSpec:
    return wide_spec(spec, source) if spec.dtype == np.uint8 else spec


def _signed(spec: QuantSpec, _source: Node | None) -> QuantSpec:
    return (
        QuantSpec.per_tensor(float(spec.scale), int(spec.zero_point) - 128, np.int8) if spec.dtype == np.uint8 else spec
    )


_FORMS: tuple[Callable[[QuantSpec, Node | None], QuantSpec], ...] = (_as_it_is, _wide, _signed)


def settle(graph: Graph, grids: Mapping[str, tuple[QuantSpec, QuantSpec]]) -> bool:
    """Replace grids in place; True when one changed.

    Args:
        graph: with Q/DQ pairs.
        grids: by the name of a tensor in front of a pair, the grid it was given and the other one.
    """
    taken, changed = names_in(graph), False
    for pair in find_pairs(graph):
        now, source = read_spec(pair.quantize), producer(pair.quantize.inputs[0])
        if now is None or pair.name not in grids:
            continue
        given, other = grids[pair.name]
        form = next((form for form in _FORMS if now.same_as(form(given, source))), None)
        if form is not None and not now.same_as(form(other, source)):
            set_grid(pair, form(other, source), taken)
            changed = True
    return changed
