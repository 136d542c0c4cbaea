"""onnxruntime's MatMulNBits: weights of products on 4 bits, a scale for each block, activations float; see
`benchmarks.accuracy_peers`.

python onnxruntime_nbits.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz BLOCK
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
from feeds import write_answers
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from opset import recent


def main(model, test, answers, block):
    """Quantize and run; no feeds take part."""
    start = time.perf_counter()
    quantizer = MatMulNBitsQuantizer(recent(model), bits=4, block_size=block, is_symmetric=True)
    quantizer.process()
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        quantizer.model.save_model_to_file(str(result))
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3], sys.argv[4], int(sys.argv[5]))
