"""onnxsim's quantizers (0.8 and later); see `benchmarks.accuracy_peers`.

python onnxsim_static.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE [ITERATIONS]

MODE is ``minmax``, ``adaround`` or ``adaquant`` (all int8, per channel), or ``int4``, ``int4-gptq``, ``int4-adaround`` (weights of products alone,
a scale for each block of neighbours; activations float).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import onnx
import onnxruntime as ort
import onnxsim
from feeds import read_feeds, write_answers
from onnxsim.full_qdq import quantize_full_qdq
from onnxsim.quark_finetune import FinetuneOptions, finetune
from opset import recent


def quantized(network, data, mode, iterations):
    """The model by one of the modes."""
    if not mode.startswith("int4"):
        network = onnxsim.simplify(network)[0]
        static = quantize_full_qdq(network, data)
        if mode == "minmax":
            return static
        return finetune(network, static, data, FinetuneOptions(algorithm=mode, num_iterations=iterations))[0]
    blocks = onnxsim.quantize_weight_only_int4(network)
    if mode == "int4":
        return blocks
    return {"int4-gptq": onnxsim.apply_gptq, "int4-adaround": onnxsim.apply_adaround}[mode](network, blocks, data)


def main(model, calibration, test, answers, mode, iterations):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    found = quantized(recent(model), data, mode, iterations)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        onnx.save(found, result)
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]) if len(sys.argv) > 6 else 300)
