"""What becomes of inputs unlike those of the calibration (`feeds.unseen`): they are tried, beside the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.activations.pairs import set_grid
from qcompiler.calibration.observers import affine_grid
from qcompiler.calibration.sensitivity import Pair, find_pairs
from qcompiler.errors import ModelError
from qcompiler.feeds.unseen import unseen_feeds
from qcompiler.graph.ir import Feed, Graph, QuantSpec, copy_of, names_in, read_spec
from qcompiler.graph.ranges import Range
from qcompiler.graph.runner import Runner
from qcompiler.records import Trial
from qcompiler.report.cures import GAIN_DB
from qcompiler.report.decibels import decibels

__all__ = ["LOST_DB", "is_lost", "try_unseen"]

LOST_DB = 20.0
"""SQNR (dB) below which an unseen input is warned of, if it is also `cures.GAIN_DB` below the stated figure."""

Values = Mapping[str, NDArray[Any]]


def is_lost(trial: Trial) -> bool:
    """True for what the user is to be warned of."""
    return trial.sqnr_db < min(LOST_DB, trial.stated_db - GAIN_DB)


def try_unseen(reference: Graph, graph: Graph, feeds: Sequence[Feed], stated: Mapping[str, float]) -> list[Trial]:
    """Run inputs unlike ``feeds`` in the float graph and in the quantized one.

    Args:
        reference: the float graph.
        graph: the quantized one, with Q/DQ pairs; it is not changed.
        feeds: of the calibration, or held out of it.
        stated: what the report says of each float output, in dB.
    """
    tried = list(unseen_feeds(reference, feeds)) if feeds and stated else []
    if not tried:
        return []
    real, got, found = Runner(reference), Runner(graph), []
    for what, feed in tried:
        try:
            wanted = real.run(feed)
        except ModelError:
            continue  # the model itself does not take it
        answers = _answers(got, feed)
        values = _ratios(wanted, answers, stated)
        if not values:
            continue
        output = min(values, key=lambda name: values[name] - stated[name])
        trial = Trial(what, f"'{output}'", values[output], stated[output])
        curable = bool(answers) and is_lost(trial)
        found.append(_cured(trial, output, graph, feed, wanted, stated) if curable else trial)
    return found


def _answers(runner: Runner, feed: Feed) -> Values:
    """No outputs where the compiled model does not take what the float one does."""
    try:
        return runner.run(feed)
    except ModelError:
        return {}


def _ratios(wanted: Values, got: Values, stated: Mapping[str, float]) -> dict[str, float]:
    """dB of each output that says something; an output that is missing is lost."""
    found = {}
    for name in stated:
        exact = np.asarray(wanted[name], np.float64)
        if not exact.size or not np.all(np.isfinite(exact)):
            continue
        same = name in got and got[name].shape == exact.shape
        noise = float(np.square(exact - np.asarray(got[name], np.float64)).sum()) if same else np.inf
        found[name] = decibels(float(np.square(exact).sum()), noise)
    return found


def _cured(trial: Trial, output: str, graph: Graph, feed: Feed, wanted: Values, stated: Mapping[str, float]) -> Trial:
    """The trial with what helps: ranges that hold such inputs."""
    values = _ratios(wanted, _answers(Runner(_with_ranges_of(graph, feed)), feed), stated)
    if values.get(output, -np.inf) < trial.sqnr_db + GAIN_DB:
        return trial
    cure = f"with such inputs among the calibration feeds it is {values[output]:.1f} dB"
    return Trial(trial.what, trial.output, trial.sqnr_db, trial.stated_db, cure)


def _with_ranges_of(graph: Graph, feed: Feed) -> Graph:
    """A copy whose grids hold what a feed shows, too."""
    copy, taken = copy_of(graph), names_in(graph)
    pairs = [pair for pair in find_pairs(copy) if not pair.is_weight and pair.quantize.inputs[0].inputs]
    seen = Runner(graph, [pair.name for pair in pairs]).run(feed)
    for pair in pairs:
        spec = _grown(pair, seen[pair.name])
        if spec is not None:
            set_grid(pair, spec, taken)
    return copy


def _grown(pair: Pair, values: NDArray[Any]) -> QuantSpec | None:
    """The grid of a pair over what it covers and some values; None where it covers them."""
    spec, finite = read_spec(pair.quantize), values[np.isfinite(values)]
    if spec is None or spec.axis is not None or not finite.size:
        return None
    lo, hi = (float(spec.scale) * (end - int(spec.zero_point)) for end in (spec.qmin, spec.qmax))
    extent = Range(lo, hi).join(Range(float(finite.min()), float(finite.max())))
    if (extent.lo, extent.hi) == (lo, hi):
        return None
    if spec.dtype.itemsize > 1:
        return QuantSpec.per_tensor(max(-extent.lo, extent.hi) / spec.qmax, 0, spec.dtype)
    scale, zero_point = affine_grid(extent)
    return QuantSpec.per_tensor(scale, zero_point + spec.qmin, spec.dtype)
