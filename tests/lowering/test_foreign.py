"""Models that onnxruntime's own quantizer wrote: int8 and 16-bit activations, per-tensor and uint8 weights."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from models.small import SMALL_TASKS
from qcompiler.onnx_io.importer import load_graph
from tests.lowering.checked import check

Q = QuantType


class Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.mark.parametrize(
    ("activations", "weights", "per_channel"),
    [
        (Q.QInt8, Q.QInt8, False),
        (Q.QUInt8, Q.QUInt8, False),
        (Q.QUInt8, Q.QInt8, True),
        (Q.QInt16, Q.QInt8, True),
        (Q.QUInt16, Q.QUInt8, False),
    ],
    ids=str,
)
def test_files_of_another_quantizer(
    activations: QuantType, weights: QuantType, per_channel: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    task = SMALL_TASKS["digits"]()
    feeds = [dict(feed) for feed in task.feeds[:4]]
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(onnx.version_converter.convert_version(onnx.load(task.model), 21), source)
    quantize_static(
        source,
        target,
        Feeds(feeds),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=activations,
        weight_type=weights,
    )
    result = check(load_graph(target), feeds[0])
    agree = result.outputs["logits"].argmax(-1) == result.expected["logits"].argmax(-1)
    assert agree.mean() >= 0.98
