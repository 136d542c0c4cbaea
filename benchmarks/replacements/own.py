"""Networks of dense layers with more neurons than they need, on digits and texts: bundled, and run on the machine."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import qcompiler
from benchmarks.mlp import Shape, to_onnx, train
from models.data import ALPHABET, Split, digits, languages
from qcompiler.api import Compiled, Options
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Session

CALIBRATION, ROWS = 2000, 50
"""Training samples to calibrate with, and how many make a feed."""

TIMED_ROWS, ROUNDS = 64, 60
"""Samples of a timed run, and how often the programs take turns."""

QUANTIZE = "quantize-activations,quantize-weights,choose-widths,correct-bias,store-codes"
VARIANTS = {
    "int8": "",
    **{f"bundle, error {error:g}": f"snnk-bundle(error={error:g})," for error in (0.02, 0.05, 0.1, 0.2)},
    **{
        f"drawn maps alone, error {error:g}": f"snnk-bundle(error={error:g}, kinds='relu,cos,product'),"
        for error in (0.05, 0.2)
    },
    **{f"low rank, error {error:g}": f"low-rank(error={error:g})," for error in (0.05, 0.2)},
}
CHAIN_VARIANTS = {
    "int8": "",
    **{f"fully bundled, error {error:g}": f"snnk-bundle(error={error:g})," for error in (0.05, 0.1, 0.2, 0.4)},
    **{
        f"fully bundled, drawn maps alone, error {error:g}": f"snnk-bundle(error={error:g}, kinds='relu,cos,product'),"
        for error in (0.2, 0.4)
    },
    "pairs alone, error 0.1": "snnk-bundle(error=0.1, chains=False),",
}

BAG = 512
"""Slots that pairs of letters are counted in."""


@dataclass(frozen=True)
class Case:
    """A network and its data."""

    name: str
    model: onnx.ModelProto
    shape: Shape
    calibration: NDArray[np.float32]
    test: Split


def rows(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for every network and pipeline."""
    for case in cases(chosen.data):
        baseline: Session | None = None
        for name, text in (CHAIN_VARIANTS if case.shape.blocks == 0 else VARIANTS).items():
            start = time.perf_counter()
            compiled = compile_case(case, f"normalize,{text}{QUANTIZE}")
            session = compiled.session()
            baseline = baseline or session
            yield {
                "network": case.name, "pipeline": name, **_figures(case, compiled, session),
                "time": f"{ratio(baseline, session, case):.2f}", "compiled in": f"{time.perf_counter() - start:.0f} s",
            }  # fmt: skip


def cases(folder: Path) -> Iterator[Case]:
    """The trained networks."""
    images, texts = (
        tuple(prepare(split) for split in splits)
        for prepare, splits in ((_pixels, digits(folder)), (_pairs, languages(folder)))
    )
    for name, (learn, test), shape, epochs in (
        ("digits, 2 residual blocks", images, Shape(784, 10, 64, 512, 2), 10),
        ("texts, 2 residual blocks", texts, Shape(BAG, 24, 64, 512, 2), 4),
        ("digits, a chain", images, Shape(784, 10, 0, 256, 0), 10),
        ("texts, a chain", texts, Shape(BAG, 24, 0, 256, 0), 4),
    ):
        parameters = train(shape, learn, epochs=epochs)
        drawn = np.random.default_rng(0).choice(len(learn.labels), CALIBRATION, replace=False)
        yield Case(name, to_onnx(shape, parameters), shape, learn.inputs[np.sort(drawn)], test)


def _pixels(split: Split) -> Split:
    return Split(split.inputs.reshape(len(split.labels), -1), split.labels)


def _pairs(split: Split) -> Split:
    """Texts as counts of hashed pairs of neighbouring characters, divided by the root of their number."""
    codes = split.inputs.astype(np.int64)
    slots = ((codes[:, :-1] * len(ALPHABET) + codes[:, 1:]) * 2654435761 >> 7) % BAG
    inside = (codes[:, :-1] > 0) & (codes[:, 1:] > 0)
    counts = np.zeros((len(codes), BAG), np.float32)
    np.add.at(counts, (np.nonzero(inside)[0], slots[inside]), 1)
    return Split(counts / np.sqrt(np.maximum(inside.sum(axis=1, keepdims=True), 1)).astype(np.float32), split.labels)


def compile_case(case: Case, pipeline: str) -> Compiled:
    """Compile for the machine with the case's calibration samples."""
    feeds = [{"x": case.calibration[start : start + ROWS]} for start in range(0, CALIBRATION, ROWS)]
    return qcompiler.compile(case.model, data=feeds, options=Options(passes=pipeline), for_onnx=False)


def _figures(case: Case, compiled: Compiled, session: Session) -> dict[str, Any]:
    kept = [each for each in compiled.report.replacements if each.kept]
    logits = session.run({"x": case.test.inputs})["logits"]
    exact = Runner(case.model).run({"x": case.test.inputs})["logits"]
    before, after = sum(each.macs_before for each in kept), sum(each.macs_after for each in kept)
    return {
        "float accuracy": f"{_accuracy(exact, case.test):.3f}",
        "accuracy on the machine": f"{_accuracy(logits, case.test):.3f}",
        "replaced": "; ".join(each.form for each in kept) or "nothing",
        "weights of the blocks": f"{before:,} -> {after:,} (1/{before / after:.1f})" if kept else "",
        "all weights": f"{sum(layer_sizes(compiled)):,}",
    }  # fmt: skip


def layer_sizes(compiled: Compiled) -> list[int]:
    """Elements of the weights of the compiled layers."""
    return [layer.values.size for layer in find_layers(compiled.graph)]


def _accuracy(logits: NDArray[Any], test: Split) -> float:
    return float((logits.argmax(axis=1) == test.labels).mean())


def ratio(first: Session, second: Session, case: Case) -> float:
    """Time of the second program over that of the first: the fastest runs of many, taken in turn, one thread."""
    sessions: Sequence[Session] = [Session(each.program, num_threads=1) for each in (first, second)]
    feed, fastest = {"x": case.test.inputs[:TIMED_ROWS]}, [float("inf")] * 2
    for _ in range(ROUNDS):
        for index, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(feed)
            fastest[index] = min(fastest[index], time.perf_counter() - start)
    return fastest[1] / fastest[0]
