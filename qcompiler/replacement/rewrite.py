"""Puts ``y = A φ(P x + c) + B x + b`` where a region was. Old nodes lose their readers; the manager removes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, names_in, producer, unique_name
from qcompiler.graph.layers import Layer
from qcompiler.replacement.chains import Link, Region, bias_of, linear_output, matrix_of
from qcompiler.replacement.features import FeatureMap

__all__ = ["Writer", "inherit_name", "neurons_of", "write_bundle"]

Array = NDArray[Any]

_FUNCTIONS = {"relu": "Relu", "cos": "Cos", "product": "Mul"}
"""Operator that makes features of projections."""


@dataclass(frozen=True, eq=False)
class Writer:
    """Adds layers to a graph that look like one it has.

    Attributes:
        graph: it grows.
        taken: names in it.
        stem: what new names begin with.
    """

    graph: Graph
    taken: set[str]
    stem: str

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[Tensor],
        like: Tensor,
        channels: int | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> Variable:
        """The output of a new node; its shape is that of ``like`` with other channels, if any are given."""
        shape = None if like.shape is None else list(like.shape)
        if shape is not None and channels is not None:
            shape[1 if op == "Conv" else -1] = channels
        output = Variable(unique_name(self.taken, f"{self.stem}_{name}"), np.dtype(np.float32), shape)
        self.graph.nodes.append(Node(op, output.name, dict(attrs or {}), list(inputs), [output]))
        return output

    def constant(self, name: str, values: Array) -> Constant:
        """A new constant, float32."""
        return Constant(unique_name(self.taken, f"{self.stem}_{name}"), np.ascontiguousarray(values, np.float32))

    def dense(self, name: str, x: Tensor, weight: Array, bias: Array | None, like: Layer) -> Variable:
        """``weight`` [R, K] times the rows of ``x``, plus ``bias`` [R], by the operator that ``like`` is."""
        outputs, op = len(weight), like.node.op
        if op == "Conv":
            rank = like.values.ndim - 2
            stored = [self.constant(f"{name}_weight", weight.reshape(*weight.shape, *[1] * rank))]
            stored += [self.constant(f"{name}_bias", bias)] if bias is not None else []
            return self.node("Conv", name, [x, *stored], linear_output(like), outputs, {"kernel_shape": [1] * rank})
        stored = [self.constant(f"{name}_weight", weight.T)]
        result = linear_output(like)
        if op == "Gemm":
            return self.node(
                "Gemm",
                name,
                [x, *stored, *([self.constant(f"{name}_bias", bias)] if bias is not None else [])],
                result,
                outputs,
            )
        product = self.node("MatMul", name, [x, *stored], result, outputs)
        return (
            product
            if bias is None
            else self.node("Add", f"{name}_sum", [product, self.constant(f"{name}_bias", bias)], result, outputs)
        )

    def copy_link(self, link: Link, start: Tensor, x: Tensor) -> Tensor:
        """The nodes between two layers once more, reading ``x`` where they read ``start``."""
        mapped: dict[int, Tensor] = {id(start): x}
        for node in link.nodes:
            inputs = [mapped.get(id(tensor), tensor) for tensor in node.inputs]
            mapped[id(node.outputs[0])] = self.node(node.op, "act", inputs, x, attrs=node.attrs)
        return mapped[id(link.hidden)]

    def take_over(self, new: Variable, old: Tensor) -> None:
        """Let ``new`` be what ``old`` was, with its name."""
        source = new.inputs[0]
        old.inputs.clear()
        source.outputs = [old]


def neurons_of(region: Region, chosen: NDArray[np.int64]) -> tuple[Array, Array]:
    """P and c that compute some of the neurons of a region's first layer."""
    first = region.layers[0]
    return matrix_of(first)[chosen], bias_of(first)[chosen]


def write_bundle(
    graph: Graph,
    region: Region,
    features: FeatureMap | NDArray[np.int64],
    weight: Array,
    skip: Array | None,
    bias: Array,
) -> None:
    """Rewrite ``graph`` in place.

    Args:
        graph: what the region belongs to.
        region: two layers or more.
        features: a drawn map, or the neurons of the first layer that stay.
        weight: A [O, m].
        skip: B [O, d]; None: there is none.
        bias: b [O].
    """
    first, last = region.layers[0], region.layers[-1]
    out, x = Writer(graph, names_in(graph), f"{first.node.name}_bundle"), region.inputs
    parts: list[Variable] = []
    if weight.shape[1]:
        parts.append(out.dense("read", _features(out, region, features, x), weight, bias, last))
    if skip is not None:
        parts.append(out.dense("skip", x, skip, None if parts else bias, last))
    inherit_name(parts[0], last.node)
    result = parts[0] if len(parts) == 1 else out.node("Add", "sum", parts, region.outputs)
    out.take_over(result, region.outputs)


def _features(out: Writer, region: Region, features: FeatureMap | NDArray[np.int64], x: Tensor) -> Tensor:
    first = region.layers[0]
    factors = features.factors if isinstance(features, FeatureMap) else (neurons_of(region, features),)
    drawn = [out.dense("draw", x, rows, offset, first) for rows, offset in factors]
    inherit_name(drawn[0], first.node)
    if not isinstance(features, FeatureMap):
        return out.copy_link(region.links[0], linear_output(first), drawn[0])
    return out.node(_FUNCTIONS[features.kind], "act", drawn, drawn[0])


def inherit_name(output: Variable, old: Node) -> None:
    """Give the layer behind ``output`` the name of the layer it replaces: later passes know layers by name."""
    node = output.inputs[0]
    node = producer(node.inputs[0]) if node.op == "Add" else node
    if node is not None:
        node.name, old.name = old.name, f"{old.name}_replaced"
