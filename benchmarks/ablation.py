"""What each pass adds, alone and together: tasks x grids of the weights x pipelines.

    python -m benchmarks.ablation --zoo FOLDER effnet minilm ocr_rec ocr_cls [--weights int8 int4] [--only gptq O2]
    [--json results.json]

Every pipeline ends in one graph, which onnxruntime runs on the task's labelled feeds; none of those was among the feeds
it was calibrated on. With ``--json`` results are kept as they come, and a run that was broken off goes on where it
stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

import qcompiler
from benchmarks.accuracy import answers_of, score_text
from benchmarks.tools.arguments import models_parser, parse, task_of
from models.task import Answers, Task, agreement, sqnr_db
from qcompiler.api import Options
from qcompiler.errors import QCompilerError
from qcompiler.graph.runner import Runner

COLUMNS = ("model", "weights", "pipeline", "score", "same class", "SQNR", "seconds")
THREADS = 2

QUANTIZE = "quantize-activations,quantize-weights,choose-widths"


def _line(solver: str, before: str = "", after: str = "", inputs: str = "float") -> str:
    levels = f"reconstruct-layers(grid='{{grid}}',solver={solver},inputs={inputs})"
    steps = ("normalize", before, QUANTIZE, levels, after, "store-codes")
    return ",".join(step for step in steps if step)


PIPELINES = {
    "nearest": _line("nearest"),
    "nearest + bias": _line("nearest", after="correct-bias"),
    "nearest + statistics": _line("nearest", after="tune-statistics"),
    "nearest + polish": _line("nearest", after="polish"),
    "equalize + nearest": _line("nearest", before="equalize-channels"),
    "smooth + nearest": _line("nearest", before="smooth-activations"),
    "clip": _line("clip"),
    "descent": _line("descent"),
    "adaround": _line("adaround"),
    "gptq": _line("gptq"),
    "beam": _line("beam"),
    "gptq in turn": _line("gptq", inputs="quantized"),
    "gptq + statistics": _line("gptq", after="tune-statistics"),
    "gptq + polish": _line("gptq", after="polish"),
    "equalize + gptq": _line("gptq", before="equalize-channels"),
    "smooth + gptq": _line("gptq", before="smooth-activations"),
}
"""Pipelines by what is tried; ``{grid}`` stands for the grid of the weights; ``in turn``: layers are fitted behind
quantized ones.
"""

PRESETS = {f"O{level}": level for level in range(4)}


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    model: str
    weights: str
    pipeline: str
    score: str
    same: float | None
    sqnr_db: float
    seconds: float


def main() -> int:
    """Measure every combination asked for; those that fail are named, and the exit status is 1."""
    parser = models_parser("ablation", "Measure what each pass adds.")
    parser.add_argument(
        "--weights", nargs="+", default=["int8", "int4", "int3"], metavar="GRID", help="grids of the weights"
    )
    parser.add_argument(
        "--only", nargs="+", choices=[*PIPELINES, *PRESETS], metavar="NAME", help=", ".join((*PIPELINES, *PRESETS))
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep results here, and do not measure again what is there"
    )
    chosen = parse(parser)
    results = (
        [Result(**item) for item in json.loads(chosen.json.read_text())] if chosen.json and chosen.json.exists() else []
    )
    names, failed = chosen.only or [*PIPELINES, *PRESETS], False
    for model in chosen.models:
        task = task_of(model, chosen.zoo)
        known = {(item.model, item.weights, item.pipeline) for item in results}
        wanted = [(grid, name) for grid in chosen.weights for name in names if (model, grid, name) not in known]
        reference = answers_of(Runner(onnx.load(task.model), threads=THREADS).run, task)[0] if wanted else []
        for grid, name in wanted:
            try:
                results.append(measure(task, reference, grid, name))
            except QCompilerError as error:
                print(f"error: {model}, {grid}, {name}: {error}", file=sys.stderr)
                failed = True
                continue
            if chosen.json:
                chosen.json.write_text(json.dumps([asdict(item) for item in results], indent=1) + "\n")
    Console(width=None if sys.stdout.isatty() else 130).print(
        table([item for item in results if item.model in chosen.models])
    )
    return int(failed)


def measure(task: Task, reference: Answers, grid: str, name: str) -> Result:
    """Compile a task's model by one pipeline and score it."""
    options = (
        Options(PRESETS[name], weights=grid)
        if name in PRESETS
        else Options(passes=PIPELINES[name].replace("{grid}", grid))
    )
    start = time.perf_counter()
    compiled = qcompiler.compile(task.model, data=task.calibration, options=options, for_onnx=False)
    seconds = time.perf_counter() - start
    answers = answers_of(Runner(compiled.graph, threads=THREADS).run, task)[0]
    same = agreement(reference, answers) if task.classifies else None
    return Result(task.name, grid, name, score_text(task, answers), same, sqnr_db(reference, answers), seconds)


def table(results: Sequence[Result]) -> Table:
    """The results for people."""
    shown = Table(*COLUMNS)
    for item in results:
        same = "" if item.same is None else f"{item.same:.3f}"
        shown.add_row(
            item.model, item.weights, item.pipeline, item.score, same, f"{item.sqnr_db:.1f} dB", f"{item.seconds:.0f}"
        )
    return shown


if __name__ == "__main__":
    sys.exit(main())
