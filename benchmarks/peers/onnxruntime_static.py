"""onnxruntime's quantize_static, MinMax, per channel; see `benchmarks.accuracy_peers`.

python onnxruntime_static.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz BITS
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
from feeds import read_feeds, write_answers
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from opset import recent_path


class Reader(CalibrationDataReader):
    """Feeds as the quantizer wants them."""

    def __init__(self, data):
        self._data = iter(data)

    def get_next(self):
        """The next feed, None behind the last."""
        return next(self._data, None)


def main(model, calibration, test, answers, bits):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "out.onnx"
        quant_pre_process(recent_path(model, Path(folder)), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            Reader(data),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt4 if bits == 4 else QuantType.QInt8,
        )
        seconds = time.perf_counter() - start
        session = ort.InferenceSession(str(result), providers=["CPUExecutionProvider"])
        write_answers(answers, session, test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
