"""Loss of a network's outputs: squared error or, for a classifier, Kullback-Leibler divergence.

* ``mse``: squared error over the energy of what was expected.
* ``kl``: ``KL(float || changed)`` in nats, the mean over all distributions along the last axis (ZeroQ's sensitivity).
  Outputs that sum to 1 are taken as probabilities, others as logits. What all logits gain alike costs nothing, nor do
  those of classes that neither model believes in.

Each loss also has an *error*: a vector whose squared length is the loss, so that what two changes cost together follows
from products of their errors. For ``kl`` it is the second-order form: ``KL = 1/2 Var_p(change of the
log-probabilities)``, made as long as the loss really is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError

__all__ = ["OUTPUT_LOSSES", "OutputLoss", "is_distribution", "kl_divergence"]

Array = NDArray[Any]

LEAST_PROBABILITY = 1e-12
SUM_TOLERANCE = 1e-3
"""Largest deviation from 1 of a sum of probabilities."""


@dataclass(frozen=True)
class OutputLoss:
    """A loss of one output.

    Attributes:
        name: as options call it.
        loss: of (values, expected values), not negative.
        error: of the same; float64 [n], its squared length is the loss.
    """

    name: str
    loss: Callable[[Array, Array], float]
    error: Callable[[Array, Array], Array]


def _finite(values: Array, expected: Array) -> tuple[Array, Array]:
    """Both, float64, with 0 where infinity is expected (a fill)."""
    there = np.isfinite(expected)
    return np.where(there, values, 0.0), np.where(there, expected, 0.0).astype(np.float64)


def _squared(values: Array, expected: Array) -> float:
    got, exact = _finite(values, expected)
    return float(np.square(got - exact).sum()) / max(float(np.square(exact).sum()), 1e-30)


def _difference(values: Array, expected: Array) -> Array:
    got, exact = _finite(values, expected)
    return np.asarray((got - exact).reshape(-1) / np.sqrt(max(float(np.square(exact).sum()), 1e-30)))


def is_distribution(values: Array) -> bool:
    """True where the last axis holds probabilities."""
    return bool(
        (values >= 0).all() and np.abs(values.sum(axis=-1, dtype=np.float64) - 1).max(initial=0) < SUM_TOLERANCE
    )


def _log_probabilities(values: Array, probabilities: bool) -> NDArray[np.float64]:
    """float64 [rows, classes]."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    logits = np.log(np.maximum(flat, LEAST_PROBABILITY)) if probabilities else flat
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _both(values: Array, expected: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if expected.ndim == 0 or expected.shape[-1] < 2:
        raise OptionError(
            f"loss=kl: an output of shape {expected.shape} has no classes along its last axis; take loss=mse"
        )
    probabilities = is_distribution(expected)
    return _log_probabilities(values, probabilities), _log_probabilities(expected, probabilities)


def kl_divergence(values: Array, expected: Array) -> float:
    """Mean ``KL(expected || values)`` along the last axis, in nats; OptionError where that axis has no two classes."""
    got, want = _both(values, expected)
    return max(float((np.exp(want) * (want - got)).sum(axis=1).mean()), 0.0)


def _divergence(values: Array, expected: Array) -> Array:
    got, want = _both(values, expected)
    change, share = got - want, np.exp(want)
    centred = change - (share * change).sum(axis=1, keepdims=True)
    vector = (np.sqrt(share / (2 * len(share))) * centred).reshape(-1)
    length = float(np.square(vector).sum())
    return np.asarray(vector * np.sqrt(kl_divergence(values, expected) / max(length, 1e-300)))


OUTPUT_LOSSES = {
    "mse": OutputLoss("mse", _squared, _difference),
    "kl": OutputLoss("kl", kl_divergence, _divergence),
}
"""By the name that options use."""
