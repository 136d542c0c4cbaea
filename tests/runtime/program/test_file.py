"""The file format, and what happens to files that are not what they should be."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from qcompiler.runtime.errors import MachineError, ProgramError
from qcompiler.runtime.program import file as container
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from tests.runtime.programs import two_layers

X = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)


def refusal(action: Callable[[], Any]) -> Any:
    """The result of ``action``, or None when it was refused in one line; anything else fails the test."""
    try:
        return action()
    except MachineError as error:
        if "\n" in str(error):
            pytest.fail(f"the message has several lines: {error}")
        return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "net.qprog"
    two_layers().save(target)
    return target


def test_a_loaded_program_computes_the_same(path: Path) -> None:
    want, got = Session(two_layers()).raw({"x": X}), Session(path).raw({"x": X})
    assert want.keys() == got.keys() == {"y", "t"}
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)


def test_equal_programs_give_equal_bytes_and_loading_changes_nothing(path: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.qprog"
    Program.load(path).save(second)
    assert second.read_bytes() == path.read_bytes()


def test_the_file_is_safetensors_with_an_aligned_blob(path: Path) -> None:
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"blob", "code", "kinds"}
        assert file.metadata()["format"] == "qprog"
        np.testing.assert_array_equal(file.get_tensor("code"), two_layers().code)
    assert (8 + struct.unpack("<Q", path.read_bytes()[:8])[0]) % 64 == 0
    assert all(info.offset % 64 == 0 for info in Program.load(path).constants)


def test_saving_is_atomic(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ProgramError, match=r"cannot write .*No space left"):
        two_layers().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["net.qprog"]


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 1000, -1])
def test_truncated(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ProgramError) as caught:
        Session(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_folder_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "text.qprog").write_text("hello, this is not a program at all")
    for name in ("absent.qprog", "text.qprog", "."):
        with pytest.raises(ProgramError):
            Program.load(tmp_path / name)


def test_another_version(path: Path) -> None:
    data = path.read_bytes().replace(b'"version":"4"', b'"version":"9"')
    path.write_bytes(data)
    with pytest.raises(ProgramError, match="program version 9; this machine reads version 4 to 6"):
        Program.load(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(path: Path, position: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    damaged = path.with_name("damaged.qprog")
    damaged.write_bytes(data)
    program = refusal(lambda: Program.load(damaged))
    if program is not None:  # a bit of the header that means nothing, such as a space that became a tab
        np.testing.assert_array_equal(program.code, two_layers().code)
        np.testing.assert_array_equal(program.blob, two_layers().blob)


def forge(path: Path, change: Any) -> None:
    """Rewrite a file with changed content and a right checksum."""
    program = Program.load(path)
    parts: dict[str, Any] = {"blob": program.blob.copy(), "code": program.code.copy(), "kinds": program.kinds.copy()}
    text = container._describe(program)
    change(parts, text)
    description = json.dumps(text, sort_keys=True, separators=(",", ":"))
    header = container._header(parts, description)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(part.tobytes() for part in parts.values()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_forged_instructions_are_refused_or_harmless(path: Path, data: st.DataObject) -> None:
    """Any number of the table changed to anything, checksum right: an error of one line, or a run inside its
    buffers."""
    forged = path.with_name("forged.qprog")
    two_layers().save(forged)
    table = data.draw(st.sampled_from(["code", "kinds"]))
    row, column = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 20))
    odd = st.sampled_from([-1, 0, 1, 2, 3, 41, 255, 2**31, -(2**63), 2**63 - 1])
    value = data.draw(st.integers(0, 255) if table == "kinds" else st.one_of(odd, st.integers(-100, 5000)))

    def change(parts: dict[str, Any], text: dict[str, Any]) -> None:
        parts[table][row, column] = value

    forge(forged, change)
    refusal(lambda: Session(forged).run({"x": X}))


@pytest.mark.parametrize(("change", "message"), [
    (lambda p, t: p["code"].__setitem__((0, 0), 99), "opcode 99, which this machine does not know"),
    (lambda p, t: p["code"].__setitem__((0, 1), 77), "operand x has the kind 2 and the index 77"),
    (lambda p, t: p["code"].__setitem__((0, 10), 10**6), "would read bytes"),
    (lambda p, t: t["constants"][0].__setitem__(2, 1 << 40), "outside the blob"),
    (lambda p, t: t["constants"][0].__setitem__(2, 3), "outside the blob"),
    (lambda p, t: t["constants"][0].__setitem__(1, [1 << 40, 1 << 40]), "outside the blob"),
    (lambda p, t: t["buffers"][0].__setitem__(1, ["batch", 3]), "bytes"),
    (lambda p, t: t["buffers"][0].__setitem__(1, ["width", 40]), "'width' is not declared"),
    (lambda p, t: t["buffers"][0].__setitem__(1, [["exec", 1, 2]]), "'exec'"),
    (lambda p, t: t["inputs"][0].__setitem__(3, 9), "no buffer"),
    (lambda p, t: t["inputs"][0].__setitem__(4, -1.0), "no grid"),
    (lambda p, t: t["inputs"][0].__setitem__(1, "object"), "described wrongly"),
    (lambda p, t: t["inputs"][0].__setitem__(1, "str"), "values that an input may hold"),
    (lambda p, t: t["inputs"][0].append({"only": 1}), "values that an input may hold"),
    (lambda p, t: t["inputs"][0].append({"keys": ["a"], "numbers": [], "other": 0}), "an input may hold"),
    (lambda p, t: t.__setitem__("nodes", ["a"]), "another shape"),
    (lambda p, t: t.pop("buffers"), "'buffers' is missing"),
    (lambda p, t: p["blob"].__setitem__(slice(-4000, None), 255), "admitted is 1 to 62"),
])
def test_forged_content_names_what_is_wrong(path: Path, change: Any, message: str) -> None:
    forge(path, change)
    with pytest.raises(ProgramError, match=message):
        Session(path).run({"x": X})


def test_only_fills_need_the_newer_version(path: Path, tmp_path: Path) -> None:
    assert b'"version":"4"' in path.read_bytes()
    plain = Program.load(path)
    outputs = [port._replace(fills=(-1e9, None)) if port.scale is not None else port for port in plain.outputs]
    assert outputs != list(plain.outputs)
    target = tmp_path / "fills.qprog"
    replace(plain, outputs=tuple(outputs)).save(target)
    assert b'"version":"5"' in target.read_bytes()
    assert list(Program.load(target).outputs) == outputs
