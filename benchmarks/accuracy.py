"""How good the compiled models are, measured on labelled data.

    python -m benchmarks.accuracy digits lines languages
    python -m benchmarks.accuracy --zoo FOLDER effnet minilm ocr_rec ocr_cls

Each model is compiled with its calibration feeds, once to ``out.onnx`` and once to ``out.qprog``, and scored four times on its test
feeds: in float on onnxruntime; ``out.onnx`` on onnxruntime, with that one's fused integer kernels; the same file on the machine; and
``out.qprog`` on the machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from benchmarks.arguments import models_parser, parse, task_of
from models.task import Answers, Feed, Task, agreement, sqnr_db
from qcompiler.api import Options
from qcompiler.commands.executors import open_executor
from qcompiler.errors import QCompilerError
from qcompiler.runner import Runner

COLUMNS = ("model", "ran by", "score", "same class", "SQNR", "ms", "bytes", "compiled in")
THREADS = 2

Run = Callable[[Feed], Mapping[str, NDArray[Any]]]


def main() -> int:
    """Measure the models named; 2 when one cannot be compiled."""
    parser = models_parser("accuracy", "Measure compiled models on labelled data.")
    parser.add_argument("-O", dest="level", type=int, default=2, choices=range(4), help="effort of the compiler")
    parser.add_argument("--weights", default="int8", metavar="GRID", help="grid of the weights: int8, int4, nf4, ...")
    parser.add_argument("--block", type=int, default=0, metavar="N", help="weights of a channel that have a scale of their own: 32, 64, 128")
    parser.add_argument("--activations", default="uint8", metavar="TYPE", help="uint8, int8, uint4, power4, int16")
    parser.add_argument("--size-budget", type=float, metavar="SHARE", help="with --weights auto: bytes of the weights as a share of 8 bits: 0.5")
    parser.add_argument("--latency-budget", type=float, metavar="SHARE", help="with --weights auto: time of the layers as a share of 8 bits: 0.8")
    chosen = parse(parser)
    options = Options(
        level=chosen.level, weights=chosen.weights, block=chosen.block, activations=chosen.activations, size_budget=chosen.size_budget,
        latency_budget=chosen.latency_budget,
    )
    table = Table(*COLUMNS)
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        try:
            for row in measure(task, options):
                table.add_row(*row)
        except QCompilerError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


def measure(task: Task, options: Options) -> Iterator[tuple[str, ...]]:
    """Four lines of the table."""
    reference, median = answers_of(Runner(onnx.load(task.model), threads=THREADS).run, task)
    yield task.name, "float, onnxruntime", score_text(task, reference), "", "", f"{median:.2f}", f"{task.model.stat().st_size:,}", ""
    with tempfile.TemporaryDirectory() as folder:
        model, program = Path(folder) / "out.onnx", Path(folder) / "out.qprog"
        seconds = {path: compile_to(path, task, options) for path in (model, program)}
        for label, path, run in (
            ("out.onnx, onnxruntime", model, Runner(onnx.load(model), threads=THREADS).run),
            ("out.onnx, machine", model, open_executor(model).run),
            ("out.qprog, machine", program, open_executor(program).run),
        ):
            answers, median = answers_of(run, task)
            same = f"{agreement(reference, answers):.3f}" if task.classifies else ""
            figures = (same, f"{sqnr_db(reference, answers):.1f} dB", f"{median:.2f}")
            yield "", label, score_text(task, answers), *figures, f"{path.stat().st_size:,}", f"{seconds[path]:.1f} s"


def compile_to(path: Path, task: Task, options: Options) -> float:
    """Write the compiled model; how many seconds that took."""
    start = time.perf_counter()
    qcompiler.compile(task.model, data=task.calibration, options=options, for_onnx=path.suffix == ".onnx").save(path)
    return time.perf_counter() - start


def answers_of(run: Run, task: Task) -> tuple[Answers, float]:
    """The first output for every feed, and the median time of one run in milliseconds."""
    run(task.feeds[0])  # what is done only once is not part of a run
    answers, times = [], []
    for feed in task.feeds:
        start = time.perf_counter()
        answers.append(next(iter(run(feed).values())))
        times.append(1000 * (time.perf_counter() - start))
    return answers, statistics.median(times)


def score_text(task: Task, answers: Answers) -> str:
    """The task's own figures."""
    return ", ".join(f"{name} {value:.3f}" for name, value in task.score(answers).items())


if __name__ == "__main__":
    sys.exit(main())
