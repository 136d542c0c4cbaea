"""HardSigmoid and HardSwish out of their parts.

    k clip(a x + b, 0, h) with k h = 1        = HardSigmoid(x; alpha = k a, beta = k b)
    x HardSigmoid(x; 1/6, 1/2)                = HardSwish(x)

so ``x * clip(x + 3, 0, 6) / 6`` in any order of operands, with Clip, or with a HardSigmoid that is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, isinf
from typing import ClassVar

from ...graph.ir import Graph, Node, Tensor, is_float
from ...pass_base import Context, Pass
from ...rewriting.match import scalar_of, standard, take_over
from ...rewriting.polynomial import TOLERANCE, ancestors, descendants, matches, polynomial

_OPSET = 14
_SIXTH = 1 / 6
_ALPHA, _BETA = 0.2, 0.5  # defaults of the operator


@dataclass(frozen=True)
class _Ramp:
    """``height * clip(alpha * x + beta, 0, 1)``."""

    x: Tensor
    alpha: float
    beta: float
    height: float

    @property
    def is_swish(self) -> bool:
        return isclose(self.alpha, _SIXTH, rel_tol=TOLERANCE) and isclose(self.beta, 0.5, rel_tol=TOLERANCE)


def _clip_ramps(node: Node) -> list[_Ramp]:
    """The readings of a Clip from 0: one for each x it may be an affine function of."""
    low, high = (scalar_of(node.inputs[index]) if len(node.inputs) > index else None for index in (1, 2))
    if low != 0.0 or high is None or high <= 0 or isinf(high):
        return []
    ramps = []
    for x in ancestors(node.inputs[0]):
        form = polynomial(node.inputs[0], [x]) or {}
        if set(form) == {(0,), (1,)} and form[1,] != 0 and is_float(x):
            ramps.append(_Ramp(x, form[1,] / high, form[0,] / high, high))
    return ramps


def _ramps(node: Node) -> list[_Ramp]:
    if node.op == "Clip":
        return _clip_ramps(node)
    return [_Ramp(node.inputs[0], node.attrs.get("alpha", _ALPHA), node.attrs.get("beta", _BETA), 1.0)]


def _swish(graph: Graph, node: Node, ramp: _Ramp) -> Tensor | None:
    """The tensor that is x times the ramp from 0 to 1."""
    c, wanted = node.outputs[0], {(1, 1): 1 / ramp.height}
    return next((y for y in descendants(graph, c) if matches(polynomial(y, [ramp.x, c]), wanted)), None)


def _unit(graph: Graph, node: Node, ramp: _Ramp) -> Tensor | None:
    """The tensor that is the ramp from 0 to 1."""
    c = node.outputs[0]
    candidates = [c, *descendants(graph, c)]
    return next((y for y in candidates if matches(polynomial(y, [c]), {(1,): 1 / ramp.height})), None)


@dataclass(frozen=True)
class FuseHardSwish(Pass):
    """Recognise HardSwish and HardSigmoid."""

    name: ClassVar[str] = "fuse-hard-swish"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when one was made."""
        del ctx
        changes = [_fuse(graph, node) for node in standard(graph, "Clip", "HardSigmoid")]
        return any(changes)


def _fuse(graph: Graph, node: Node) -> bool:
    ramps = _ramps(node)
    for ramp in ramps:
        y = _swish(graph, node, ramp) if ramp.is_swish and graph.opset >= _OPSET else None
        if y is not None:
            _replace(graph, y, "HardSwish", ramp, {})
            return True
    if node.op != "Clip" or not ramps:
        return False
    ramp = ramps[-1]  # the one furthest back takes in the most
    y = _unit(graph, node, ramp)
    if y is None:
        return False
    _replace(graph, y, "HardSigmoid", ramp, {"alpha": ramp.alpha, "beta": ramp.beta})
    return True


def _replace(graph: Graph, y: Tensor, op: str, ramp: _Ramp, attrs: dict[str, float]) -> None:
    last = y.inputs[0]
    take_over(graph, last, Node(op, last.name, attrs, [ramp.x]), y)
