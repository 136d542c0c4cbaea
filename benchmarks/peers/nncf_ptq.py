"""NNCF on ONNX models: post-training quantization, or weights alone on four bits; see `benchmarks.accuracy_peers`.

python nncf_ptq.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz MODE

MODE is ``fast`` or ``full`` (int8, by the kind of bias correction), or ``int4`` (weights of products per channel,
activations float; with AWQ and scale estimation as ``int4-fit``).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import nncf
import onnx
import onnxruntime as ort
from feeds import read_feeds, write_answers
from opset import FOUR_BITS, LEAST, recent


def main(model, calibration, test, answers, mode):
    """Quantize and run."""
    data, start = read_feeds(calibration), time.perf_counter()
    network = recent(model, FOUR_BITS if mode.startswith("int4") else LEAST)
    kind = nncf.ModelType.TRANSFORMER if any(node.op_type == "Softmax" for node in network.graph.node[:-1]) else None
    if mode.startswith("int4"):
        fit = mode == "int4-fit"
        found = nncf.compress_weights(
            network, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=-1, all_layers=True,
            dataset=nncf.Dataset(data) if fit else None, awq=fit or None, scale_estimation=fit or None,
        )  # fmt: skip
    else:
        found = nncf.quantize(
            network, nncf.Dataset(data), fast_bias_correction=mode == "fast", model_type=kind, subset_size=len(data)
        )
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.onnx"
        onnx.save(found, result)
        write_answers(answers, ort.InferenceSession(result, providers=["CPUExecutionProvider"]), test, seconds, result)


if __name__ == "__main__":
    main(*sys.argv[1:6])
