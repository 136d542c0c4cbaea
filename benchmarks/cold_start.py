"""How long a new process takes from its first import to its first answer, and how much memory it then holds.

    python -m benchmarks.cold_start digits lines languages
    python -m benchmarks.cold_start --zoo FOLDER effnet minilm [--rounds 10] [--edge edge/bin/python]

Each sample is a fresh Python process that imports the engine, loads the file and runs it once; the engines take turns,
and medians are shown, of processor time (the interpreter's start with it) the least, which other processes disturb
least. The machine's code is where the checkout has it by then, brought along (`make bundles`) or in the
user's cache folder. *floor* is a process that imports only NumPy, which every engine stands on; *machine alone* runs in
the environment of the interpreter that ``--edge`` names, where ``qcompiler-runtime`` is installed and little else.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tools.arguments import models_parser, parse
from benchmarks.tools.cases import MACHINE, Case, prepare
from qcompiler.errors import QCompilerError
from qcompiler.runtime.warm import warm

_PROLOGUE = """
import json, sys, time
start = time.perf_counter()
import numpy as np
"""
_EPILOGUE = """
end = time.perf_counter()
try:
    lines = open("/proc/self/status").read().splitlines()
except OSError:
    lines = []
peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
print(json.dumps({"import": 1000 * (imported - start), "load": 1000 * (loaded - imported), "run": 1000 * (end - loaded),
"cpu": 1000 * time.process_time(), "peak": peak / 1000}))
"""
_FEED = 'with np.load(sys.argv[2]) as data: feed = dict(data)\n'
_ONNXRUNTIME = (
    "import onnxruntime as ort\nimported = time.perf_counter()\noptions = ort.SessionOptions()\n"
    "options.intra_op_num_threads, options.log_severity_level = 1, 4\n"
    'session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])\nloaded = '
    "time.perf_counter()\n"
    f"{_FEED}session.run(None, feed)"
)
_SESSION = (
    "from {package} import Session\nimported = time.perf_counter()\nsession = Session(sys.argv[1], num_threads=1)\n"
    f"loaded = time.perf_counter()\n{_FEED}session.run(feed)"
)
ALONE = "machine alone"
SCRIPTS = {
    "floor": "imported = loaded = time.perf_counter()",
    "onnxruntime float": _ONNXRUNTIME,
    "onnxruntime int8": _ONNXRUNTIME,
    "onnxruntime out.onnx": _ONNXRUNTIME,
    MACHINE: _SESSION.format(package="qcompiler.runtime"),
    ALONE: _SESSION.format(package="qcompiler_runtime"),
}
"""What a process does, by engine."""

Sample = dict[str, float]


def sample(python: str | Path, engine: str, file: Path, feed: Path) -> Sample:
    """Of one new process of an interpreter: milliseconds of import, load and first run, of the processor for all, and
    the peak in MB.
    """
    code = _PROLOGUE + SCRIPTS[engine] + _EPILOGUE
    # -P: what is installed, and not what lies in this folder
    command = [str(python), "-P", "-c", code, str(file), str(feed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {key: float(value) for key, value in json.loads(done.stdout).items()}


def measure(case: Case, rounds: int, edge: Path | None = None) -> dict[str, Sample]:
    """Medians by engine, and the least processor time; ``edge`` is the interpreter of `ALONE`."""
    files = {"floor": case.feed, **case.files, **({ALONE: case.files[MACHINE]} if edge else {})}
    samples: dict[str, list[Sample]] = {engine: [] for engine in SCRIPTS if engine in files}
    for _ in range(rounds):
        for engine, found in samples.items():
            python = edge if edge and engine == ALONE else sys.executable
            found.append(sample(python, engine, files[engine], case.feed))
    return {
        engine: {key: (min if key == "cpu" else statistics.median)(one[key] for one in found) for key in found[0]}
        for engine, found in samples.items()
    }


def _total(one: Sample) -> float:
    return one["import"] + one["load"] + one["run"]


def show(name: str, results: dict[str, Sample], console: Console) -> None:
    """One table a model."""
    columns = ("engine", "import ms", "load ms", "first run ms", "total ms", "ratio", "cpu ms", "ratio", "peak MB")
    table = Table(*columns, title=f"{name}; ratios: to onnxruntime int8")
    nothing = dict.fromkeys(("import", "load", "run", "cpu"), float("nan"))
    reference = results.get("onnxruntime int8", nothing)
    for engine, one in results.items():
        times = [f"{time:.0f}" for time in (one["import"], one["load"], one["run"], _total(one))]
        ratio, least = _total(one) / _total(reference), one["cpu"] / reference["cpu"]
        table.add_row(engine, *times, f"{ratio:.2f}", f"{one['cpu']:.0f}", f"{least:.2f}", f"{one['peak']:.0f}")
    console.print(table)


def main() -> int:
    """Measure the models named."""
    parser = models_parser("cold_start", "Time from the first import to the first answer.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--edge", type=Path, help="an interpreter of an environment with qcompiler-runtime")
    chosen = parse(parser)
    warm()
    console = Console(width=None if sys.stdout.isatty() else 150)
    with tempfile.TemporaryDirectory() as name:
        for model in chosen.models:
            try:
                case = prepare(model, chosen.zoo, Path(name))
            except QCompilerError as error:
                print(f"error: {model}: {error}", file=sys.stderr)
                return 2
            show(model, measure(case, chosen.rounds, chosen.edge), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
