"""`qdiff`: two models on the same feeds; SQNR of each output and each layer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from qcompiler.commands.executors import OnnxExecutor, open_executor
from qcompiler.commands.run import feeds_for
from qcompiler.errors import ModelError, OptionError
from qcompiler.report.measure import Sqnr

DIFF_FEEDS = 8
"""Feeds whose outputs are compared; layers are compared on the first of them."""


def compare(first: Path, second: Path, feeds: str | None, count: int) -> dict[str, Any]:
    """SQNR (dB) of ``second`` against ``first``: outputs over the feeds, the ``count`` worst layers on one feed."""
    sides = [open_executor(path, "onnxruntime" if path.suffix == ".onnx" else "machine") for path in (first, second)]
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
    layers.add(sides[0].trace(chosen[0]), sides[1].trace(chosen[0]))
    worst = sorted(layers.db().items(), key=lambda item: (item[1], item[0]))[:count]
    return {
        "feeds": len(chosen),
        "outputs_sqnr_db": {name: round(value, 2) for name, value in outputs.db().items()},
        "worst_layers_sqnr_db": {name: round(value, 2) for name, value in worst},
    }
