"""onnx-quantize: weights of products alone on 4 bits per channel, by GPTQ or to nearest, or int8; see `benchmarks.accuracy_peers`.

python onnx_quantize_gptq.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE

MODE is ``int8`` (activations too), ``int4`` or ``int4-gptq`` (activations float).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from feeds import read_feeds, write_answers
from onnx_quantize import GPTQConfig, QConfig, quantize
from opset import recent


def main(model, calibration, test, answers, mode):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    few = mode.startswith("int4")
    how = QConfig(
        group_size=-1, weights_only=few, weights_dtype="int4" if few else "int8", algorithm=GPTQConfig() if mode == "int4-gptq" else None,
        calibration_data={name: np.concatenate([feed[name] for feed in data]) for name in data[0]} if len(data[0]) > 1
        else np.concatenate([next(iter(feed.values())) for feed in data]),
    )  # fmt: skip
    found = quantize(recent(model), how)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        onnx.save(found, result)
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:6])
