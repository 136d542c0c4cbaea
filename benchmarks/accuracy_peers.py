r"""Other people's quantizers on the same model, the same calibration feeds and the same scoring.

    python -m benchmarks.accuracy_peers effnet --zoo FOLDER --peer "onnxruntime 8=python
    benchmarks/peers/onnxruntime_static.py {io} 8" \
        --peer "AIMET AdaRound 4=/path/to/venv/bin/python benchmarks/peers/aimet.py {io} 4 250" [--json results.json]

A peer is a program in an environment of its own. ``{io}`` becomes four paths: the model, the calibration feeds and the
test feeds as ``.npz`` (arrays named ``index|input``), and the ``.npz`` that it must write: its first output for each
test feed by index, ``seconds``, the time that quantizing took, and, where it wrote a quantized model, the ``bytes`` of
that. With ``--json`` results are kept as they come, failures among them, and a run that was broken off goes on where it
stopped.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import answers_of, score_text
from benchmarks.tools.arguments import models_parser, parse, task_of
from models.task import Answers, Feed, Task, agreement, sqnr_db
from qcompiler.graph.runner import Runner

COLUMNS = ("model", "quantized by", "score", "same class", "SQNR", "bytes", "seconds")


@dataclass(frozen=True)
class Result:
    """One line of the table; without ``sqnr_db`` a failure, or the float model itself.

    Attributes:
        model: name of the task.
        peer: what quantized it.
        score: the task's own figures, or why there are none.
        same: share of samples with the float model's class.
        sqnr_db: against the float model's answers.
        bytes: size of the quantized model, where the peer writes one.
        seconds: that quantizing took.
    """

    model: str
    peer: str
    score: str
    same: float | None = None
    sqnr_db: float | None = None
    bytes: int | None = None
    seconds: float | None = None


def main() -> int:
    """Run every peer on every model; those that fail are shown with the last line they wrote."""
    parser = models_parser("accuracy_peers", "Measure other quantizers.")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=COMMAND", help="a name, and a command with {io} in it"
    )
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for each peer and model")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep results here, and do not measure again what is there"
    )
    chosen = parse(parser)
    results = read_results(chosen.json)
    for model in chosen.models:
        known = {item.peer for item in results if item.model == model}
        wanted = [
            (name, command) for name, _, command in (peer.partition("=") for peer in chosen.peer) if name not in known
        ]
        if not wanted:
            continue
        task = task_of(model, chosen.zoo)
        reference = answers_of(Runner(onnx.load(task.model)).run, task)[0]
        if "float" not in known:
            results.append(Result(model, "float", score_text(task, reference), bytes=task.model.stat().st_size))
        for name, command in wanted:
            results.append(measure(task, reference, name, command, chosen.timeout))
            if chosen.json:
                chosen.json.write_text(json.dumps([asdict(item) for item in results], indent=1) + "\n")
    Console(width=None if sys.stdout.isatty() else 150).print(table(results, chosen.models))
    return 0


def read_results(path: Path | None) -> list[Result]:
    """What an earlier run left."""
    return [Result(**item) for item in json.loads(path.read_text())] if path and path.exists() else []


def measure(task: Task, reference: Answers, name: str, command: str, timeout: float) -> Result:
    """What a peer's answers are worth."""
    with tempfile.TemporaryDirectory() as folder:
        calibration, test, answers = (Path(folder) / part for part in ("calibration.npz", "test.npz", "answers.npz"))
        write_feeds(calibration, task.calibration)
        write_feeds(test, task.feeds)
        places = shlex.join(str(path) for path in (task.model, calibration, test, answers))
        try:
            done = subprocess.run(
                shlex.split(command.replace("{io}", places)),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result(task.name, name, f"took longer than {timeout:.0f} s")
        if done.returncode or not answers.exists():
            return Result(task.name, name, f"failed: {last_line(done.stderr)}")
        found = np.load(answers)
        got = [found[str(index)] for index in range(len(task.feeds))]
        same = agreement(reference, got) if task.classifies else None
        size = int(found["bytes"]) if "bytes" in found else None
        return Result(
            task.name, name, score_text(task, got), same, sqnr_db(reference, got), size, float(found["seconds"])
        )


def last_line(text: str) -> str:
    """The last line that says something, without what would break a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:100] if lines else "no message"


def write_feeds(path: Path, feeds: Sequence[Feed]) -> None:
    """All arrays of all feeds in one file."""
    arrays: dict[str, Any] = {
        f"{index}|{name}": array for index, feed in enumerate(feeds) for name, array in feed.items()
    }
    np.savez(path, **arrays)


def table(results: Sequence[Result], models: Sequence[str]) -> Table:
    """The results for people, a section for each model."""
    shown = Table(*COLUMNS)
    for model in models:
        for item in (item for item in results if item.model == model):
            same = "" if item.same is None else f"{item.same:.3f}"
            noise = "" if item.sqnr_db is None else f"{item.sqnr_db:.1f} dB"
            size = "" if item.bytes is None else f"{item.bytes:,}"
            shown.add_row(
                model, item.peer, item.score, same, noise, size, "" if item.seconds is None else f"{item.seconds:.0f}"
            )
        shown.add_section()
    return shown


if __name__ == "__main__":
    sys.exit(main())
