"""Where a relative precision is needed that even steps do not give: what logarithms, quotients and reciprocals read.

The need comes from the reader. A logarithm turns the relative error of its operand into an absolute one; a quotient and
a reciprocal power hand it on; roots, powers and maxima ask the same of what they are computed from. With ``s`` the step
of 16 bits over the range of a tensor ``x``, its relative error is the mean of ``min(1, s^2 / 12 x^2)``; from `LOST` on,
even steps lose it; so do they where the step of a numerator is as large beside its quotients. A root asks for less: the
error that a step of what it reads makes, relative to the mean square of its results (the magnitudes of a spectrum have
half the decades of its power). Of 8 bits, which layers of an ``.onnx`` file read, `LOST_BY_BYTES` is asked, and of what
normalizations read, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.feeds.selection import spread_feeds
from qcompiler.graph.ir import Feed, Graph, Node, Tensor, constant_of, is_float, producer
from qcompiler.graph.mask_inputs import mask_inputs
from qcompiler.graph.operators import MOVEMENT, NORMS
from qcompiler.graph.runner import Runner
from qcompiler.graph.value_kinds import value_kinds

__all__ = ["Lost", "lost_operands", "needs_relative", "relative_operand", "root_of"]

LOST, LOST_BY_BYTES = 1e-4, 1e-3
"""Relative error, squared, from which small values count as lost on grids of 16 bits, and of 8 bits."""

FEEDS = 16
"""Feeds on which that is measured."""

STEPS, STEPS_OF_BYTES = 32767 / 2, 255.0
"""Steps over what is seen: those of 16 bits leave as much room again."""

_HANDING_ON = frozenset({"Sqrt", "Pow", "Max", "Clip", "ReduceMax", "ReduceMin", *MOVEMENT})

Values = NDArray[np.float64]


def relative_operand(node: Node) -> Tensor | None:
    """The input whose relative precision matters to a node; None where there is none that varies."""
    found = None
    if node.op in ("Log", "Reciprocal"):
        found = node.inputs[0]
    elif node.op == "Div":
        found = node.inputs[1]
    elif node.op == "Pow" and (exponent := constant_of(node.inputs[1])) is not None and exponent.size == 1:
        found = node.inputs[0] if float(exponent.reshape(())) < 0 else None
    return found if found is not None and constant_of(found) is None and is_float(found) else None


def root_of(node: Node) -> float | None:
    """The exponent of a square root or another power between 0 and 1 of what varies; None for any other node."""
    if node.op not in ("Sqrt", "Pow") or constant_of(node.inputs[0]) is not None or not is_float(node.inputs[0]):
        return None
    exponent = np.array(0.5) if node.op == "Sqrt" else constant_of(node.inputs[1])
    if exponent is None or exponent.size != 1 or not 0 < float(exponent.reshape(())) < 1:
        return None
    return float(exponent.reshape(()))


def needs_relative(node: Node) -> bool:
    """True where small values of what a node reads may count as much as large ones."""
    return node.op in NORMS or relative_operand(node) is not None or root_of(node) is not None


@dataclass(frozen=True)
class Lost:
    """Ids of the operands, none of them negative, whose small values even steps lose, or what they come from.

    Attributes:
        words: on 16 bits.
        bytes: on 8 bits; inputs of normalizations, too.
    """

    words: set[int]
    bytes: set[int]


def lost_operands(graph: Graph, data: Iterable[Feed]) -> Lost:
    """What even steps lose of a float graph's operands, on some of the feeds.

    Exact values (counts, positions) are no such operands.
    """
    kinds = value_kinds(graph, mask_inputs(graph, {}))
    operands = [tensor for node in graph.nodes if (tensor := relative_operand(node)) is not None]
    behind = {id(tensor): _behind(tensor) for tensor in operands if not kinds[tensor.name].exact}
    names = list(dict.fromkeys(tensor.name for tensors in behind.values() for tensor in tensors))
    norms = [node for node in graph.nodes if node.op in NORMS and constant_of(node.inputs[0]) is None]
    asked = {id(tensor) for tensors in behind.values() for tensor in tensors}
    roots = [node for node in graph.nodes if root_of(node) is not None and id(node.outputs[0]) not in asked]
    roots = [node for node in roots if not kinds[node.inputs[0].name].exact]
    if not names and not norms and not roots:
        return Lost(set(), set())
    quotients = [node for node in graph.nodes if node.op == "Div" and id(node.inputs[1]) in behind]
    quotients = [node for node in quotients if constant_of(node.inputs[0]) is None]
    read = [node.inputs[0].name for node in (*quotients, *norms, *roots)]
    runner = Runner(graph, list(dict.fromkeys([*names, *read])))
    seen = [runner.run(feed) for feed in spread_feeds(data, FEEDS)]

    def lost(steps: float, most: float) -> set[int]:
        few = {name for name in names if _error([each[name] for each in seen], steps) > most}
        found = {key for key, tensors in behind.items() if any(tensor.name in few for tensor in tensors)}
        found |= {id(node.inputs[0]) for node in roots if _root_error(node, seen, steps) > most}
        return found | {id(node.inputs[1]) for node in quotients if _quotient_error(node, seen, steps) > most}

    rows = {id(node.inputs[0]) for node in norms if _norm_error(node, seen, STEPS_OF_BYTES) > LOST_BY_BYTES}
    return Lost(lost(STEPS, LOST), lost(STEPS_OF_BYTES, LOST_BY_BYTES) | rows)


def _norm_error(node: Node, seen: Sequence[Mapping[str, NDArray[Any]]], steps: float) -> float:
    """Mean squared error of a normalization's results that a step of its input makes: small rows lose the most."""
    arrays = [np.asarray(each[node.inputs[0].name], np.float64) for each in seen]
    step = max(float(np.ptp(values)) if values.size else 0.0 for values in arrays) / steps
    axis = 2 if node.op == "InstanceNormalization" else int(node.attrs.get("axis", -1))
    rows = [values.reshape(*values.shape[:axis], -1).var(axis=-1).reshape(-1) for values in arrays if values.size]
    variances = np.concatenate([*rows, np.zeros(0)])
    return float(np.minimum(1.0, step**2 / 12 / np.maximum(variances, 1e-30)).mean()) if variances.size else 0.0


