"""Moments of the tensors of a graph, from BatchNorm statistics alone (Nagel et al., "Data-Free Quantization", 2019).

From a tensor back to where something is known of it: the output of a folded BatchNormalization is normal with the mean
and deviation that training saw, that of a LayerNormalization has its scale and shift, the rows of an embedding are
those of its table. On the way lie functions of one element, sums of branches, pools, concatenations, and features
times a gate. Means of sums and pools are exact; variances there take operands for independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from qcompiler.graph.ir import Node, Tensor, constant_of, producer
from qcompiler.graph.ranges import Range
from qcompiler.moments import formulas
from qcompiler.moments.formulas import Moments, Piece
from qcompiler.pass_base import BatchNormStatistics

__all__ = ["Known", "analytic_means", "known_of", "likely_range"]

Vector = NDArray[np.float64]

_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
_KEEPING = frozenset({"AveragePool", "GlobalAveragePool", "Identity"})
_ROWS = frozenset({"Flatten", "Reshape", "Squeeze"})
_DEPTH = 64
_PLACES = 257


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a tensor's channels.

    Attributes:
        moments: of each channel.
        normal: the channels are normal: what a BatchNormalization gives, and sums of that.
        pooled: one position only, so that a Flatten leaves the channels as they are.
    """

    moments: Moments
    normal: bool = False
    pooled: bool = False


def analytic_means(tensors: Iterable[Tensor], statistics: Mapping[str, BatchNormStatistics]) -> dict[str, Vector]:
    """The channel means of those of ``tensors`` that statistics tell, on a grid or not; by name, float64 [C]."""
    found = {tensor.name: known_of(tensor, statistics) for tensor in tensors}
    return {name: known.moments.mean for name, known in found.items() if known is not None}


def known_of(
    tensor: Tensor,
    statistics: Mapping[str, BatchNormStatistics],
    depth: int = _DEPTH,
    seen: dict[int, Known | None] | None = None,
) -> Known | None:
    """What ``statistics`` (by tensor name) tell of a tensor; None: nothing.

    ``seen`` has what was found of tensors before, by id: branches of a graph meet again.
    """
    seen = {} if seen is None else seen
    if id(tensor) not in seen:
        seen[id(tensor)] = _known(tensor, statistics, depth, seen)
    return seen[id(tensor)]


def _known(
    tensor: Tensor, statistics: Mapping[str, BatchNormStatistics], depth: int, seen: dict[int, Known | None]
) -> Known | None:
    given = statistics.get(tensor.name)
    if given is not None:
        return Known(Moments(given.mean, given.variance), normal=True)
    node = producer(tensor)
    if node is None or depth == 0:
        return None
    if node.op == "LayerNormalization":
        return _of_layer_norm(node)
    pieces = pieces_of(node)
    if pieces is not None or node.op in _SMOOTH:
        inner = known_of(node.inputs[0], statistics, depth - 1, seen)
        return None if inner is None else _of_function(node, inner, pieces)
    rule, parts = _RULES.get(node.op), []
    if rule is None:
        return None
    for each in node.inputs[: 1 if node.op in _ONE else None]:
        part = known_of(each, statistics, depth - 1, seen)
        if part is None:
            return None
        parts.append(part)
    return rule(node, parts) if parts else None


def _of_layer_norm(node: Node) -> Known | None:
    values = [constant_of(tensor) for tensor in node.inputs[1:3]]
    if len(values) != 2 or values[0] is None or values[1] is None or values[0].ndim != 1:
        return None
    return Known(formulas.layer_norm(values[0], values[1]))


def _of_function(node: Node, inner: Known, pieces: list[Piece] | None) -> Known | None:
    """Functions of what is normal; of anything else only those that keep the mean are known."""
    if not inner.normal:
        return None
    moments = (
        formulas.piecewise(inner.moments, pieces)
        if pieces is not None
        else formulas.smooth(inner.moments, _SMOOTH[node.op])
    )
    return Known(moments)


