"""AMD Quark for ONNX: int8 per channel, MinMax, by itself or with its fine-tuning; see `benchmarks.accuracy_peers`.

python quark_onnx.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE [ITERATIONS]

MODE is ``minmax``, ``cle``, ``bias``, ``adaround`` or ``adaquant``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
from feeds import read_feeds, write_answers
from onnxruntime.quantization import CalibrationDataReader
from opset import recent_path
from quark.onnx import AdaQuantConfig, AdaRoundConfig, BiasCorrectionConfig, CLEConfig, ModelQuantizer, QConfig
from quark.onnx.quantization.config.spec import CalibMethod, Int8Spec, QLayerConfig, QuantGranularity, UInt8Spec


class Reader(CalibrationDataReader):
    """Feeds as the quantizer wants them; it reads them several times."""

    def __init__(self, data):
        self._data = data
        self.reset_iter()

    def get_next(self):
        """The next feed, None behind the last."""
        return next(self._left, None)

    def reset_iter(self):
        """Start again."""
        self._left = iter(self._data)


def main(model, calibration, test, answers, mode, iterations):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    steps = {
        "minmax": [],
        "cle": [CLEConfig()],
        "bias": [BiasCorrectionConfig()],
        "adaround": [AdaRoundConfig(num_iterations=iterations)],
        "adaquant": [AdaQuantConfig(num_iterations=iterations)],
    }[mode]
    config = QConfig(
        QLayerConfig(
            activation=UInt8Spec(calibration_method=CalibMethod.MinMax),
            weight=Int8Spec(calibration_method=CalibMethod.MinMax, quant_granularity=QuantGranularity.Channel),
        ),
        algo_config=steps,
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it leaves files where it runs
        result = Path(folder) / "out.onnx"
        ModelQuantizer(config).quantize_model(recent_path(model, Path(folder)), str(result), Reader(data))
        seconds = time.perf_counter() - start
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]) if len(sys.argv) > 6 else 1000)
