"""NVIDIA Model Optimizer for ONNX: int8, or weights of products alone on 4 bits; see `benchmarks.accuracy_peers`.

python modelopt_onnx.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE [METHOD]

MODE is ``int8`` (METHOD ``max`` or ``entropy``) or ``int4`` (METHOD ``awq_lite`` or ``awq_clip``; a scale for each
block, activations float).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from feeds import read_feeds, write_answers
from modelopt.onnx.quantization import quantize
from opset import recent_path


def main(model, calibration, test, answers, mode, method):
    """Quantize and run."""
    data = read_feeds(calibration)
    stacked = {name: np.concatenate([feed[name] for feed in data]) for name in data[0]}
    shapes = ",".join(f"{name}:{'x'.join(map(str, array.shape))}" for name, array in data[0].items())
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        network, start = recent_path(model, Path(folder)), time.perf_counter()
        quantize(
            network, quantize_mode=mode, calibration_data=stacked, calibration_method=method, calibration_shapes=shapes,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32", output_path=str(result),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:7])
