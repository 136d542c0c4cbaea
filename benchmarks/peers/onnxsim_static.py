"""onnxsim's quantizers (0.8 and later); see `benchmarks.accuracy_peers`.

python onnxsim_static.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE [ITERATIONS]

MODE, all of 8 bits per channel: ``minmax`` (every tensor), with ``adaround`` or ``adaquant`` after it; ``products``
(what products and convolutions multiply, all else float), with ``products-adaquant`` after it. Weights of products
alone on 4 bits, a scale for each block of neighbours, activations float: ``int4``, ``int4-gptq``, ``int4-adaround``.
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
from opset import FOUR_BITS, LEAST, recent


def quantized(network, data, mode, iterations):
    """The model by one of the modes."""
    network = onnxsim.simplify(network)[0]
    if mode == "minmax":
        return quantize_full_qdq(network, data)
    if mode.startswith("ada"):
        return finetune(
            network, quantize_full_qdq(network, data), data, FinetuneOptions(algorithm=mode, num_iterations=iterations)
        )[0]
    first, _, second = mode.partition("-")
    start = (
        onnxsim.quantize_static(network, data) if first == "products" else onnxsim.quantize_weight_only_int4(network)
    )
    steps = {"adaquant": onnxsim.apply_adaquant, "gptq": onnxsim.apply_gptq, "adaround": onnxsim.apply_adaround}
    return steps[second](network, start, data) if second else start


def main(model, calibration, test, answers, mode, iterations):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    found = quantized(recent(model, FOUR_BITS if mode.startswith("int4") else LEAST), data, mode, iterations)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        onnx.save(found, result)
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]) if len(sys.argv) > 6 else 300)