def _quotient_error(node: Node, seen: Sequence[Mapping[str, NDArray[Any]]], steps: float) -> float:
    """Squared error of quotients, relative to these, that a step of the numerator makes."""
    pairs = [[np.asarray(each[tensor.name], np.float64) for tensor in node.inputs] for each in seen]
    step = max(float(np.abs(above).max(initial=0.0)) for above, _ in pairs) / steps
    quotients = [(np.square(above / below), np.square(step / below) / 12) for above, below in pairs if below.all()]
    signal, noise = (sum(float(np.broadcast_to(each[i], each[0].shape).sum()) for each in quotients) for i in (0, 1))
    return noise / max(signal, 1e-30)


def _root_error(node: Node, seen: Sequence[Mapping[str, NDArray[Any]]], steps: float) -> float:
    """Squared error of roots, relative to the mean of their squares, that a step of what they read makes."""
    arrays = [np.asarray(each[node.inputs[0].name], np.float64).reshape(-1) for each in seen]
    values, exponent = np.concatenate([*arrays, np.zeros(0)]), root_of(node) or 1.0
    if not values.size or values.min() < 0:
        return 0.0
    roots = values**exponent
    noise = np.square((values + values.max() / steps / np.sqrt(12)) ** exponent - roots).mean()
    return float(noise / max(float(np.square(roots).mean()), 1e-30))


def _behind(tensor: Tensor) -> list[Tensor]:
    """A tensor, and those of which it asks the same."""
    found = [tensor]
    node = producer(tensor)
    while node is not None and node.op in _HANDING_ON and is_float(node.inputs[0]):
        tensor = next((each for each in node.inputs if constant_of(each) is None), tensor)
        if any(tensor is each for each in found):
            break
        found.append(tensor)
        node = producer(tensor)
    return found


def _error(arrays: Sequence[NDArray[Any]], steps: float) -> float:
    """Mean squared relative error of values on even steps; 0 where some are negative, or there are none."""
    values: Values = np.concatenate([np.asarray(each, np.float64).reshape(-1) for each in arrays])
    values = values[np.isfinite(values)]
    if not values.size or values.min() < 0:
        return 0.0
    step = float(values.max()) / steps
    return float(np.minimum(1.0, np.square(step / np.maximum(values, 1e-30)) / 12).mean())
