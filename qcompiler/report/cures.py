"""What brings an output back whose accuracy has collapsed; each cure is tried before a warning names it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompiler.activations.pairs import set_grid
from qcompiler.calibration.sensitivity import find_pairs
from qcompiler.errors import ModelError
from qcompiler.graph.ir import Graph, copy_of, names_in, read_spec, replace_uses
from qcompiler.graph.runner import Runner
from qcompiler.records import OutputFigure
from qcompiler.report.honest import Judge

__all__ = ["find_cures"]

GAIN_DB = 6.0
"""Least gain (dB) of a cure that is reported."""


def find_cures(graph: Graph, judge: Judge) -> dict[tuple[str, str], str]:
    """By output and columns, the tried cure that brought at least `GAIN_DB`, with its gain; no entry where none did.

    Args:
        graph: with Q/DQ pairs; it is not changed.
        judge: of the outputs.
    """
    before = {_key(each): each.sqnr_db for each in judge.figures(Runner(graph).run)}
    found: dict[tuple[str, str], str] = {}
    for text, changed in _cures(graph):
        try:
            figures = judge.figures(Runner(changed).run)
        except ModelError:  # other grids of what decides sizes
            continue
        for each in figures:
            if _key(each) not in found and each.sqnr_db >= before.get(_key(each), np.inf) + GAIN_DB:
                found[_key(each)] = text.format(each.sqnr_db)
    return found


def _key(figure: OutputFigure) -> tuple[str, str]:
    return figure.output, figure.columns


def _cures(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """What to say, and the graph as it would be."""
    wide = _widened(copy_of(graph))
    yield "with 16 bits for all activations (--activations int16) it is {:.1f} dB", wide
    yield (
        "its weights need more bits (see --weights): with float ones it is {:.1f} dB",
        _with_float_weights(copy_of(graph)),
    )
    yield (
        "it needs more bits for weights and activations: with float weights and --activations int16 it is {:.1f} dB",
        _with_float_weights(wide),
    )


def _widened(graph: Graph) -> Graph:
    """The graph with 16-bit grids over the ranges of its 8-bit ones."""
    taken = names_in(graph)
    for pair in find_pairs(graph):
        spec = read_spec(pair.quantize)
        if spec is not None and not pair.is_weight and spec.dtype.itemsize == 1 and spec.axis is None:
            set_grid(pair, spec.widened(), taken)
    return graph


def _with_float_weights(graph: Graph) -> Graph:
    for pair in find_pairs(graph):
        if pair.is_weight:
            replace_uses(graph, pair.dequantize.outputs[0], pair.quantize.inputs[0])
    return graph.cleanup(remove_unused_graph_inputs=False).toposort()
