"""This project, as a peer like the others: the `.onnx` file it writes, run by onnxruntime; see
`benchmarks.accuracy_peers`.

python ours.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz WEIGHTS LEVEL [--widen off] [--no-avoid-saturation]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import onnxruntime as ort
from feeds import read_feeds, write_answers

import qcompiler
from qcompiler.api import Options


def main():
    """Compile and run."""
    parser = argparse.ArgumentParser()
    for name in ("model", "calibration", "test", "answers", "weights"):
        parser.add_argument(name)
    parser.add_argument("level", type=int)
    parser.add_argument("--widen", default="auto")
    parser.add_argument("--no-avoid-saturation", action="store_true")
    chosen = parser.parse_args()
    options = Options(
        chosen.level, weights=chosen.weights, widen=chosen.widen, avoid_saturation=not chosen.no_avoid_saturation
    )
    data = read_feeds(chosen.calibration)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "out.onnx", time.perf_counter()
        qcompiler.compile(chosen.model, data=data, options=options).save(path)
        seconds = time.perf_counter() - start
        write_answers(
            chosen.answers, ort.InferenceSession(path, providers=["CPUExecutionProvider"]), chosen.test, seconds, path
        )


if __name__ == "__main__":
    main()
