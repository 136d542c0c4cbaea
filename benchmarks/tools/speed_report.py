"""What the speed benchmark found: as a table, as JSON, as a plot."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tools.cases import ENGINES, MACHINE, MACHINES


@dataclass(frozen=True)
class Timing:
    """Of one engine on one model: median and fastest milliseconds of a run, and the largest resident size of its
    process.
    """

    median_ms: float
    fastest_ms: float
    peak_bytes: int


@dataclass(frozen=True)
class Row:
    """One model with so many threads.

    Attributes:
        arena_bytes: of the machine.
        arena_bound: the least that any plan of the arena would need.
    """

    model: str
    threads: int
    engines: dict[str, Timing]
    arena_bytes: int
    arena_bound: int

    @property
    def ratio(self) -> float:
        """The machine's time over the fastest other's."""
        others = [timing.median_ms for engine, timing in self.engines.items() if engine not in MACHINES]
        return self.engines[MACHINE].median_ms / min(others)

    def ratio_to(self, *engines: str) -> float | None:
        """The machine's time over the fastest of these; None where none has run."""
        others = [self.engines[engine].median_ms for engine in engines if engine in self.engines]
        return self.engines[MACHINE].median_ms / min(others) if others else None


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(statistics.fmean(map(math.log, values)))


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """A table for each number of threads."""
    console = console or Console(width=None if sys.stdout.isatty() else 200)
    for threads in dict.fromkeys(row.threads for row in rows):
        chosen = [row for row in rows if row.threads == threads]
        console.print(_table(chosen, f"median ms of one run, {threads} thread(s)"))
        console.print(
            f"geometric mean of the ratios to the fastest other: {geometric_mean([row.ratio for row in chosen]):.3f}"
        )


def _table(rows: Sequence[Row], title: str) -> Table:
    engines = [engine for engine in ENGINES if any(engine in row.engines for row in rows)]
    table = Table(
        "model", *engines, "ratio to fastest", "to ort int8", "peak MB ort / machine", "arena kB (bound)", title=title
    )
    for row in rows:
        times = (f"{row.engines[engine].median_ms:.3g}" if engine in row.engines else "—" for engine in engines)
        int8 = row.ratio_to("onnxruntime int8", "onnxruntime out.onnx")
        peaks = (
            f"{row.engines[e].peak_bytes / 1e6:.0f}" if e in row.engines else "—"
            for e in ("onnxruntime out.onnx", MACHINE)
        )
        arena = f"{row.arena_bytes / 1e3:.0f} ({row.arena_bound / 1e3:.0f})"
        table.add_row(
            row.model, *times, f"{row.ratio:.2f}", "—" if int8 is None else f"{int8:.2f}", " / ".join(peaks), arena
        )
    return table


def as_json(rows: Sequence[Row]) -> str:
    """All figures, with the CPU they were measured on."""
    from qcompiler.runtime.cpu.features import cpu_name
    from qcompiler.runtime.cpu.isa import best_isa

    return json.dumps(
        {
            "cpu": cpu_name(),
            "isa": best_isa().name.lower(),
            "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        },
        indent=1,
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of every engine's time over the machine's, one panel for each number of threads; the format by the file's
    suffix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(row.threads for row in rows))
    others = [engine for engine in ENGINES if engine not in MACHINES and any(engine in row.engines for row in rows)]
    panels = [[row for row in rows if row.threads == count] for count in counts]
    figure = Figure(figsize=(1.5 + 1.3 * max(map(len, panels)), 3.2 * len(panels)), layout="tight")
    FigureCanvasAgg(figure)
    width = 0.8 / max(len(others), 1)
    for place, (count, panel) in enumerate(zip(counts, panels, strict=True), start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        for index, engine in enumerate(others):
            found = [(at, row) for at, row in enumerate(panel) if engine in row.engines]
            heights = [row.engines[engine].median_ms / row.engines[MACHINE].median_ms for _, row in found]
            axes.bar([at + width * (index + 0.5) - 0.4 for at, _ in found], heights, width, label=engine)
        axes.axhline(1, color="black", linewidth=1)
        axes.set_yscale("log")
        axes.set_xticks(
            range(len(panel)), [f"{row.model}\n{row.engines[MACHINE].median_ms:.3g} ms" for row in panel], fontsize=7
        )
        axes.set_ylabel("time / machine's")
        axes.set_title(f"{count} thread(s); above 1: slower than the machine, whose time is below", fontsize=8)
        axes.legend(fontsize=6)
    figure.savefig(path)
