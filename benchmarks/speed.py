"""How fast models run, side by side with onnxruntime and OpenVINO, in one run.

    python -m benchmarks.speed digits lines languages
    python -m benchmarks.speed --zoo FOLDER effnet minilm ocr_rec ocr_cls resnet50 shufflenet squeezenet --threads 1 2
    --plot speed.svg

Every engine runs each model in a process of its own, so that nobody's spinning threads take another's time; the
processes take turns, a few runs each, for many rounds, and the medians of all rounds are compared. Columns: float, int8
by onnxruntime's own ``quantize_static`` where that works, and our ``out.onnx``, each on onnxruntime and, where it is
installed, on OpenVINO; and the machine on ``out.qprog``, with ``--weights`` on one of such weights, too. LiteRT is not
among them: what converts ONNX to it needs another environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.tools.arguments import models_parser, parse
from benchmarks.tools.cases import ENGINES, LIGHT, MACHINE, MACHINES, Case, Feed, prepare
from benchmarks.tools.speed_report import Row, Timing, as_json, plot, show
from qcompiler.errors import QCompilerError

BURST = 3
"""Runs of one engine before the next takes its turn."""

WARM_UP = 12
"""Runs before the first that counts."""


# --- one engine in a process of its own -------------------------------------------------------------------------------


def open_engine(engine: str, path: str, threads: int) -> Callable[[Feed], object]:
    """A function that runs the file once."""
    if engine in MACHINES:
        from qcompiler.runtime import Session

        return Session(path, num_threads=threads).run
    if engine.startswith("openvino"):
        import openvino

        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        compiled = openvino.Core().compile_model(path, "CPU", options)
        request = compiled.create_infer_request()
        return lambda feed: request.infer(feed, share_inputs=True)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def peak_bytes() -> int:
    """Largest resident size of this process since its program started; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def work(engine: str, path: str, feed_path: str, threads: int) -> None:
    """Answer each line on standard input with the milliseconds of a burst of runs."""
    run = open_engine(engine, path, threads)
    with np.load(feed_path) as data:
        feed = dict(data)
    for _ in range(WARM_UP):
        run(feed)
    print("ready", flush=True)
    for _line in sys.stdin:
        times = []
        for _ in range(BURST):
            start = time.perf_counter()
            run(feed)
            times.append(1000 * (time.perf_counter() - start))
        print(json.dumps({"ms": times, "peak": peak_bytes()}), flush=True)


@contextmanager
def worker(engine: str, path: Path, feed: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A process that runs one engine on one model."""
    command = [sys.executable, "-m", "benchmarks.speed", "--worker", engine, str(path), str(feed), str(threads)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    """The next line of a worker; '' when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def measure(case: Case, threads: int, rounds: int) -> Row:
    """Let all engines take turns."""
    times: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    with ExitStack() as stack:
        workers = {}
        for engine in ENGINES:
            if engine in case.files:
                process = stack.enter_context(worker(engine, case.files[engine], case.feed, threads))
                if answer(process) == "ready":
                    workers[engine] = process
        for _ in range(rounds):
            for engine, process in workers.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                result = json.loads(answer(process))
                times.setdefault(engine, []).extend(result["ms"])
                peaks[engine] = result["peak"]
    timings = {engine: Timing(float(np.median(found)), min(found), peaks[engine]) for engine, found in times.items()}
    return Row(case.name, threads, timings, *arena_of(case, threads))


def arena_of(case: Case, threads: int) -> tuple[int, int]:
    """Bytes of the machine's arena, and the least that any plan would need."""
    from qcompiler.runtime import Session

    with np.load(case.feed) as data:
        memory = Session(case.files[MACHINE], num_threads=threads).memory_for(dict(data))
    return memory.arena, memory.peak_lower_bound


# --- the command ------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """What the user asks for."""
    parser = models_parser("speed", "Time models side by side with other runtimes.", LIGHT)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--weights", default="", metavar="GRID", help="a column with such weights: int4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them (.svg, .png, .pdf; needs matplotlib)")
    chosen = parse(parser)
    if chosen.plot is not None and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install 'onnx-qcompiler[bench]'")
    return chosen


def main() -> int:
    """Measure the models named."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return 0
    chosen = arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for model in chosen.models:
            try:
                case = prepare(model, chosen.zoo, Path(name), chosen.weights)
            except QCompilerError as error:
                print(f"error: {model}: {error}", file=sys.stderr)
                return 2
            rows += [measure(case, threads, chosen.rounds) for threads in chosen.threads]
    show(rows)
    if chosen.json is not None:
        chosen.json.write_text(as_json(rows), encoding="utf8")
    if chosen.plot is not None:
        plot(rows, chosen.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
