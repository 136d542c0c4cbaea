"""`qrun`: run a model on feeds, time it, show its memory and its outputs."""

from __future__ import annotations

import statistics
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.commands.executors import Executor, Values
from qcompiler.errors import OptionError
from qcompiler.feeds.sources import Source, open_source, synthetic_source
from qcompiler.graph.ir import Graph
from qcompiler.pass_base import Context


def feeds_for(inputs: Graph, feeds: str | None) -> Source:
    """The user's feeds, or made-up ones."""
    return synthetic_source(inputs, Context()) if feeds is None else open_source(feeds, inputs)


def run_and_show(executor: Executor, feeds: str | None, repeat: int, save: Path | None) -> dict[str, Any]:
    """Run every feed ``repeat`` times; figures and a summary of the last outputs."""
    if save is not None and (save.is_dir() or save.suffix != ".npz"):
        raise OptionError(f"--save {save}: must be a .npz file")
    source = feeds_for(executor.inputs, feeds)
    first = next(iter(source))
    executor.run(first)  # what is done once (loading, packing, compiling) is not part of a run's time
    times: list[float] = []
    kept: list[Values] = []
    outputs: Values = {}
    for feed in source:
        for _ in range(repeat):
            start = time.perf_counter()
            outputs = executor.run(feed)
            times.append(1000 * (time.perf_counter() - start))
        if save is not None:
            kept.append(outputs)
    if save is not None:
        _save(save, kept)
    figures = {"runs": len(times), "median_ms": round(statistics.median(times), 3), "min_ms": round(min(times), 3)}
    summary = {name: f"{value.dtype}{list(value.shape)}, {_range(value)}" for name, value in outputs.items()}
    return dict(chain(figures.items(), executor.memory(first).items(), {"outputs": summary}.items()))


def _range(value: Any) -> str:
    if value.dtype.kind not in "fiub":
        return "sequences, maps or strings"
    return f"{value.min():.5g} … {value.max():.5g}" if value.size else "empty"


def _save(path: Path, outputs: list[Values]) -> None:
    shapes = {name: {value[name].shape for value in outputs} for name in outputs[0]}
    uneven = [name for name, found in shapes.items() if len(found) > 1]
    if uneven:
        raise OptionError(
            f"--save {path}: output '{uneven[0]}' differs in shape between feeds and cannot be stacked; "
            "run those feeds apart"
        )
    part = path.with_name(f".{path.stem}.part.npz")
    np.savez(part, allow_pickle=False, **{name: np.stack([value[name] for value in outputs]) for name in outputs[0]})
    part.replace(path)
