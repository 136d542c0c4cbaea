"""AIMET-ONNX: cross-layer equalization, AdaRound, simulated quantization; see `benchmarks.accuracy_peers`.

python aimet.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz BITS ITERATIONS
"""

from __future__ import annotations

import sys
import time

import aimet_onnx
from aimet_onnx.cross_layer_equalization import equalize_model
from feeds import read_feeds, write_answers
from opset import recent, shaped, with_initializers


def main(model, calibration, test, answers, bits, iterations):
    """Quantize and simulate in float; no quantized file is written."""
    data, start = read_feeds(calibration), time.perf_counter()
    network = with_initializers(shaped(recent(model), data[0]))
    if iterations:
        equalize_model(network)
    sim = aimet_onnx.QuantizationSimModel(
        network, param_type=f"int{bits}", activation_type="int8", quant_scheme="min_max"
    )
    if iterations:
        aimet_onnx.apply_adaround(sim, data[:16], num_iterations=iterations)
    sim.compute_encodings(data)
    write_answers(answers, sim.session, test, time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]))
