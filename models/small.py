"""The small networks that come with the project, as scored tasks. ``models/manifest.json`` says what each one is."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.task import Answers, Feed, Task, accuracy

HOME = Path(__file__).parent
FEED_SAMPLES = 50
"""Samples of one feed."""


def manifest() -> dict[str, dict[str, Any]]:
    """What is known of each model, by its name: task, architecture, data, licence, accuracy, checksums."""
    return dict(json.loads((HOME / "manifest.json").read_text(encoding="utf8")))


def small_task(name: str) -> Task:
    """One of the models of the manifest, with its 500 test samples and 128 calibration samples."""
    folder = HOME / name
    labels = np.load(folder / "labels.npy")

    def score(answers: Answers) -> dict[str, float]:
        return {"accuracy": accuracy(answers, labels)}

    return Task(name, folder / "model.onnx", _feeds(folder / "test.npz"), _feeds(folder / "calibration.npz"), score)


def _feeds(path: Path) -> list[Feed]:
    with np.load(path) as arrays:
        whole = dict(arrays)
    count = len(next(iter(whole.values())))
    return [
        {name: array[start : start + FEED_SAMPLES] for name, array in whole.items()}
        for start in range(0, count, FEED_SAMPLES)
    ]


SMALL_TASKS = {name: partial(small_task, name) for name in manifest()}
"""How to load each small model's task."""
