"""Programs of the integer machine as C: one file of C99 without a library, for where no Python is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qcompiler.c_output.c_source import CSource
    from qcompiler.runtime import Program

__all__ = ["to_c", "write_c"]


def to_c(program: Program, stem: str = "model", dims: Mapping[str, int] | None = None) -> CSource:
    """A program for these sizes of its symbolic dimensions as ``<stem>.c`` and ``<stem>.h``; see `c_source.to_c`."""
    from qcompiler.c_output import c_source

    return c_source.to_c(program, stem, dims)


def write_c(program: Program, path: Path, dims: Mapping[str, int] | None = None) -> None:
    """Write a program as ``path``, which ends in ``.c``, and its header beside it; raises as `c_source.to_c`."""
    made = to_c(program, path.stem, dims)
    texts = {path: made.source, path.with_suffix(".h"): made.header}
    parts = {target: target.with_name(f".{target.name}.part") for target in texts}
    for target, part in parts.items():
        part.write_text(texts[target], encoding="ascii")
    for target, part in parts.items():
        part.replace(target)
