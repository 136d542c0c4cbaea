"""Intel's ONNX Neural Compressor; see `benchmarks.accuracy_peers`.

python neural_compressor_onnx.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE

MODE is ``int8`` or ``int8-smooth`` (static, per channel), or ``int4-rtn``, ``int4-gptq``, ``int4-awq`` (weights of
products alone, a scale for each 32 of a channel; activations float).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import onnx
import onnxruntime as ort
from feeds import read_feeds, write_answers
from onnx_neural_compressor.data_reader import CalibrationDataReader
from onnx_neural_compressor.quantization import config, matmul_nbits_quantizer, quantize
from onnxruntime.quantization import QuantFormat
from opset import recent_path

BLOCK = 32


class Reader(CalibrationDataReader):
    """Feeds as the quantizer wants them; it reads them several times."""

    def __init__(self, data):
        self._data = data
        self.rewind()

    def get_next(self):
        """The next feed, None behind the last."""
        return next(self._left, None)

    def rewind(self):
        """Start again."""
        self._left = iter(self._data)


def weights_alone(model, result, reader, mode):
    """Products with weights of 4 bits."""
    how = {
        "int4-rtn": lambda: matmul_nbits_quantizer.RTNWeightOnlyQuantConfig(),
        "int4-gptq": lambda: matmul_nbits_quantizer.GPTQWeightOnlyQuantConfig(reader),
        "int4-awq": lambda: matmul_nbits_quantizer.AWQWeightOnlyQuantConfig(reader),
    }[mode]()
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
        model, block_size=BLOCK, is_symmetric=True, algo_config=how, n_bits=4
    )
    quantizer.process()
    onnx.save(getattr(quantizer.model, "model", quantizer.model), result)


def main(model, calibration, test, answers, mode):
    """Quantize and run."""
    reader, start = Reader(read_feeds(calibration)), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model, result = recent_path(model, Path(folder)), Path(folder) / "out.onnx"
        if mode.startswith("int4"):
            weights_alone(model, str(result), reader, mode)
        else:
            smooth = {"SmoothQuant": True} if mode == "int8-smooth" else {}
            how = config.StaticQuantConfig(reader, quant_format=QuantFormat.QDQ, per_channel=True, extra_options=smooth)
            quantize(model, str(result), how)
        seconds = time.perf_counter() - start
        write_answers(
            answers, ort.InferenceSession(str(result), providers=["CPUExecutionProvider"]), test, seconds, result
        )


if __name__ == "__main__":
    main(*sys.argv[1:6])
