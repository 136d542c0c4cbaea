"""Shows a report to people: one short table at the end. In a pipe the same lines come plain and unbroken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qcompiler.records import FloatNode, OutputFigure, Replaced, Report
from qcompiler.report.measure import SAME_DB
from qcompiler.report.pareto import allocation_lines

OUTPUT_LINES = 6
FLOAT_LINES = 10
BLOCK_LINES = 12
WORST_LAYERS = 3

Row = tuple[str, str]
"""What a line is about, and what it says."""


def show(report: Report, console: Console) -> None:
    """Print the closing table. A figure that was not measured has no line."""
    show_rows(rows(report), console)


def show_mapping(result: Mapping[str, Any], console: Console) -> None:
    """Print any figures by name, one a line; a mapping inside becomes indented lines."""
    show_rows(list(_flat(result)), console)


def rows(report: Report) -> list[Row]:
    """The lines of the closing table."""
    parts = (_program, _sizes, _search, _accuracy, _replacements, _widths, _bits, _memory, _worst, _left_float, _effort)
    return [line for part in parts for line in part(report)]


def size(count: float) -> str:
    """Bytes as people read them: ``18.8 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def decibels(value: float) -> str:
    """A signal-to-noise ratio as people read it."""
    return "no difference" if value >= SAME_DB else f"{round(value, 1) + 0.0:.1f} dB"


