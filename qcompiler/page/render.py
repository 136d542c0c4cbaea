"""Writes the page: the report as HTML that needs no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from qcompiler.page.network import NetworkView, NodeView
from qcompiler.page.provenance import Origin
from qcompiler.records import Allocation, OutputFigure, Report
from qcompiler.report.decibels import SAME_DB
from qcompiler.report.pareto import loss_db
from qcompiler.report.terminal import decibels, size

__all__ = ["page"]

BAD_DB, FAIR_DB = 10.0, 20.0
"""Below the first, an output has probably lost what it says; below the second, people should look at it."""
ASSETS = files("qcompiler.page") / "assets"


def page(report: Report, network: NetworkView, origin: Origin) -> str:
    """The page of one compilation."""
    total = sum(node.weight_bytes for node in network.nodes) or 1
    return _environment().get_template("report.html").render(
        report=report,
        origin=origin,
        network=network,
        rows=_worst_first(network),
        total_bytes=total,
        total_macs=sum(node.macs for node in network.nodes),
        total_time=sum(node.nanoseconds or 0 for node in network.nodes),
        verdict=_verdict(report),
        steps=_steps(report),
        float_share=sum(each.share or 0.0 for each in report.left_float),
        data={"nodes": [_plain(node) for node in network.nodes], "edges": network.edges, "front": _front(report)},
        source=_source,
    )


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("qcompiler.page", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"size": size, "db": _db, "percent": _percent, "tone": _tone, "count": _count, "micro": _micro}
    return made


def _source(name: str) -> str:
    """A script or style sheet as it stands; none holds what would end its element."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _worst_first(network: NetworkView) -> list[tuple[int, NodeView]]:
    """Layers, and other nodes whose error is known, with their place in the network."""
    known = [(i, node) for i, node in enumerate(network.nodes) if node.is_layer or node.sqnr_db is not None]
    inner = [(i, node) for i, node in known if node.op not in ("input", "output")]
    return sorted(inner, key=lambda item: (SAME_DB if item[1].sqnr_db is None else item[1].sqnr_db, item[0]))


def _verdict(report: Report) -> tuple[str, str]:
    """How it is to be shown, and one sentence."""
    figures = [each for each in report.outputs if each.sqnr_db < SAME_DB]
    worst = min(figures, key=lambda each: each.sqnr_db, default=None)
    if worst is None:
        same = ("good", "No output differs from the float model's.")
        return same if report.outputs else ("fair", "No output is of a float type, so none was compared.")
    where = f"{worst.output}{worst.columns}: {decibels(worst.sqnr_db)}"
    if worst.sqnr_db < BAD_DB:
        return "bad", f"Do not use it as it is. An output has probably collapsed: {where} above its error."
    if worst.sqnr_db < FAIR_DB:
        return "fair", f"Try it on labelled data first. The worst output is {where} above its error."
    return "good", f"Close to the float model. The worst output is {where} above its error."


def _steps(report: Report) -> list[dict[str, Any]]:
    """Each pass with its time, whether it changed anything, and what it declined; the order is that of the runs."""
    declined: dict[str, list[Any]] = {}
    for each in report.declined:
        declined.setdefault(each.pass_name, []).append(each)
    names = Counter(step.name for step in report.timings)
    found = []
    for step in report.timings:
        names[step.name] -= 1
        last = names[step.name] == 0  # a pass that runs twice tells once what it declined
        found.append({"run": step, "declined": declined.get(step.name, []) if last else []})
    return found


def _plain(node: NodeView) -> Mapping[str, Any]:
    """What the script needs of a node; what is empty is left out."""
    return {key: value for key, value in asdict(node).items() if value not in (None, "", [], 0)}


def _front(report: Report) -> dict[str, Any] | None:
    """Points (share of the 8-bit bytes, dB) of the trade of bytes against loss."""
    found: Allocation | None = report.allocation
    if found is None or found.loss != "mse" or not found.candidates:
        return None
    full = max(found.full, 1)
    return {
        "predicted": [[size / full, loss_db(loss)] for size, loss in sorted(found.front)],
        "measured": [[each.size / full, loss_db(each.measured), each.origin] for each in found.candidates],
        "budget": None if found.budget is None else found.budget / full,
    }


def _db(value: float | None) -> str:
    return "" if value is None else "same" if value >= SAME_DB else f"{value:.1f}"


def _tone(value: float | OutputFigure | None) -> str:
    """The style of a figure in dB."""
    number = value.sqnr_db if isinstance(value, OutputFigure) else value
    return "none" if number is None else "bad" if number < BAD_DB else "fair" if number < FAIR_DB else "good"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.1 <= share < 0.995 else f"{min(100 * share, 99.9):.1f} %"


def _count(number: float) -> str:
    """``1.2 M``, as people read large counts."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def _micro(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / 1000:.1f} µs"
