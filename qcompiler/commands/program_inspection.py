"""`qcompile inspect out.qprog`: which kind of program a file is, what runs it, what it takes and gives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qcompiler.mixed.container import MixedProgram, is_mixed
from qcompiler.report.terminal import Row, size
from qcompiler.runtime import Program

__all__ = ["ProgramInspection", "inspect_program", "program_rows"]

ALONE = "the machine alone (qcompiler.runtime.Session), or qrun"
JOINED = "qrun and qcompiler.run, which have onnxruntime; the machine's runtime alone does not"
NODE_LINES = 10


@dataclass(frozen=True)
class ProgramInspection:
    """What a ``.qprog`` is.

    Attributes:
        program: its path.
        kind: ``integer`` from input to output, or ``mixed``.
        runs_on: what runs it.
        inputs, outputs: type and shape by name.
        bytes: of the file.
        segments: integer ones; 1 in a program of integers alone.
        integer_mac_share: part of all multiply-accumulates that are integer; None where that is not known.
        outside: nodes that run on onnxruntime, with operator, reason and share.
    """

    program: str
    kind: str
    runs_on: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    bytes: int
    segments: int
    integer_mac_share: float | None
    outside: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def inspect_program(path: Path) -> ProgramInspection:
    """Look at a program file.

    Raises:
        ModelError, ProgramError: it is none.
    """
    if not is_mixed(path):
        program = Program.load(path)
        return ProgramInspection(
            str(path), "integer", ALONE, _typed(program.inputs), _typed(program.outputs), path.stat().st_size, 1, 1.0,
            [],
        )  # fmt: skip
    mixed = MixedProgram.load(path)
    return ProgramInspection(
        str(path), "mixed", JOINED, _typed(mixed.inputs), _typed(mixed.outputs), path.stat().st_size, mixed.segments,
        mixed.integer_share, [asdict(each) for each in mixed.outside],
    )  # fmt: skip


def _typed(ports: Iterable[Any]) -> dict[str, str]:
    return {
        port.name: f"{port.dtype} {'any shape' if port.shape is None else [*port.shape]}".replace("'", "")
        for port in ports
    }


def program_rows(found: ProgramInspection) -> list[Row]:
    """The lines that people read."""
    share = found.integer_mac_share
    work = "" if share is None else f", {100 * share:.1f} % of all multiply-accumulates integer"
    mixed = f"mixed: {found.segments} integer segment(s){work}"
    kind = mixed if found.kind == "mixed" else "integer from input to output"
    lines = [("program", found.program), ("kind", kind), ("runs on", found.runs_on), ("file", size(found.bytes))]
    for label, sides in (("input", found.inputs), ("output", found.outputs)):
        lines += [(label if not index else "", f"{name}: {text}") for index, (name, text) in enumerate(sides.items())]
    for index, node in enumerate(found.outside[:NODE_LINES]):
        lines.append(("outside" if not index else "", f"{node['op']} ({node['node']}): {node['reason']}"))
    if len(found.outside) > NODE_LINES:
        lines.append(("", f"and {len(found.outside) - NODE_LINES} nodes more; --json lists all"))
    return lines
