"""Time of each layer's product on each grid of a menu: measured here, or read from an earlier report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.weight_sensitivity import RoundedWeight
from qcompiler.errors import OptionError
from qcompiler.graph.ir import Feed, Graph, spec_of
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.graph.runner import Runner
from qcompiler.records import LayerTime
from qcompiler.weights.allocation import OptionTable, allocate
from qcompiler.weights.layer_time import KINDS, kind_of_weight, layer_shape, nanoseconds

_ELSE = {"int2": "2", "int4": "4", "int5": "8", "int6": "8"}
"""What stands for a kind of weight that a report has no time of."""

Clock = Callable[[Graph, Sequence[str], Feed], list[LayerTime]]
"""Gives the times of the layers of a graph with activations on their grids, by name of their nodes, at the sizes of a
feed.
"""


def measured_times(graph: Graph, names: Sequence[str], feed: Feed) -> list[LayerTime]:
    """The clock of this machine. A layer that the machine does not run takes no time."""
    layers = {layer.node.name: layer for layer in find_layers(graph)}
    wanted = list(dict.fromkeys(layers[name].node.inputs[0].name for name in names))
    shapes = {name: value.shape for name, value in Runner(graph, wanted).run(feed).items()}
    return [LayerTime(name, _times(layers[name], shapes[layers[name].node.inputs[0].name])) for name in names]


def _times(layer: Layer, x: tuple[int, ...]) -> dict[str, int]:
    spec = spec_of(layer.node.inputs[0])
    found = {} if spec is None else nanoseconds(layer_shape(layer, x, spec.dtype.name))
    return {kind: found.get(kind, 0) for kind in KINDS}


def reported_times(path: Path, names: Sequence[str]) -> list[LayerTime]:
    """The times of the layers from a report.

    Raises:
        OptionError: the file is no report with times, or misses a layer.
    """
    try:
        layers = json.loads(path.read_text(encoding="utf-8"))["allocation"]["time"]["layers"]
        known = {str(layer["node"]): {k: int(v) for k, v in layer["nanoseconds"].items()} for layer in layers}
        for nanoseconds_of_layer in known.values():
            _all_kinds(nanoseconds_of_layer)
    except OSError as error:
        raise OptionError(f"--latency-costs {path}: {error.strerror}; name a report that --report wrote") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"--latency-costs {path}: holds no times of layers; name a report of a compilation with --latency-budget"
        ) from error
    missing = [name for name in names if name not in known]
    if missing:
        raise OptionError(
            f"--latency-costs {path}: has no time of layer '{missing[0]}'; it must come from the same "
            "model with the same options"
        )
    return [LayerTime(name, known[name]) for name in names]


def _all_kinds(nanoseconds: Mapping[str, int]) -> dict[str, int]:
    return {kind: int(nanoseconds[kind if kind in nanoseconds else _ELSE.get(kind, kind)]) for kind in KINDS}


@dataclass(frozen=True, eq=False)
class OptionTimes:
    """Times of all options of all layers.

    Attributes:
        layers: what was measured.
        table: int64 [L, O], nanoseconds.
    """

    layers: list[LayerTime]
    table: NDArray[np.int64]

    @staticmethod
    def of(layers: Sequence[LayerTime], weights: Mapping[str, Sequence[RoundedWeight]]) -> OptionTimes:
        """The times of layers on each of their grids."""
        times = {layer.node: _all_kinds(layer.nanoseconds) for layer in layers}
        rows = [
            [
                times[layer.node][kind_of_weight(weight.distinct, int(np.abs(weight.levels).max()), weight.block)]
                for weight in weights[layer.node]
            ]
            for layer in layers
        ]
        return OptionTimes(list(layers), np.array(rows, np.int64))

    @property
    def full(self) -> int:
        """Of all layers with weights of 8 bits."""
        return sum(layer.nanoseconds["8"] for layer in self.layers)

    @property
    def differ(self) -> bool:
        """True where the grid matters to some layer."""
        return any(len(set(layer.nanoseconds.values())) > 1 for layer in self.layers)

    def budget(self, share: float, menu: OptionTable, size: int) -> int:
        """Nanoseconds of a share.

        Raises:
            OptionError: no choice within the budget of size is as fast.
        """
        limit = int(share * self.full)
        cost: NDArray[Any] = np.where(np.isfinite(menu.cost), self.table, np.inf).astype(np.float64)
        least = OptionTable(cost, menu.size, time=self.table)
        fastest = least.time_of(allocate(least, size))
        if fastest > limit:
            smallest = math.ceil(1000 * fastest / max(self.full, 1)) / 10
            why = (
                ""
                if self.differ
                else "; none is faster than 8 bits: with these feeds no product has so few rows (up to 4) that codes "
                "pay, and this CPU multiplies small levels as fast as large ones"
            )
            raise OptionError(
                f"--latency-budget {100 * share:g}%: the smallest share that the menu allows here is {smallest:g}%{why}"
            )
        return limit
