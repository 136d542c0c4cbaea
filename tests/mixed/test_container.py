"""The file of a mixed program: what is in it, what damage does, what the machine says of it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from qcompiler.errors import ModelError
from qcompiler.mixed.container import MANIFEST, Border, MixedProgram, Piece, is_mixed
from qcompiler.records import FloatNode
from qcompiler.runtime import Program, Session
from qcompiler.runtime.errors import ProgramError

PROGRAM = MixedProgram(
    "net", (Border("x", "float32", ["N", 4]),), (Border("y", "float32", None),),
    (Piece(True, ("x",), ("a",), b"segment"), Piece(False, ("a",), ("y",), b"model")),
    (
        FloatNode("loop_1", "Loop", "no jumps", 0.25), FloatNode("top", "TopK", "no form", 0.5),
        FloatNode("r", "Relu", "", 0.0, is_island=True),
    ),
    0.25, {"rate": 16000},
)  # fmt: skip


def rewritten(change: dict[str, object]) -> bytes:
    """The file with other entries in its manifest."""
    with zipfile.ZipFile(io.BytesIO(PROGRAM.to_bytes())) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents[MANIFEST] = json.dumps({**json.loads(contents[MANIFEST]), **change}).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return target.getvalue()


def test_a_program_comes_back_as_it_was(tmp_path: Path) -> None:
    PROGRAM.save(tmp_path / "a.qprog")
    assert is_mixed(tmp_path / "a.qprog")
    assert MixedProgram.load(tmp_path / "a.qprog") == MixedProgram.load(PROGRAM.to_bytes()) == PROGRAM
    assert [path.name for path in tmp_path.iterdir()] == ["a.qprog"]


def test_any_zip_tool_reads_it_and_it_has_no_date() -> None:
    with zipfile.ZipFile(io.BytesIO(PROGRAM.to_bytes())) as archive:
        assert archive.namelist() == [MANIFEST, "0.qprog", "1.onnx"]
        assert archive.testzip() is None
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert archive.read("1.onnx") == b"model"


def test_operators_are_those_without_an_integer_form_the_heaviest_first() -> None:
    assert PROGRAM.operators == ["TopK", "Loop"]
    assert PROGRAM.segments == 1


@pytest.mark.parametrize("place", [40, -200])
def test_damage_is_one_line(place: int) -> None:
    content = bytearray(PROGRAM.to_bytes())
    content[place] ^= 0xFF
    with pytest.raises(ModelError, match="damaged, or no mixed program") as caught:
        MixedProgram.load(bytes(content))
    assert "\n" not in str(caught.value)


def test_every_cut_is_refused() -> None:
    content = PROGRAM.to_bytes()
    for length in range(0, len(content), 7):
        with pytest.raises(ModelError):
            MixedProgram.load(content[:length])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2; this compiler reads version 1"),
        ({"format": "other"}, "not a program"),
        ({"parts": [{"kind": "float"}]}, "damaged"),
        ({"parts": 3}, "damaged"),
    ],
)
def test_another_manifest_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MixedProgram.load(rewritten(change))


def test_the_machine_says_what_it_is_and_what_runs_it(tmp_path: Path) -> None:
    PROGRAM.save(tmp_path / "a.qprog")
    for load in (Session, Program.load):
        with pytest.raises(ProgramError) as caught:
            load(tmp_path / "a.qprog")
        assert str(caught.value) == (
            f"{tmp_path / 'a.qprog'}: a mixed program: 1 integer segment(s), and on onnxruntime TopK, Loop; this "
            "machine runs integers alone: run it with qrun or qcompiler.run, which the compiler brings"
        )


def test_the_machine_refuses_any_other_archive_and_a_cut_one() -> None:
    content = PROGRAM.to_bytes()
    for damaged in (rewritten({"operators": 3}), content[:4], content[:29], content[:50], content[:4] + bytes(400)):
        with pytest.raises(ProgramError, match=r"a zip archive, not a \.qprog"):
            Program.load(damaged)
