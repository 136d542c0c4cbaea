"""``python -m models.quickstart NAME FOLDER``: the model NAME in float, and as compiled into FOLDER, on its test
samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from models.small import SMALL_TASKS
from models.task import Answers, Feed, Task, agreement, sqnr_db
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Session

COLUMNS = ("", "file", "accuracy", "same answer as float", "SQNR")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m models.quickstart", description="Compare a compiled model with the float one."
    )
    parser.add_argument("name", choices=sorted(SMALL_TASKS))
    parser.add_argument("folder", type=Path, help="where NAME.onnx and NAME.qprog are")
    chosen = parser.parse_args()
    task = SMALL_TASKS[chosen.name]()
    compiled, program = (chosen.folder / f"{chosen.name}{suffix}" for suffix in (".onnx", ".qprog"))
    table = Table(
        *COLUMNS, title=f"{chosen.name}: {sum(len(next(iter(feed.values()))) for feed in task.feeds)} test samples"
    )
    float_answers = _run(Runner(onnx.load(task.model)).run, task)
    table.add_row(*_row("float, onnxruntime", task.model, task, float_answers, float_answers))
    table.add_row(
        *_row(
            "integer, onnxruntime",
            compiled,
            task,
            _run(Runner(onnx.load(compiled), integer_kernels=True).run, task),
            float_answers,
        )
    )
    table.add_row(*_row("integer machine", program, task, _run(Session(str(program)).run, task), float_answers))
    Console().print(table)


def _run(run: Callable[[Feed], dict[str, np.ndarray]], task: Task) -> Answers:
    return [next(iter(run(feed).values())) for feed in task.feeds]


def _row(label: str, path: Path, task: Task, answers: Answers, reference: Answers) -> tuple[str, ...]:
    ratio = "" if answers is reference else f"{sqnr_db(reference, answers):.1f} dB"
    same = "" if answers is reference else f"{agreement(reference, answers):.3f}"
    return label, f"{path.stat().st_size / 1000:.0f} kB", f"{task.score(answers)['accuracy']:.3f}", same, ratio


if __name__ == "__main__":
    main()
