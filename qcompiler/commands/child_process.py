"""Runs a command in a process of its own: onnxruntime's machine code may crash on a model."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BAD_INPUT = 2


def run_in_child(module: str, command: str, arguments: Sequence[str]) -> int:
    """Exit status of ``python -m module arguments``; after a signal, `BAD_INPUT` and one line on standard error."""
    with subprocess.Popen([sys.executable, "-P", "-m", module, *arguments]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal has told the other process, too
            return 128 + signal.SIGINT
    if status >= 0:
        return status
    _clean_up(arguments, process.pid)
    if -status in (signal.SIGINT, signal.SIGTERM):
        return 128 - status
    print(f"error: {command}: {_cause(-status)}; nothing was written", file=sys.stderr)  # noqa: T201
    return BAD_INPUT


def temporary_prefix(process: int) -> str:
    """How the names of the folders begin in which a process keeps its results until they are complete."""
    return f".qcompile-{process}-"


def _clean_up(arguments: Sequence[str], process: int) -> None:
    """Remove what a dead process has left beside its results."""
    for folder in {Path(argument.partition("=")[2] or argument).parent for argument in arguments}:
        for left in folder.glob(f"{temporary_prefix(process)}*"):
            shutil.rmtree(left, ignore_errors=True)


def _cause(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"the process was killed ({name}), probably for want of memory"
    return (
        f"onnxruntime crashed on this model ({name}); try other calibration feeds, or report it to onnxruntime with "
        "the model"
    )
