"""How good the compiled models are, measured on labelled data.

    python -m benchmarks.accuracy digits lines languages
    python -m benchmarks.accuracy --zoo FOLDER effnet minilm ocr_rec ocr_cls

Each model is compiled with its calibration feeds, once for ``.onnx`` and once for the machine, and scored three times on its test
feeds: in float on onnxruntime, as ``out.onnx`` on onnxruntime with its own fused integer kernels, and on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from models.small import SMALL_TASKS
from models.task import Answers, Feed, Task, agreement, sqnr_db
from models.zoo import TASKS, zoo_task
from qcompiler.api import Options
from qcompiler.errors import QCompilerError
from qcompiler.runner import Runner
from qcompiler.runtime import Session

COLUMNS = ("model", "ran by", "score", "same class", "SQNR", "bytes", "compiled in")
THREADS = 2

Run = Callable[[Feed], Mapping[str, NDArray[Any]]]


def main() -> int:
    """Measure the models named; 2 when one cannot be compiled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description="Measure compiled models on labelled data.")
    parser.add_argument("models", nargs="+", metavar="MODEL", choices=[*SMALL_TASKS, *TASKS], help=", ".join((*SMALL_TASKS, *TASKS)))
    parser.add_argument("--zoo", type=Path, metavar="FOLDER", help="where the larger models are; python -m models.zoo FOLDER builds them")
    parser.add_argument("-O", dest="level", type=int, default=2, choices=range(4), help="effort of the compiler")
    chosen = parser.parse_args()
    if chosen.zoo is None and any(name in TASKS for name in chosen.models):
        parser.error(f"--zoo FOLDER is needed for {', '.join(TASKS)}")
    table = Table(*COLUMNS)
    for name in chosen.models:
        task = SMALL_TASKS[name]() if name in SMALL_TASKS else zoo_task(name, chosen.zoo)
        try:
            for row in measure(task, Options(level=chosen.level)):
                table.add_row(*row)
        except QCompilerError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def measure(task: Task, options: Options) -> Iterable[tuple[str, ...]]:
    """Three lines of the table."""
    reference = answers_of(Runner(onnx.load(task.model), threads=THREADS).run, task)
    yield task.name, "float", score_text(task, reference), "", "", f"{task.model.stat().st_size:,}", ""
    with tempfile.TemporaryDirectory() as folder:
        for suffix, label in ((".onnx", "out.onnx, onnxruntime"), (".qprog", "machine")):
            path = Path(folder) / f"out{suffix}"
            start = time.perf_counter()
            qcompiler.compile(task.model, data=task.calibration, options=options, for_onnx=suffix == ".onnx").save(path)
            seconds = time.perf_counter() - start
            run: Run = Runner(onnx.load(path), threads=THREADS).run if suffix == ".onnx" else Session(str(path)).run
            answers = answers_of(run, task)
            figures = (f"{agreement(reference, answers):.3f}", f"{sqnr_db(reference, answers):.1f} dB")
            yield "", label, score_text(task, answers), *figures, f"{path.stat().st_size:,}", f"{seconds:.1f} s"


def answers_of(run: Run, task: Task) -> Answers:
    """The first output for every feed."""
    return [next(iter(run(feed).values())) for feed in task.feeds]


def score_text(task: Task, answers: Answers) -> str:
    """The task's own figures."""
    return ", ".join(f"{name} {value:.3f}" for name, value in task.score(answers).items())


if __name__ == "__main__":
    sys.exit(main())
