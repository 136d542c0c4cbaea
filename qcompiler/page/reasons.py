"""Why tensors and weights have the bits they have, in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcompiler.errors import OptionError
from qcompiler.grids.named import grid_named
from qcompiler.page.grid_history import GridHistory
from qcompiler.records import Report
from qcompiler.report.terminal import decibels

__all__ = ["grid_of_weight", "why_activation", "why_weight"]


def grid_of_weight(node: str, kind: np.dtype[Any], report: Report) -> tuple[str, int]:
    """Name and bits of the grid of a layer's weight: what a pass recorded, or the type of what is stored."""
    named = [each.grid for each in report.reconstructions if each.node == node]
    named += [each.grid for each in report.grids if each.node == node]
    named += [each.grid for each in (report.allocation.layers if report.allocation else ()) if each.node == node]
    bits = 8 * kind.itemsize
    if not named or kind != np.int8:
        return kind.name, bits
    return named[0], _bits(named[0], bits)


def _bits(grid: str, otherwise: int) -> int:
    try:
        return grid_named(grid).bits
    except OptionError:
        found = re.search(r"\d", grid)
        return int(found[0]) if found else otherwise


def why_activation(tensor: str, bits: int, report: Report, history: GridHistory) -> list[str]:
    """Why the codes of a tensor have so many bits."""
    lines = _trail("Its grid", history.tensors.get(tensor, ()))
    for each in report.widths:
        if each.tensor == tensor:
            into = " It feeds a product." if each.feeds_gemm else ""
            lines.append(
                f"{bits} bits: its 8-bit grid alone leaves the outputs {decibels(each.sqnr_db)} above the noise.{into}"
            )
    return lines


def why_weight(node: str, grid: str, report: Report, history: GridHistory) -> list[str]:
    """Why the weight of a layer lies on its grid."""
    lines = _trail("Its weight", history.weights.get(node, ()))
    for chosen in report.grids:
        if chosen.node == node:
            tried = ", ".join(f"{name} {loss:.2g}" for name, loss in sorted(chosen.losses.items(), key=lambda x: x[1]))
            lines.append(f"choose-grid took {chosen.grid}; relative errors of what was tried: {tried}.")
    for each in report.allocation.layers if report.allocation else ():
        if each.node == node:
            lines.append(f"allocate-bits gave it {each.grid}, which alone costs the outputs {each.loss:.2g}.")
    for solved in report.reconstructions:
        if solved.node == node:
            what = (
                f"reconstruct-layers kept the levels of {solved.solver}"
                if solved.kept
                else "reconstruct-layers kept plain rounding: the solver was no better on feeds it had not seen"
            )
            change = f"error of its output {solved.held_before:.2g} → {solved.held_after:.2g} on feeds held out"
            lines.append(f"{what}; {change}.")
    return lines or [f"{grid}: as the options ask for."]


def _trail(what: str, passes: Sequence[str]) -> list[str]:
    """One sentence about the passes that chose; nothing where none is known."""
    if not passes:
        return []
    later = f", then changed by {' and '.join(dict.fromkeys(passes[1:]))}" if len(passes) > 1 else ""
    return [f"{what} was chosen by {passes[0]}{later}."]
