"""A command whose process dies of a signal ends in one line and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.commands.child_process import run_in_child, temporary_prefix

CRASH = """
import os, pathlib, sys
pathlib.Path(sys.argv[2]).parent.joinpath(f".qcompile-{os.getpid()}-left").mkdir()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize(("number", "words"), [(11, "crashed on this model (SIGSEGV)"), (9, "want of memory")])
def test_a_crash_is_one_line(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crash.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_in_child("crash", "qcompile", [str(number), str(tmp_path / "out.onnx")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not list(tmp_path.glob(".qcompile-*"))


def test_other_statuses_go_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leave.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run_in_child("leave", "qcompile", []) == 3
    assert temporary_prefix(7).startswith(".qcompile-")
