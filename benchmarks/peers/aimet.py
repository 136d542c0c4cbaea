"""AIMET-ONNX: cross-layer equalization, AdaRound, simulated quantization; see `benchmarks.accuracy_peers`.

python aimet.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz BITS ITERATIONS
"""

from __future__ import annotations

import sys
import time

import aimet_onnx
import numpy as np
import onnx
from aimet_onnx.cross_layer_equalization import equalize_model
from feeds import read_feeds


def main(model, calibration, test, answers, bits, iterations):
    """Quantize, simulate, write the first output for every test feed and the seconds that compiling took."""
    data, start = read_feeds(calibration), time.perf_counter()
    network = onnx.load(model)
    if iterations:
        equalize_model(network)
    sim = aimet_onnx.QuantizationSimModel(network, param_type=f"int{bits}", activation_type="int8", quant_scheme="min_max")
    if iterations:
        aimet_onnx.apply_adaround(sim, data[:16], num_iterations=iterations)
    sim.compute_encodings(data)
    seconds = time.perf_counter() - start
    found = {str(index): sim.session.run(None, feed)[0] for index, feed in enumerate(read_feeds(test))}
    np.savez(answers, seconds=seconds, **found)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6]))
