"""What the report says of a mixed program."""

from __future__ import annotations

from qcompiler.mixed.container import MixedProgram
from qcompiler.records import Report

__all__ = ["summary", "tell"]

_NAMED = 3
"""Nodes in the summary; the report lists all."""


def summary(program: MixedProgram) -> str:
    """One line: what it is, what is outside and why, what runs it."""
    share = "" if program.integer_share is None else f" with {_percent(program.integer_share)} of the work"
    nodes = [each for each in program.outside if not each.is_island]
    named = [f"'{each.node}' ({each.op}): {each.reason}" for each in nodes[:_NAMED]]
    more = f"; and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return (
        f"this is a mixed program: {program.segments} integer segment(s){share}, and on onnxruntime beside them "
        f"{'; '.join(named)}{more}; qrun and qcompiler.run run it, the machine's runtime alone does not"
    )


def _percent(share: float) -> str:
    """Never 100 % for less than all of it."""
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{min(100 * share, 99.9):.1f} %"


def tell(program: MixedProgram, report: Report, *, is_its_own: bool) -> None:
    """Put a mixed program into a report, its summary first; ``is_its_own``: the report is of nothing else."""
    report.program = "mixed"
    report.outside = sorted(program.outside, key=lambda each: each.is_island)
    report.figures["segments"] = program.segments
    report.figures["program_mac_share"] = program.integer_share
    if is_its_own:
        report.left_float = list(report.outside)
        report.figures["integer_mac_share"] = program.integer_share
    report.warnings.insert(0, summary(program))
