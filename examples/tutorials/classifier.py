"""A classifier of digits: feeds, and a score that any form of the model can be given.

docs/tutorials/classifier.md goes through it step by step.

    python -m examples.tutorials.classifier build/classifier/digits.onnx build/classifier/digits.qprog
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from examples.tutorials.shared import Arrays, Run, open_model

DATA = Path(__file__).parents[2] / "models" / "digits"


def feeds() -> Iterator[Arrays]:
    """Calibration feeds: 128 images of the training set, one at a time, as they come in use."""
    with np.load(DATA / "calibration.npz") as arrays:
        for image in arrays["image"]:
            yield {"image": image[None]}


def score(run: Run) -> float:
    """Share of 500 test images whose digit is read rightly."""
    with np.load(DATA / "test.npz") as arrays:
        logits = run({"image": arrays["image"]})["logits"]
    return float((logits.argmax(-1) == np.load(DATA / "labels.npy")).mean())


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(f"{path}: accuracy {score(open_model(path)):.3f}")