def pieces_of(node: Node) -> list[Piece] | None:
    """An operator as a piecewise polynomial; None for one that is none, or whose bounds are computed."""
    if node.op == "Clip":
        values = [constant_of(tensor) if tensor.name else None for tensor in node.inputs[1:]]
        computed = any(value is None and tensor.name for value, tensor in zip(values, node.inputs[1:], strict=True))
        if computed or any(value is not None and value.size != 1 for value in values):
            return None
        low, high = (None if value is None else float(value.item()) for value in (*values, None, None)[:2])
        return formulas.clip_pieces(-np.inf if low is None else low, np.inf if high is None else high)
    if node.op == "Relu":
        return formulas.clip_pieces(0.0, np.inf)
    if node.op == "LeakyRelu":
        return formulas.leaky_pieces(float(node.attrs.get("alpha", 0.01)))
    if node.op == "HardSigmoid":
        alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
        return formulas.hard_sigmoid_pieces(alpha, beta) if alpha > 0 else None
    return formulas.hard_swish_pieces() if node.op == "HardSwish" else None


def _sum(_node: Node, parts: list[Known]) -> Known:
    total = parts[0].moments
    for part in parts[1:]:
        total = formulas.independent_sum(total, part.moments)
    return Known(total, all(part.normal for part in parts), all(part.pooled for part in parts))


def _product(node: Node, parts: list[Known]) -> Known | None:
    """Features times a gate: one of them has a single position."""
    if len(parts) != 2 or parts[0].pooled == parts[1].pooled:
        return None
    return Known(formulas.independent_product(parts[0].moments, parts[1].moments))


def _concat(node: Node, parts: list[Known]) -> Known | None:
    if int(node.attrs.get("axis", 0)) != 1:
        return None
    mean, variance = (np.concatenate([getattr(part.moments, name) for part in parts]) for name in ("mean", "variance"))
    return Known(Moments(mean, variance), all(part.normal for part in parts), all(part.pooled for part in parts))


def _kept(node: Node, parts: list[Known]) -> Known | None:
    if node.op == "AveragePool" and any(node.attrs.get("pads", ())):
        return None
    return replace(parts[0], normal=node.op == "Identity" and parts[0].normal, pooled=node.op == "GlobalAveragePool")


def _flat(_node: Node, parts: list[Known]) -> Known | None:
    return parts[0] if parts[0].pooled else None


_RULES: dict[str, Callable[[Node, list[Known]], Known | None]] = {
    **dict.fromkeys(("Add", "Sum"), _sum),
    "Mul": _product, "Concat": _concat,
    **dict.fromkeys(_KEEPING, _kept),
    **dict.fromkeys(_ROWS, _flat),
    **dict.fromkeys(_QDQ, lambda _node, parts: parts[0]),
}  # fmt: skip
_ONE = _KEEPING | _ROWS | _QDQ
"""Operators that are told by their first input."""


def _sigmoid(x: Vector) -> Vector:
    return np.asarray(scipy.special.expit(x))


_SMOOTH: dict[str, Callable[[Vector], Vector]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Erf": lambda x: np.asarray(scipy.special.erf(x)),
    "Gelu": lambda x: np.asarray(x * scipy.special.ndtr(x)),
    "Swish": lambda x: x * _sigmoid(x),
    "Softplus": lambda x: np.asarray(np.logaddexp(0.0, x)),
    "Mish": lambda x: np.asarray(x * np.tanh(np.logaddexp(0.0, x))),
}


def likely_range(
    tensor: Tensor, statistics: Mapping[str, BatchNormStatistics], deviations: float
) -> Range | None:
    """What lies within so many deviations of the mean of any channel of a tensor that is normal, or a function of one
    that is; None for any other.
    """
    node = producer(tensor)
    pieces = None if node is None or tensor.name in statistics else pieces_of(node)
    function = _SMOOTH.get(node.op) if node is not None and tensor.name not in statistics else None
    source = tensor if node is None or (pieces is None and function is None) else node.inputs[0]
    known = known_of(source, statistics)
    if known is None or not known.normal:
        return None
    mean, reach = known.moments.mean, deviations * known.moments.deviation
    extent = Range(float((mean - reach).min()), float((mean + reach).max()))
    if source is tensor:
        return extent
    x = np.linspace(extent.lo, extent.hi, _PLACES)
    y = _evaluated(pieces, x) if pieces is not None else function(x) if function is not None else x
    return Range(float(y.min()), float(y.max()))


def _evaluated(pieces: list[Piece], x: Vector) -> Vector:
    """Values of a piecewise polynomial."""
    result = np.zeros_like(x)
    for low, high, coefficients in pieces:
        inside = (x >= low) & (x <= high)
        result = np.where(inside, np.polynomial.polynomial.polyval(x, coefficients), result)
    return result
