"""Reports as files: a page for people or JSON for machines, by suffix."""

from __future__ import annotations

from pathlib import Path

from qcompiler.errors import OptionError
from qcompiler.onnx_io.export import check_target

__all__ = ["PAGE", "check_report", "write_text"]

PAGE = ".html"
"""Suffix of a report that is a page for people."""


def check_report(path: Path | None, *, force: bool) -> None:
    """Refuse a place where no report may be written, before anything runs.

    Raises:
        OptionError: another suffix, no such folder, or it exists without ``force``.
    """
    if path is None:
        return
    if path.suffix not in (PAGE, ".json"):
        raise OptionError(f"--report {path}: must end in .html (for people) or .json (for machines)")
    check_target(path, force=force, option="--report")


def write_text(path: Path, text: str) -> None:
    """Write a file at once: it is whole, or it is not there."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
