"""How good the compiled models are, measured on labelled data.

    python -m benchmarks.accuracy digits lines languages
    python -m benchmarks.accuracy --zoo FOLDER effnet minilm ocr_rec ocr_cls
    python -m benchmarks.accuracy --zoo FOLDER effnet ocr_cls --no-data
    python -m benchmarks.accuracy --zoo FOLDER effnet -O1 --bits W8A8 W4A8 W4A4 W3A8 W2A8 --json results.json

Each model is compiled with its calibration feeds, once to ``out.onnx`` and once to ``out.qprog``, and scored five times
on its test feeds: in float on onnxruntime; ``out.onnx`` on onnxruntime, with that one's fused integer kernels; the same
file by float operators, which saturate on no CPU; the same file on the machine; and ``out.qprog`` on the machine. Where
the second and the third agree, nothing saturates: CPUs with and without VNNI give the same. With ``--json`` results
are kept as they come, and a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from benchmarks.tools.arguments import models_parser, parse, task_of
from models.task import Answers, Feed, Task, agreement, sqnr_db
from qcompiler.api import Options
from qcompiler.commands.executors import executor_of
from qcompiler.errors import QCompilerError, UnsupportedError
from qcompiler.graph.runner import Runner

COLUMNS = ("model", "preset", "ran by", "score", "same class", "SQNR", "ms", "bytes", "compiled in")
THREADS = 2

BITS = {
    "W8A8": ("int8", "uint8"),
    "W4A8": ("int4", "uint8"),
    "W4A4": ("int4", "uint4"),
    "W3A8": ("kmeans3", "uint8"),
    "W2A8": ("kmeans2", "uint8"),
}
"""Grid of the weights and type of the activations, by the bits of both."""

FLOAT = "float"

Run = Callable[[Feed], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Row:
    """One line of the table; the float model's has nothing to be compared with."""

    model: str
    preset: str
    ran_by: str
    score: str
    same: float | None
    sqnr_db: float | None
    milliseconds: float
    bytes: int
    seconds: float | None


def main() -> int:
    """Measure the models named; 2 when one cannot be compiled."""
    chosen = parse(_parser())
    options = Options(
        level=chosen.level, weights=chosen.weights, block=chosen.block, activations=chosen.activations,
        size_budget=chosen.size_budget, latency_budget=chosen.latency_budget,
    )  # fmt: skip
    data = not chosen.no_data
    wanted = [replace(options, weights=BITS[bits][0], activations=BITS[bits][1]) for bits in chosen.bits or ()]
    wanted = wanted or [options]
    rows = [Row(**item) for item in json.loads(chosen.json.read_text())] if chosen.json and chosen.json.exists() else []
    status = 0
    for name in chosen.models:
        known = {row.preset for row in rows if row.model == name}
        left = [options for options in wanted if preset_name(options, data=data) not in known]
        if not left:
            continue
        task = task_of(name, chosen.zoo)
        reference, median = answers_of(Runner(onnx.load(task.model), threads=THREADS).run, task)
        if FLOAT not in known:
            score, size = score_text(task, reference), task.model.stat().st_size
            rows.append(Row(name, FLOAT, "onnxruntime", score, None, None, median, size, None))
        for options in left:
            try:
                rows.extend(list(measure(task, reference, options, data=data)))
            except QCompilerError as error:
                print(f"error: {name}, {preset_name(options, data=data)}: {error}", file=sys.stderr)
                status = 2
            if chosen.json:
                chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    shown = {FLOAT, *(preset_name(options, data=data) for options in wanted)}
    Console(width=None if sys.stdout.isatty() else 140).print(
        table([row for row in rows if row.preset in shown], chosen.models)
    )
    return status