def show_rows(lines: Sequence[Row], console: Console) -> None:
    """Print lines: a table on a terminal, plain and unbroken in a pipe."""
    if not console.is_terminal:
        width = max((len(label) for label, _ in lines), default=0)
        for label, text in lines:
            console.print(Text(f"{label:{width}}  {text}".rstrip()), soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines:
        table.add_row(Text(label), Text(text))
    console.print(table)


def _figure(report: Report, name: str) -> float | None:
    value = report.figures.get(name)
    return value if isinstance(value, int | float) else None


def _program(report: Report) -> Iterator[Row]:
    if report.program == "integer":
        yield "program", "integer from input to output"
    elif report.program == "mixed":
        segments, share = _figure(report, "segments"), _figure(report, "program_mac_share")
        part = "" if share is None else f" with {_percent(share)} of all multiply-accumulates"
        yield "program", f"mixed: {segments or 0:.0f} integer segment(s){part}, the rest on onnxruntime"
        yield from _nodes("outside", [node for node in report.outside if not node.is_island])
        yield from _nodes("too small", [node for node in report.outside if node.is_island])


def _sizes(report: Report) -> Iterator[Row]:
    before, after, share = (_figure(report, name) for name in ("float_bytes", "out_bytes", "integer_mac_share"))
    if before and after is not None:
        yield "weights", f"{size(before)} -> {size(after)} ({after / before:.0%})"
    for name, written in report.file_bytes.items():
        yield "file", f"{name}: {size(written)}"
    if share is not None:
        yield "integer", f"{_percent(share)} of all multiply-accumulates"


def _search(report: Report) -> Iterator[Row]:
    found = report.search
    chosen = next((trial for trial in found.trials if trial.chosen), None) if found else None
    if found is None or chosen is None or chosen.score is None:
        return
    yield "accuracy", f"{found.function}: {chosen.score:.6g}, {found.score:.6g} in float, at least {found.least:.6g}"
    yield "", f"with {chosen.options}, the smallest that keeps it of {len(found.trials)} trials"


def _percent(share: float) -> str:
    """Never 100 % for less than all of it."""
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{min(100 * share, 99.9):.1f} %"


def _accuracy(report: Report) -> Iterator[Row]:
    worst_first = sorted(report.output_sqnr_db.items(), key=lambda item: item[1])
    for name, value in worst_first[:OUTPUT_LINES]:
        figures = {each.columns: each for each in report.outputs if each.output == name}
        yield "output", f"{name}: {decibels(value)} against float{_spread(figures.pop('', None))}"
        for columns, each in figures.items():
            yield "", f"{name}{columns}: {decibels(each.sqnr_db)} against float{_spread(each)}"
    if len(worst_first) > OUTPUT_LINES:
        yield "", f"and {len(worst_first) - OUTPUT_LINES} better ones"
    for trial in report.trials:
        cure = f"; {trial.cure}" if trial.cure else ""
        yield "tried", f"{trial.what}: {trial.output} {decibels(trial.sqnr_db)} beside the float model{cure}"


def _spread(figure: OutputFigure | None) -> str:
    """What single feeds gave."""
    if figure is None or figure.feeds < 2 or figure.lowest_db >= SAME_DB:
        return ""
    return f" ({decibels(figure.lowest_db)} to {decibels(figure.highest_db)} on {figure.feeds} feeds held out)"


def _replacements(report: Report) -> Iterator[Row]:
    kept = [each for each in report.replacements if each.kept]
    if not report.replacements:
        return
    saved = sum(each.macs_before - each.macs_after for each in kept)
    yield (
        "replaced",
        f"{len(kept)} of {len(report.replacements)} blocks"
        + (f": {saved:,} multiply-accumulates a row fewer" if kept else ""),
    )
    for each in kept[:BLOCK_LINES]:
        yield "", f"{each.region}: {_replacement_text(each)}"
    others = [each for each in report.replacements if not each.kept]
    for each in others[: max(BLOCK_LINES - len(kept), 1)]:
        yield "", f"{each.region} stays: {each.reason}"
    if len(others) > max(BLOCK_LINES - len(kept), 1) or len(kept) > BLOCK_LINES:
        yield "", "--report lists all"


def _replacement_text(each: Replaced) -> str:
    parts = [
        each.form,
        f"{each.macs_before:,} -> {each.macs_after:,} MACs",
        f"{size(each.bytes_before)} -> {size(each.bytes_after)}",
    ]
    if each.milliseconds_before is not None:
        parts.append(f"{each.milliseconds_before:.3g} -> {each.milliseconds_after:.3g} ms")
    if each.error is not None:
        parts.append(f"errs by {each.error:.2g}")
    if each.loss_before is not None:
        parts.append(f"the outputs by {each.loss_before:.2g} -> {each.loss_after:.2g}")
    return ", ".join(parts)


def _widths(report: Report) -> Iterator[Row]:
    wide = [choice for choice in report.widths if choice.bits == 16]
    if wide:
        into = sum(choice.feeds_gemm for choice in wide)
        yield "16 bits", f"{len(wide)} tensors, {into} of them into a matrix product or convolution"
    layers, cost = _figure(report, "avoid_saturation_layers"), _figure(report, "avoid_saturation_cost_db")
    if layers:
        price = "" if cost is None else f" at a cost of {cost:.1f} dB of weight noise"
        yield (
            "saturation",
            f"avoided in {layers:.0f} layers{price}; --no-avoid-saturation: for CPUs that multiply exactly",
        )
        yield "", "and, slower, for all with onnxruntime's session option session.x64quantprecision = 1"


def _bits(report: Report) -> Iterator[Row]:
    for index, line in enumerate(() if report.allocation is None else allocation_lines(report.allocation)):
        yield "" if index else "bits", line


def _memory(report: Report) -> Iterator[Row]:
    arena, constants = _figure(report, "arena_bytes"), _figure(report, "constants_bytes")
    if arena is not None:
        yield "machine", f"arena {size(arena)}" + (f", constants {size(constants)}" if constants is not None else "")


def _worst(report: Report) -> Iterator[Row]:
    layers = sorted(report.layers, key=lambda layer: layer.sqnr_db)[:WORST_LAYERS]
    for label, layer in zip(("worst layers", "", ""), layers, strict=False):
        yield label, f"{decibels(layer.sqnr_db)}  {layer.node} ({layer.op})"


def _left_float(report: Report) -> Iterator[Row]:
    if report.left_float != report.outside:
        yield from _nodes("left float", report.left_float)


def _nodes(label: str, nodes: Sequence[FloatNode]) -> Iterator[Row]:
    """Nodes of one operator and one reason together, those of most work first."""
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for node in nodes:
        groups[node.op, node.reason].append(node.node)
    shares = {key: sum(node.share or 0.0 for node in nodes if (node.op, node.reason) == key) for key in groups}
    largest = sorted(groups.items(), key=lambda group: (-shares[group[0]], -len(group[1]), group[0]))
    for index, ((op, reason), names) in enumerate(largest[:FLOAT_LINES]):
        which = names[0] if len(names) == 1 else f"{len(names)} nodes, {names[0]} first"
        cost = f", {_percent(shares[op, reason])} of all multiply-accumulates" if shares[op, reason] else ""
        yield label if index == 0 else "", f"{op} ({which}): {reason}{cost}"
    if len(largest) > FLOAT_LINES:
        yield "", f"and {sum(len(names) for _, names in largest[FLOAT_LINES:])} nodes more; --report lists all"


def _effort(report: Report) -> Iterator[Row]:
    seconds, peak = _figure(report, "seconds"), _figure(report, "peak_memory_bytes")
    if seconds is not None:
        yield "compiled", f"in {seconds:.1f} s" + (f" with at most {size(peak)} of memory" if peak is not None else "")


def _flat(result: Mapping[str, Any], indent: str = "") -> Iterator[Row]:
    for name, value in result.items():
        label = indent + (name if indent else name.replace("_", " "))
        if isinstance(value, Mapping):
            yield label, ""
            yield from _flat(value, indent + "  ")
        else:
            yield label, size(value) if name.endswith("bytes") and isinstance(value, int | float) else str(value)
