"""A scored task: a model, what to feed it, what to calibrate it with, and how good its answers are, whatever ran it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feed = Mapping[str, NDArray[Any]]
Answers = Sequence[NDArray[Any]]
"""The model's first output for each feed."""


@dataclass(frozen=True)
class Task:
    """What a model is for, with data.

    Attributes:
        name: as the command line calls it.
        model: path of the float ONNX model.
        feeds: inputs to score on.
        calibration: inputs to compile with; none of them is among ``feeds``.
        score: figures by name for the answers to ``feeds``, the first being the one that matters most.
        classifies: the last axis of an answer are classes.
    """

    name: str
    model: Path
    feeds: Sequence[Feed]
    calibration: Sequence[Feed]
    score: Callable[[Answers], dict[str, float]]
    classifies: bool = True


def sqnr_db(reference: Answers, answers: Answers) -> float:
    """Signal-to-quantization-noise ratio over all answers, in decibels; infinite where they are equal."""
    signal = sum(float(np.sum(np.square(real, dtype=np.float64))) for real in reference)
    noise = sum(
        float(np.sum(np.square(np.subtract(real, got, dtype=np.float64))))
        for real, got in zip(reference, answers, strict=True)
    )
    return float("inf") if noise == 0 else 10 * float(np.log10(signal / noise))


def agreement(reference: Answers, answers: Answers) -> float:
    """Share of samples whose largest logit is the same; classes are the last axis."""
    same = [real.argmax(-1) == got.argmax(-1) for real, got in zip(reference, answers, strict=True)]
    return float(np.concatenate([np.ravel(part) for part in same]).mean())


def accuracy(answers: Answers, labels: NDArray[Any]) -> float:
    """Share of samples whose largest logit is that of their class; answers [n, classes] each, labels [N]."""
    return float((np.concatenate(list(answers)).argmax(-1) == labels).mean())


def edit_distance(first: str, second: str) -> int:
    """Insertions, deletions and replacements that turn one text into the other (Levenshtein)."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, 1):
        current = [row]
        for column, right in enumerate(second, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (left != right)))
        previous = current
    return previous[-1]
