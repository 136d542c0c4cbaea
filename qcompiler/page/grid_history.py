"""Which passes gave each tensor and each weight the grid it has."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from qcompiler.calibration.sensitivity import find_pairs
from qcompiler.graph.ir import Graph, producer, read_spec
from qcompiler.graph.layers import find_layers, underlying_constant

__all__ = ["GridHistory"]


@dataclass
class GridHistory:
    """Looks at the graph after each pass.

    Attributes:
        tensors: by the name of an activation in front of a Q/DQ pair, the passes that changed its grid, in their order.
        weights: the same by the name of a layer's node, for the levels or scales of its weight.
    """

    tensors: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, list[str]] = field(default_factory=dict)
    _grids: dict[str, Hashable] = field(default_factory=dict, repr=False)
    _levels: dict[str, Hashable] = field(default_factory=dict, repr=False)

    def look(self, name: str, graph: Graph) -> None:
        """Pass ``name`` has changed ``graph``. Other levels of a weight are a constant of another name."""
        for pair in find_pairs(graph):
            spec = read_spec(pair.quantize)
            if spec is not None and not pair.is_weight:
                grid = (spec.dtype.str, spec.scale.tobytes(), spec.zero_point.tobytes())
                _note(self.tensors, self._grids, pair.name, grid, name)
        for layer in find_layers(graph):
            dequantize, levels = producer(layer.weight), underlying_constant(layer.weight)
            if dequantize is not None and levels is not None:
                _note(self.weights, self._levels, layer.node.name, (levels.name, dequantize.inputs[1].name), name)


def _note(passes: dict[str, list[str]], seen: dict[str, Hashable], key: str, value: Hashable, name: str) -> None:
    if seen.get(key) != value:
        seen[key] = value
        passes.setdefault(key, []).append(name)
