"""One weight that several layers read: one problem, with the inputs of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import LayerInputs
from qcompiler.graph.layers import Layer, weight_pair

__all__ = ["SharedWeights"]

Array = NDArray[np.float64]


class SharedWeights:
    """Which layers read one and the same float weight.

    Attributes:
        means: mean input of each layer that shares its weight, by name.
    """

    def __init__(self, groups: Iterable[list[str]]) -> None:
        self._readers = {name: group for group in groups for name in group}
        self.means: dict[str, Array] = {}

    @staticmethod
    def among(layers: Iterable[Layer]) -> SharedWeights:
        """Layers of the same operator, attributes and weight, in graph order."""
        groups: dict[tuple[object, ...], list[str]] = {}
        for layer in layers:
            pair = weight_pair(layer)
            weight = layer.node.name if pair is None else id(pair[0].inputs[0])
            groups.setdefault((weight, layer.node.op, repr(sorted(layer.node.attrs.items()))), []).append(
                layer.node.name
            )
        return SharedWeights(groups.values())

    def readers(self, name: str) -> list[str]:
        """The layers that read the weight of the layer ``name``, which is one of them."""
        return self._readers.get(name, [name])

    def merged(self, moments: Iterable[LayerInputs]) -> Iterator[LayerInputs]:
        """The inputs of each weight, as soon as those of all its readers are known; under the name of the first."""
        waiting: dict[str, list[LayerInputs]] = {}
        for item in moments:
            group = self._readers[item.layer.node.name]
            if len(group) == 1:
                yield item
                continue
            self.means[item.layer.node.name] = item.fit.with_those(item.held).mean
            known = waiting.setdefault(group[0], [])
            known[:] = [item] if not known else [_joined(known[0], item, first=group[0])]
            if all(name in self.means for name in group):
                yield waiting.pop(group[0])[0]


def _joined(one: LayerInputs, other: LayerInputs, first: str) -> LayerInputs:
    layer = other.layer if other.layer.node.name == first else one.layer
    return LayerInputs(layer, one.fit.with_those(other.fit), one.held.with_those(other.held))
