"""Comparisons made by hand, for pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qcompiler.page.provenance import Origin
from qcompiler.records import OutputFigure
from qcompiler.report.comparison import Comparison, SharedTensor, WorstFeed, part

ORIGIN = Origin("a.onnx", "qdiff a.onnx b.qprog", "a CPU", "Linux", "today", {"qcompiler": "1"}, {"a.onnx": "ab"})

Values = Mapping[str, np.ndarray]


def worst(at: int, given: Values, first: Values, second: Values) -> WorstFeed:
    """A feed of which every output is at 10 dB."""
    return WorstFeed(at, None, dict.fromkeys(first, 10.0), given, first, second)


def layers(count: int) -> list[SharedTensor]:
    """A chain that parts in its middle."""
    figures = [60.0 if at < count // 2 else 12.0 for at in range(count)]
    reads = [200.0, *figures]
    return [
        SharedTensor(f"t{at}", f"layer_{at}", "Conv", "", value + 3, value, value, reads[at])
        for at, value in enumerate(figures)
    ]


def comparison(**given: Any) -> Comparison:
    """One of eight layers without worst feeds, but for what is ``given``."""
    chain = layers(8)
    plain = Comparison(
        3, {"y": 30.0}, [OutputFigure("y", "", 30.0, 20.0, 40.0, 3)], [], ([], []), [], chain, part(chain), {}, []
    )
    return replace(plain, **given)


def long_comparison(count: int) -> Comparison:
    """Of ``count`` layers, with images of noise, sounds and texts among the inputs and outputs."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 3, 640, 640), dtype=np.uint8)
    wave, ids = rng.normal(size=(1, 16000)).astype(np.float32), np.arange(40)[None]
    inputs = {"image": image, "more": image, "third": image, "sound": wave, "ids": ids}
    outputs = {"y": wave, "z": image, "k": ids}
    feeds = [worst(at, inputs, outputs, {**outputs, "y": wave / 2}) for at in range(4)]
    chain = layers(count)
    return comparison(layers=chain, parting=part(chain), worst=feeds)
