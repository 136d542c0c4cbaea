"""This project, as a peer like the others: the `.onnx` file it writes, run by onnxruntime; see `benchmarks.accuracy_peers`.

python ours.py MODEL CALIBRATION.npz TEST.npz ANSWERS.npz WEIGHTS LEVEL
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from feeds import read_feeds

import qcompiler
from qcompiler.api import Options


def main(model, calibration, test, answers, weights, level):
    """Compile, write the first output for every test feed and the seconds that compiling took."""
    data = read_feeds(calibration)
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "out.onnx", time.perf_counter()
        qcompiler.compile(model, data=data, options=Options(weights=weights, level=level)).save(path)
        seconds = time.perf_counter() - start
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = {str(index): session.run(None, feed)[0] for index, feed in enumerate(read_feeds(test))}
    np.savez(answers, seconds=seconds, **found)


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]))
