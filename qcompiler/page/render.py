"""Writes the page: the report as HTML that needs no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from qcompiler.page.network import NetworkView, NodeView
from qcompiler.page.provenance import Origin
from qcompiler.page.templates import BAD_DB, FAIR_DB, written
from qcompiler.records import Allocation, Report
from qcompiler.report.decibels import SAME_DB
from qcompiler.report.pareto import loss_db
from qcompiler.report.terminal import decibels

__all__ = ["page"]


def page(report: Report, network: NetworkView, origin: Origin) -> str:
    """The page of one compilation."""
    total = sum(node.weight_bytes for node in network.nodes) or 1
    return written(
        "report.html",
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
    )


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