def _parser() -> argparse.ArgumentParser:
    parser = models_parser("accuracy", "Measure compiled models on labelled data.")
    add = parser.add_argument
    add("-O", dest="level", type=int, default=2, choices=range(4), help="effort of the compiler")
    add("--weights", default="int8", metavar="GRID", help="grid of the weights: int8, int4, nf4, ...")
    add("--block", type=int, default=0, metavar="N", help="weights of a channel that share a scale: 32, 64, 128")
    add("--activations", default="uint8", metavar="TYPE", help="uint8, int8, uint4, power4, int16")
    add("--size-budget", type=float, metavar="SHARE", help="with --weights auto: bytes of weights for those of 8 bits")
    add("--latency-budget", type=float, metavar="SHARE", help="with --weights auto: time of layers for that of 8 bits")
    add("--bits", nargs="+", choices=BITS, metavar="BITS", help=f"one after the other, instead: {', '.join(BITS)}")
    add("--no-data", action="store_true", help="compile without calibration feeds, as a stranger does")
    add("--json", type=Path, metavar="FILE", help="keep results here, and do not measure again what is there")
    return parser


def preset_name(options: Options, *, data: bool = True) -> str:
    """What the rows of one way to compile are known by: ``-O1 W4A8``, or grid and type where no bits are named so."""
    known = {pair: bits for bits, pair in BITS.items()}
    parts = [known.get((options.weights, options.activations), f"{options.weights}, {options.activations}")]
    if options.block:
        parts.append(f"blocks of {options.block}")
    if options.size_budget is not None:
        parts.append(f"size {options.size_budget:g}")
    if options.latency_budget is not None:
        parts.append(f"latency {options.latency_budget:g}")
    if not data:
        parts.append("no data")
    return f"-O{options.level} {', '.join(parts)}"


def measure(task: Task, reference: Answers, options: Options, *, data: bool = True) -> Iterator[Row]:
    """Lines of the table: onnxruntime as users open the file and by float operators, exact on every CPU, and the
    machine on both files, where it can. Without ``data`` the compiler makes up its feeds.
    """
    with tempfile.TemporaryDirectory() as folder:
        model, program = Path(folder) / "out.onnx", Path(folder) / "out.qprog"
        seconds = {path: compile_to(path, task, options, data=data) for path in (model, program)}
        for label, path, runner in (
            ("out.onnx, onnxruntime", model, lambda: Runner(onnx.load(model), integer_kernels=True, threads=THREADS)),
            ("out.onnx, float operators", model, lambda: Runner(onnx.load(model), threads=THREADS)),
            ("out.onnx, machine", model, lambda: executor_of(model)),
            ("out.qprog, machine", program, lambda: executor_of(program)),
        ):
            try:
                run = runner().run
            except UnsupportedError as error:
                print(f"{task.name}, {label}: {error}", file=sys.stderr)
                continue
            answers, median = answers_of(run, task)
            same = agreement(reference, answers) if task.classifies else None
            figures = (
                score_text(task, answers),
                same,
                sqnr_db(reference, answers),
                median,
                path.stat().st_size,
                seconds[path],
            )
            yield Row(task.name, preset_name(options, data=data), label, *figures)


def compile_to(path: Path, task: Task, options: Options, *, data: bool = True) -> float:
    """Write the compiled model; how many seconds that took."""
    start = time.perf_counter()
    feeds = task.calibration if data else None
    qcompiler.compile(task.model, data=feeds, options=options, for_onnx=path.suffix == ".onnx").save(path)
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


def table(rows: Sequence[Row], models: Sequence[str]) -> Table:
    """The results for people, a section for each model."""
    shown = Table(*COLUMNS)
    for model in models:
        for row in (row for row in rows if row.model == model):
            same, noise = (
                "" if row.same is None else f"{row.same:.3f}",
                "" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
            )
            seconds = "" if row.seconds is None else f"{row.seconds:.1f} s"
            shown.add_row(
                model,
                row.preset,
                row.ran_by,
                row.score,
                same,
                noise,
                f"{row.milliseconds:.2f}",
                f"{row.bytes:,}",
                seconds,
            )
        shown.add_section()
    return shown


if __name__ == "__main__":
    sys.exit(main())
