"""Compiles a model and says how far both results are from float onnxruntime on feeds that calibration has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from qcompiler.api import Options, compile
from qcompiler.graph.runner import Runner
from qcompiler.lowering import to_integer_onnx
from qcompiler.onnx_io import export
from qcompiler.records import Report

Feed = dict[str, np.ndarray]
FORMS = ("onnx", "machine")


def decibels(references: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> float:
    """Signal over noise of the worst output over all feeds; integers and truth values must be equal."""
    worst = np.inf
    for name in references[0]:
        real, got = (
            np.concatenate([np.asarray(values[name]).reshape(-1) for values in side]) for side in (references, results)
        )
        if real.dtype.kind not in "f":
            np.testing.assert_array_equal(real, got)
            continue
        noise = float(np.sum((real.astype(np.float64) - got) ** 2))
        worst = min(worst, 10 * np.log10(float(np.sum(real.astype(np.float64) ** 2)) / max(noise, 1e-30)))
    return worst


def compiled(
    model: onnx.ModelProto, calibration: list[Feed], tests: list[Feed], form: str, level: int = 0
) -> tuple[float, Report]:
    """Decibels of one form, and the report. The machine's form is judged by the standard operators that equal it bit
    for bit.

    Also proves that the program exists, and that the file runs.
    """
    result = compile(model, data=calibration, options=Options(level), for_onnx=form == "onnx")
    if form == "onnx":
        runner = Runner(export.to_model(result.graph))
    else:
        assert result.program.code.size
        runner = Runner(to_integer_onnx(result.integer_graph))
    float_model = Runner(model)
    return decibels([float_model.run(feed) for feed in tests], [runner.run(feed) for feed in tests]), result.report
