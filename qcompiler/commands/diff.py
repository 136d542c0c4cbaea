"""`qdiff`: two models on the same feeds; SQNR of each output and each layer, and code tensors step by step."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.commands.executors import OnnxExecutor, Values, executor_of
from qcompiler.commands.run import feeds_for
from qcompiler.errors import ModelError, OptionError
from qcompiler.report.measure import Sqnr

DIFF_FEEDS = 8
"""Feeds whose outputs are compared; layers are compared on the first."""


def compare(first: Path, second: Path, feeds: str | None, count: int) -> dict[str, Any]:
    """SQNR (dB) of ``second`` against ``first``: outputs over the feeds, the ``count`` worst layers on one feed."""
    sides = [executor_of(path, "onnxruntime" if path.suffix == ".onnx" else "machine") for path in (first, second)]
    models = [side for side in sides if isinstance(side, OnnxExecutor)]
    inputs = models[0].inputs if models else sides[0].inputs
    chosen = list(islice(feeds_for(inputs, feeds), DIFF_FEEDS))
    if not chosen:
        raise OptionError("--feeds: holds no feed")
    outputs, layers = Sqnr(), Sqnr()
    for feed in chosen:
        outputs.add(sides[0].run(feed), sides[1].run(feed))
    if not outputs.signal:
        raise ModelError(f"{second}: has no output of the same name and shape as {first}; nothing can be compared")
    traces = [side.trace(chosen[0]) for side in sides]
    layers.add(*(_floats(trace) for trace in traces))
    worst = sorted(layers.db().items(), key=lambda item: (item[1], item[0]))[:count]
    result: dict[str, Any] = {
        "feeds": len(chosen),
        "outputs_sqnr_db": {name: round(value, 2) for name, value in outputs.db().items()},
    }
    if worst:
        result["worst_layers_sqnr_db"] = {name: round(value, 2) for name, value in worst}
    codes = off_by_more_than_one(*traces)
    if codes:
        apart = sorted(codes.items(), key=lambda item: (-item[1], item[0]))[:count]
        result["code_tensors"] = len(codes)
        result["share_of_codes_off_by_more_than_one"] = {name: round(share, 6) for name, share in apart}
    return result


def _floats(values: Values) -> Values:
    return {name: value for name, value in values.items() if np.issubdtype(value.dtype, np.floating)}


def off_by_more_than_one(first: Values, second: Values) -> dict[str, float]:
    """For each tensor of 8- or 16-bit codes on both sides: the share of elements that differ by more than one step."""
    shares = {}
    for name, codes in first.items():
        other = second.get(name)
        if (
            other is None
            or other.dtype != codes.dtype
            or other.shape != codes.shape
            or codes.dtype.kind not in "iu"
            or codes.dtype.itemsize > 2
        ):
            continue
        steps = np.abs(codes.astype(np.int64) - other.astype(np.int64))
        shares[name] = float((steps > 1).mean()) if steps.size else 0.0
    return shares
