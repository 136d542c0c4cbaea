"""How fast models run, side by side with onnxruntime and OpenVINO, in one run.

    python -m benchmarks.speed digits lines languages
    python -m benchmarks.speed --zoo FOLDER effnet minilm ocr_rec ocr_cls resnet50 shufflenet squeezenet [--threads 1] [--rounds 15]

Every engine runs each model in a process of its own, so that nobody's spinning threads take another's time; the processes take turns,
a few runs each, for many rounds, and the medians of all rounds are compared. Columns: float and int8 on onnxruntime (its own
``quantize_static`` where that works, and our ``out.onnx``), float and int8 (our ``out.onnx``) on OpenVINO where that is installed, and the
machine on ``out.qprog``. *ratio* is the machine's time over the fastest other's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import qcompiler
from models.small import SMALL_TASKS
from models.zoo import TASKS, zoo_task
from qcompiler.errors import QCompilerError

LIGHT = {
    "resnet50": "light_resnet50", "densenet121": "light_densenet121", "inception_v1": "light_inception_v1", "inception_v2": "light_inception_v2",
    "shufflenet": "light_shufflenet", "squeezenet": "light_squeezenet", "vgg19": "light_vgg19", "zfnet512": "light_zfnet512",
    "alexnet": "light_bvlc_alexnet",
}
"""Architectures without trained weights that come with the package onnx: for speed only."""

ENGINES = ("onnxruntime float", "onnxruntime int8", "onnxruntime out.onnx", "openvino float", "openvino out.onnx", "machine")
BURST = 3
"""Runs of one engine before the next takes its turn."""

Feed = dict[str, NDArray[Any]]


@dataclass
class Case:
    """A model with what each engine loads for it, and one feed."""

    name: str
    files: dict[str, Path]
    feed: Feed
    times: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)


# --- preparing ---------------------------------------------------------------------------------------------------------------------


def light_model(name: str) -> tuple[Path, list[Feed]]:
    """One of the `LIGHT` architectures and two random feeds."""
    path = Path(onnx.__file__).parent / "backend/test/data/light" / f"{LIGHT[name]}.onnx"
    model = onnx.load(path)
    known = {tensor.name for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    inputs = [info for info in model.graph.input if info.name not in known]
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in inputs}
    return path, [{key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()} for _ in range(2)]


def prepare(name: str, zoo: Path | None, folder: Path) -> Case:
    """Compile and quantize ``name`` into ``folder``."""
    if name in LIGHT:
        model, feeds = light_model(name)
        feed = feeds[0]
    else:
        task = SMALL_TASKS[name]() if name in SMALL_TASKS else zoo_task(name, zoo or Path())
        model, feeds = task.model, [dict(feed) for feed in task.calibration[:8]]
        feed = {key: array[:1] for key, array in dict(task.feeds[0]).items()}
    result, program = folder / f"{name}.onnx", folder / f"{name}.qprog"
    qcompiler.compile(model, data=feeds).save(result)
    qcompiler.compile(model, data=feeds, for_onnx=False).save(program)
    files = {"onnxruntime float": model, "onnxruntime out.onnx": result, "machine": program}
    peer = quantized_by_onnxruntime(model, feeds, folder / f"{name}-ort.onnx")
    if peer is not None:
        files["onnxruntime int8"] = peer
    if find_spec("openvino"):
        files |= {"openvino float": model, "openvino out.onnx": result}
    np.savez(folder / f"{name}.npz", allow_pickle=False, **feed)
    return Case(name, files, feed)


def quantized_by_onnxruntime(model: Path, feeds: list[Feed], target: Path) -> Path | None:
    """onnxruntime's own static quantization; None where it fails or its result does not load."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static, shape_inference

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._left, None)

    try:
        prepared = target.with_suffix(".pre.onnx")
        shape_inference.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )
        ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    except Exception as error:  # a peer may fail in any way; the table then shows a dash
        print(f"{model.name}: onnxruntime's quantizer: {str(error).splitlines()[0][:150]}", file=sys.stderr)
        return None
    return target


# --- one engine in a process of its own ------------------------------------------------------------------------------------------------


def open_engine(engine: str, path: str, threads: int) -> Callable[[Feed], object]:
    """A function that runs the file once."""
    if engine == "machine":
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
    for _ in range(2 * BURST):
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
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answer(process: subprocess.Popen[str]) -> str:
    """The next line of a worker; '' when it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def measure(case: Case, folder: Path, threads: int, rounds: int) -> None:
    """Let all engines take turns; fills ``case.times``."""
    with ExitStack() as stack:
        workers = {}
        for engine in ENGINES:
            if engine in case.files:
                process = stack.enter_context(worker(engine, case.files[engine], folder / f"{case.name}.npz", threads))
                if answer(process) == "ready":
                    workers[engine] = process
        for _ in range(rounds):
            for engine, process in workers.items():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
                result = json.loads(answer(process))
                case.times.setdefault(engine, []).extend(result["ms"])
                case.peaks[engine] = result["peak"]


# --- the table -----------------------------------------------------------------------------------------------------------------------


def show(cases: list[Case], threads: int) -> None:
    """Medians in ms, the machine's ratio to the fastest other, and the ratios' geometric mean."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table("model", *ENGINES, "ratio", "peak MB: ort / machine", title=f"median ms of one run, {threads} thread(s)")
    ratios = []
    for case in cases:
        medians = {engine: statistics.median(times) for engine, times in case.times.items()}
        others = [value for engine, value in medians.items() if engine != "machine"]
        ratios.append(medians["machine"] / min(others))
        peak = f"{case.peaks['onnxruntime out.onnx'] / 1e6:.0f} / {case.peaks['machine'] / 1e6:.0f}"
        table.add_row(case.name, *(f"{medians[engine]:.2f}" if engine in medians else "—" for engine in ENGINES), f"{ratios[-1]:.2f}", peak)
    console.print(table)
    console.print(f"geometric mean of the ratios: {math.exp(statistics.fmean(map(math.log, ratios))):.3f}")


def main() -> int:
    """Measure the models named."""
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Time models side by side with other runtimes.")
    parser.add_argument("models", nargs="+", metavar="MODEL", choices=[*SMALL_TASKS, *TASKS, *LIGHT], help=", ".join((*SMALL_TASKS, *TASKS, *LIGHT)))
    parser.add_argument("--zoo", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    if chosen.zoo is None and any(name in TASKS for name in chosen.models):
        parser.error(f"--zoo FOLDER is needed for {', '.join(TASKS)}")
    with tempfile.TemporaryDirectory() as name:
        folder, cases = Path(name), []
        for model in chosen.models:
            try:
                case = prepare(model, chosen.zoo, folder)
            except QCompilerError as error:
                print(f"error: {model}: {error}", file=sys.stderr)
                return 2
            measure(case, folder, chosen.threads, chosen.rounds)
            cases.append(case)
        show(cases, chosen.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
