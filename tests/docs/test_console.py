"""Pages are held to what their commands print: a line that is gone or added, a figure that moved are noticed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from docs.console import compare, main, now, prepare, run, steps

PAGE = """text
```console
$ echo one && \\
    echo two
one
two
$ true
```
more
```console
$ echo three
three
```
"""


def test_the_steps_of_a_page() -> None:
    found = list(steps(PAGE))
    assert [(step.command, step.shown) for step in found] == [
        ("echo one && echo two", ["one", "two"]),
        ("true", []),
        ("echo three", ["three"]),
    ]
    assert [PAGE[step.place :].split("\n")[0] for step in found] == ["one", "```", "three"]


def test_a_folder_in_which_commands_run(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert run("ls examples/tutorials/shared.py && python -c 'print(1)'", tmp_path) == [
        "examples/tutorials/shared.py",
        "1",
    ]
    assert run("echo 'error: refused'; exit 2", tmp_path) == ["error: refused"]
    with pytest.raises(subprocess.CalledProcessError):
        run("false", tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        run("echo 'error: refused'", tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed", "found"),
    [
        (["a  1 dB", "b"], ["a 23 dB", "b"], ["a 23 dB", "b"]),
        (["…", "b 2"], ["a", "b 1", "b 3"], None),
        (["…", "b 2", "…"], ["a", "b 1", "b 3"], ["…", "b 1", "…"]),
        (["a", "…"], ["a"], ["a", "…"]),
        (["a"], ["a", "b"], None),
        (["a", "b"], ["a"], None),
        (["b", "…", "a"], ["a", "b"], None),
        (["conv_1 2 dB"], ["conv_2 2 dB"], None),
    ],
)
def test_lines_that_are_printed_now(shown: list[str], printed: list[str], found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(ValueError, match="printed"):
            now(shown, printed)
    else:
        assert now(shown, printed) == found


@pytest.mark.parametrize(
    ("shown", "printed", "held"),
    [
        ("logits  30.0 dB", "logits  32.9 dB", True),
        ("logits  30.0 dB", "logits  33.1 dB", False),
        ("logits: 30.0 dB (20.0 dB to 50.0 dB)", "logits: 31.0 dB (10.0 dB to 70.0 dB)", True),
        ("accuracy 0.988", "accuracy 0.962", True),
        ("accuracy 0.988", "accuracy 0.950", False),
        ("file  out.onnx: 66.8 kB", "file  out.onnx: 69.0 kB", True),
        ("file  out.onnx: 66.8 kB", "file  out.onnx: 76.0 kB", False),
        ("weights  100 kB -> 26.0 kB (26%)", "weights  100 kB -> 50.0 kB (50%)", False),
        ("integer  58.5 % of all", "integer  52 % of all", False),
        ("runs  64", "runs  65", False),
        ("median ms  0.1", "median ms  9", True),
    ],
)
def test_figures_that_hold(shown: str, printed: str, held: bool) -> None:
    assert (compare(shown, printed) == []) == held


def test_a_page_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("echo three\nthree", "echo 4 dB\n3 dB\n…"), encoding="utf8")
    main(str(page))
    assert page.read_text(encoding="utf8") == PAGE.replace("echo three\nthree", "echo 4 dB\n4 dB\n…")
