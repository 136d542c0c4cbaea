"""How long calibration takes, side by side with onnxruntime's own quantizer on the same feeds.

    python -m benchmarks.calibration --zoo FOLDER effnet

Ours: import, normalize and quantize to 8 bits with ranges over all feeds (``-O0``), written to a file. Theirs:
``quantize_static`` with ``CalibrationMethod.MinMax``, QDQ, per channel, on the same file. Both run in this process, in
turns, each ``--repeat`` times; the fastest counts.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from rich.console import Console
from rich.table import Table

from benchmarks.tools.arguments import models_parser, parse, task_of
from models.task import Feed, Task
from qcompiler.feeds.sources import open_source
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import Options
from qcompiler.pass_base import Context
from qcompiler.presets import Preset


class _Reader(CalibrationDataReader):
    """Feeds as onnxruntime's quantizer wants them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def ours(task: Task, folder: Path) -> None:
    """Import, normalize, quantize, write."""
    graph = load_graph(task.model)
    source = open_source(list(task.calibration), graph)
    Manager(Preset(Options(0, widen="off", avoid_saturation=False), for_onnx=True).pipeline().passes).run(
        graph, Context(data=source)
    )
    export.save(graph, folder / "ours.onnx", reference_feed=task.calibration[0], force=True)


def theirs(task: Task, folder: Path) -> None:
    """onnxruntime's quantize_static."""
    quantize_static(
        str(task.model),
        str(folder / "theirs.onnx"),
        _Reader(task.calibration),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )


def seconds(work: Callable[[Task, Path], None], task: Task, folder: Path) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    work(task, folder)
    return time.perf_counter() - start


def main() -> None:
    """Print a table."""
    parser = models_parser("calibration", "Time calibration beside onnxruntime's quantizer.")
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parse(parser)
    logging.disable(logging.WARNING)
    table = Table("model", "feeds", "qcompiler -O0, s", "quantize_static MinMax, s")
    for name in chosen.models:
        task = task_of(name, chosen.zoo)
        with tempfile.TemporaryDirectory() as folder:
            times = [
                (seconds(ours, task, Path(folder)), seconds(theirs, task, Path(folder))) for _ in range(chosen.repeat)
            ]
        table.add_row(name, str(len(task.calibration)), *(f"{min(column):.2f}" for column in zip(*times, strict=True)))
    Console().print(table)


if __name__ == "__main__":
    main()
