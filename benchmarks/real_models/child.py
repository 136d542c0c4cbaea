"""Compiles one model in a process of its own and says on the last line, as JSON, what became of it.

    python -m benchmarks.real_models.child MODEL.onnx OUT.qprog LEVEL [NAME=SIZE ...]

Feeds are made up; the outputs are compared with the float model's on others than those that the compiler saw.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from qcompiler.api import Options, compile
from qcompiler.commands.executors import executor_of
from qcompiler.errors import QCompilerError
from qcompiler.feeds.sources import synthetic_source
from qcompiler.graph.ir import Feed
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.report.measure import decibels
from qcompiler.shapes.fixed import fix_sizes, parse_sizes

FRESH_SEED, FRESH_FEEDS = 4711, 4


def fresh_feeds(model: Path, dims: tuple[str, ...]) -> list[Feed]:
    """Made-up feeds of another seed than the compiler's."""
    graph, sizes = load_graph(model), parse_sizes(dims)
    fix_sizes(graph, sizes)
    ctx = Context(seed=FRESH_SEED, dims={name: high for name, (_, high) in sizes.items()})
    return [feed for feed, _ in zip(synthetic_source(graph, ctx), range(FRESH_FEEDS), strict=False)]


def worst_decibels(model: Path, out: Path, dims: tuple[str, ...]) -> float | None:
    """SQNR of the worst float output over the fresh feeds; None where there is none."""
    feeds, compiled = fresh_feeds(model, dims), executor_of(out, "machine" if out.suffix == ".qprog" else "onnxruntime")
    float_model = Runner(load_graph(model))
    expected, got = [float_model.run(feed) for feed in feeds], [compiled.run(feed) for feed in feeds]
    names = [name for name, value in expected[0].items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    powers = {name: [0.0, 0.0] for name in names}
    for before, after in zip(expected, got, strict=True):
        for name in names:
            exact = before[name].astype(np.float64)
            powers[name][0] += float((exact**2).sum())
            powers[name][1] += float(((exact - after[name]) ** 2).sum())
    return min((decibels(*both) for both in powers.values()), default=None)


def size_of(model: Path) -> int:
    """Bytes of a model and of its external data beside it."""
    return sum(file.stat().st_size for file in model.parent.glob(f"{model.name}*"))


def result_of(model: Path, out: Path, level: int, dims: tuple[str, ...]) -> dict[str, Any]:
    """Figures of one compilation, or the reason why there is none."""
    start = time.perf_counter()
    try:
        compiled = compile(model, options=Options(level=level, dims=dims), for_onnx=out.suffix == ".onnx")
        compiled.save(out, force=True)
        decibel = worst_decibels(model, out, dims)
    except QCompilerError as error:
        return {"refused": str(error), "seconds": time.perf_counter() - start}
    return {
        "decibels": decibel,
        "bytes": out.stat().st_size / size_of(model),
        "share": compiled.report.figures.get("integer_mac_share"),
        "seconds": compiled.report.figures["seconds"],
    }


def main() -> None:
    """Print the result; the exit status is 0 for a refusal, too."""
    model, out, level, *dims = sys.argv[1:]
    result = result_of(Path(model), Path(out), int(level), tuple(dims))
    result["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
