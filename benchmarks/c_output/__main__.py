"""What a program costs as C: bytes of the file and of its object, and one run beside the machine's.

    python -m benchmarks.c_output digits lines languages [--zoo FOLDER ocr_cls effnet] [--rounds 15] [--compiler cc]

Models are compiled with ``-O1`` on eight calibration feeds and written for one sample. *text* and *rodata* are of the
object at ``-O2``, without the float border. The C and the machine (one thread) run in turns in one process, codes
in and out, and must give the same codes; milliseconds of the processor, medians.
"""

from __future__ import annotations

import ctypes
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from benchmarks.tools.arguments import models_parser, parse, task_of
from qcompiler.api import Options
from qcompiler.c_output import write_c
from qcompiler.runtime import Program, Session
from qcompiler.runtime.cpu.features import cpu_name
from qcompiler.runtime.run.border import solve_dimensions

Feed = Mapping[str, NDArray[Any]]
LEVELS = ("-O2", "-O3")
COLUMNS = ("model", "weights", "model.c", "text", "rodata", "arena", *(f"C {level}" for level in LEVELS), "machine")


def main() -> None:
    """Print the table."""
    parser = models_parser("c_output", "Programs as C: bytes, and milliseconds beside the machine's.")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each, in turns")
    parser.add_argument("--compiler", default="cc")
    chosen = parse(parser)
    version = subprocess.run([chosen.compiler, "--version"], capture_output=True, text=True, check=True).stdout
    table = Table(*COLUMNS, title=f"{cpu_name()}, {version.splitlines()[0]}; kB, ms of the processor")
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        feeds = [dict(feed) for feed in task.calibration[:8]]
        program = qcompiler.compile(task.model, data=feeds, options=Options(level=1), for_onnx=False).program
        feed = {key: array[:1] for key, array in dict(task.feeds[0]).items()}
        table.add_row(name, *measured(program, feed, chosen.compiler, chosen.rounds))
    Console().print(table)


def measured(program: Program, feed: Feed, compiler: str, rounds: int) -> list[str]:
    """The cells of one program."""
    with tempfile.TemporaryDirectory() as name, Session(program, num_threads=1) as session:
        folder = Path(name)
        write_c(program, folder / "net.c", solve_dimensions(program, {key: np.asarray(feed[key]) for key in feed}))
        arena = int(re.findall(r"ARENA_BYTES (\d+)", (folder / "net.h").read_text())[0])
        text, rodata = sections(folder, compiler)
        ports = [port.name for port in (*program.inputs, *program.outputs)]
        codes = {
            port.name: feed[port.name] if port.scale is None else session.quantize(port.name, feed[port.name])
            for port in program.inputs
        }
        expected = session.run(codes, codes=ports)
        outputs = {name: np.empty_like(array) for name, array in expected.items()}
        runs = [c_run(folder, compiler, level, program, codes, outputs, arena) for level in LEVELS]
        times = in_turns([*runs, lambda: session.run(codes, codes=ports)], rounds)
        for name, array in expected.items():
            np.testing.assert_array_equal(outputs[name], array)
        sizes = [program.blob.nbytes, (folder / "net.c").stat().st_size, text, rodata, arena]
    return [*(f"{size / 1000:.0f}" for size in sizes), *(f"{1000 * seconds:.2f}" for seconds in times)]


def sections(folder: Path, compiler: str) -> tuple[int, int]:
    """Bytes of code and of constants in the object at -O2 that runs on codes alone."""
    command = [compiler, "-std=c99", "-O2", "-DNET_NO_FLOAT", "-c", "net.c", "-o", "net.o"]
    subprocess.run(command, cwd=folder, check=True)
    listed = subprocess.run(["size", "-A", "net.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    found = [(name, int(size)) for name, size in re.findall(r"^\.(\S+)\s+(\d+)", listed, re.MULTILINE)]
    return tuple(  # type: ignore[return-value]
        sum(size for name, size in found if name.startswith(start)) for start in ("text", ("rodata", "data.rel.ro"))
    )


def c_run(
    folder: Path, compiler: str, level: str, program: Program, codes: Feed, outputs: Feed, arena_bytes: int
) -> Callable[[], None]:
    """A function that runs the C once."""
    library = folder / f"net{level}.so"
    subprocess.run([compiler, "-std=c99", level, "-shared", "-fPIC", "net.c", "-o", library], cwd=folder, check=True)
    function = ctypes.CDLL(str(library)).net_run_codes
    arena = np.zeros(arena_bytes // 8 + 1, np.int64)
    inputs = [np.ascontiguousarray(codes[port.name]) for port in program.inputs]
    results = [outputs[port.name] for port in program.outputs]
    places = [(ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays)) for arrays in (inputs, results)]

    def run() -> None:
        if function(*places, ctypes.c_void_p(arena.ctypes.data)) != 0 or not inputs:
            raise RuntimeError("the run was refused")

    return run


def in_turns(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Median processor seconds of each."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            run()  # the others' data has left the cache
            start = time.thread_time()
            run()
            taken.append(time.thread_time() - start)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()
