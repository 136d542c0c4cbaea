r"""Other people's quantizers on the same model, the same calibration feeds and the same scoring.

    python -m benchmarks.accuracy_peers effnet --zoo FOLDER --peer "onnxruntime 8=python benchmarks/peers/onnxruntime_static.py {io} 8" \
        --peer "AIMET AdaRound 4=/path/to/venv/bin/python benchmarks/peers/aimet.py {io} 4 250"

A peer is a program in an environment of its own. ``{io}`` becomes four paths: the model, the calibration feeds and the test feeds as ``.npz``
(arrays named ``index|input``), and the ``.npz`` that it must write: its first output for each test feed by index, and ``seconds``, the time that
quantizing took.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import answers_of, score_text
from benchmarks.arguments import models_parser, parse, task_of
from models.task import Answers, Feed, Task, agreement, sqnr_db
from qcompiler.runner import Runner

COLUMNS = ("model", "quantized by", "score", "same class", "SQNR", "seconds")


def main() -> int:
    """Run every peer on every model; those that fail are shown with the last line they wrote."""
    parser = models_parser("accuracy_peers", "Measure other quantizers.")
    parser.add_argument("--peer", action="append", required=True, metavar="NAME=COMMAND", help="a name, and a command with {io} in it")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="for each peer and model")
    chosen = parse(parser)
    table = Table(*COLUMNS)
    for model in chosen.models:
        task = task_of(model, chosen.zoo)
        reference = answers_of(Runner(onnx.load(task.model)).run, task)[0]
        table.add_row(task.name, "float", score_text(task, reference))
        for peer in chosen.peer:
            name, _, command = peer.partition("=")
            table.add_row("", name, *measure(task, reference, command, chosen.timeout))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    return 0


def measure(task: Task, reference: Answers, command: str, timeout: float) -> tuple[str, ...]:
    """What a peer's answers are worth."""
    with tempfile.TemporaryDirectory() as folder:
        calibration, test, answers = (Path(folder) / name for name in ("calibration.npz", "test.npz", "answers.npz"))
        write_feeds(calibration, task.calibration)
        write_feeds(test, task.feeds)
        places = shlex.join(str(path) for path in (task.model, calibration, test, answers))
        try:
            done = subprocess.run(shlex.split(command.replace("{io}", places)), capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            return ("took too long", "", "", f"> {timeout:.0f}")
        if done.returncode or not answers.exists():
            return (f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:60]}", "", "", "")
        found = np.load(answers)
        got = [found[str(index)] for index in range(len(task.feeds))]
        same = f"{agreement(reference, got):.3f}" if task.classifies else ""
        return score_text(task, got), same, f"{sqnr_db(reference, got):.1f} dB", f"{float(found['seconds']):.0f}"


def write_feeds(path: Path, feeds: Sequence[Feed]) -> None:
    """All arrays of all feeds in one file."""
    arrays: dict[str, Any] = {f"{index}|{name}": array for index, feed in enumerate(feeds) for name, array in feed.items()}
    np.savez(path, **arrays)


if __name__ == "__main__":
    sys.exit(main())
