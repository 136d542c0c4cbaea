"""The Pareto front of size against loss: lines of the closing table, a table of its own, and an SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.table import Table

from qcompiler.records import Allocation

__all__ = ["allocation_lines", "front_svg", "front_table"]

TABLE_LINES = 12
WIDTH, HEIGHT, MARGIN = 640, 400, 60

Point = tuple[float, float]


def loss_db(loss: float) -> float:
    """A loss (error over energy) as decibels of signal over noise; 200 for none."""
    return 200.0 if loss <= 1e-20 else -10 * math.log10(loss)


def allocation_lines(allocation: Allocation) -> Iterator[str]:
    """What was chosen, for people: the widths, the size, the loss."""
    grids = Counter(layer.grid for layer in allocation.layers)
    yield ", ".join(f"{grid} in {count}" for grid, count in sorted(grids.items())) + " layers"
    chosen = allocation.candidates[0]
    share = allocation.size / max(allocation.full, 1)
    loss = _loss_text(allocation, chosen.measured)
    yield f"{share:.1%} of the 8-bit weights, {loss} on feeds held out ({chosen.origin})"
    if allocation.time is not None:
        time, full = allocation.time, max(allocation.time.full, 1)
        part, whole = time.chosen / full, time.full / 1e3
        yield f"{part:.1%} of the time that 8-bit layers take, {whole:.0f} µs, as measured on one machine"


def _loss_text(allocation: Allocation, loss: float) -> str:
    return f"{loss_db(loss):.1f} dB" if allocation.loss == "mse" else f"KL {loss:.2g}"


def front_table(allocation: Allocation) -> Table:
    """The front, thinned, with the sizes of what was evaluated and chosen beside it; the chosen line is marked."""
    table = Table("", "bytes", "of 8 bit", "predicted", "measured")
    chosen, *others = allocation.candidates
    lines: list[tuple[str, int, float, float | None]] = [(">", chosen.size, chosen.predicted, chosen.measured)]
    lines += [("", other.size, other.predicted, other.measured) for other in others]
    step = -(-len(allocation.front) // TABLE_LINES)
    lines += [("", size, loss, None) for size, loss in allocation.front[::step]]
    for mark, size, predicted, measured in sorted(lines, key=lambda line: line[1]):
        figure = "" if measured is None else _loss_text(allocation, measured)
        table.add_row(
            mark, f"{size:,}", f"{size / max(allocation.full, 1):.1%}", _loss_text(allocation, predicted), figure
        )
    return table


def front_svg(allocation: Allocation) -> str:
    """The front as a line, candidates as circles (the chosen one filled): share of 8-bit size against decibels."""
    full = max(allocation.full, 1)
    front = [(size / full, loss_db(loss)) for size, loss in allocation.front]
    tried = [(candidate.size / full, loss_db(candidate.measured)) for candidate in allocation.candidates]
    low, high = _range([*front, *tried])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(point, low, high) for point in front))
    circles = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{"#c33" if index == 0 else "none"}" stroke="#c33"/>'
        for index, (x, y) in enumerate(_place(point, low, high) for point in tried)
    ]
    body = "\n".join(
        [*_axes(low, high), f'<polyline points="{path}" fill="none" stroke="#36c" stroke-width="2"/>', *circles]
    )
    font = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {font}>\n{body}\n</svg>\n'


def _range(points: Sequence[Point]) -> tuple[Point, Point]:
    """The corners of the drawing: shares to the twentieth, decibels to the ten."""
    shares, decibels = zip(*points, strict=True)
    low = (math.floor(min(shares) * 20) / 20, math.floor(min(decibels) / 10) * 10.0)
    high = (
        max(math.ceil(max(shares) * 20) / 20, low[0] + 0.05),
        max(math.ceil(max(decibels) / 10) * 10.0, low[1] + 10),
    )
    return low, high


def _place(point: Point, low: Point, high: Point) -> Point:
    """From (share, decibels) to the drawing."""
    across, up = ((value - least) / (most - least) for value, least, most in zip(point, low, high, strict=True))
    return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)


def _axes(low: Point, high: Point) -> Iterator[str]:
    """Lines with labels at every fifth of the ranges, and what the axes mean."""
    for index in range(6):
        share, decibels = (low[axis] + index / 5 * (high[axis] - low[axis]) for axis in (0, 1))
        (x, _), (_, y) = _place((share, low[1]), low, high), _place((low[0], decibels), low, high)
        yield f'<line x1="{x:.1f}" y1="{MARGIN}" x2="{x:.1f}" y2="{HEIGHT - MARGIN}" stroke="#ddd"/>'
        yield f'<line x1="{MARGIN}" y1="{y:.1f}" x2="{WIDTH - MARGIN}" y2="{y:.1f}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{share:.0%}</text>'
        yield f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{decibels:.0f}</text>'
    middle = 'text-anchor="middle"'
    turned = f'transform="rotate(-90 16 {HEIGHT / 2})"'
    yield f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" {middle}>bytes of the weights, of those at 8 bits</text>'
    yield f'<text x="16" y="{HEIGHT / 2}" {middle} {turned}>signal over error, dB</text>'
