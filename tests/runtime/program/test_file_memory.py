"""Files in memory: small ones are copied, large ones mapped, watched and let go; sessions of one file share it."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.program import file_memory
from qcompiler.runtime.session import Session
from tests.runtime.programs import two_layers

X = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100)


def overwrite(path: Path) -> None:
    """With as many bytes of another program, as `cp` does."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, overwrite])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_program_whose_file_is_written_to_while_it_is_in_use(
    damage: Callable[[Path], None], is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small one was copied and goes on; a mapped one is an error, neither SIGBUS nor other results."""
    monkeypatch.setattr(file_memory, "MAPPED_BYTES", 0 if is_mapped else 1 << 30)
    path = tmp_path / "net.qprog"
    two_layers().save(path)
    os.utime(path, (1e9, 1e9))
    fresh, used = Session(path), Session(path)
    expected = Session(two_layers()).run({"x": X})["y"]
    np.testing.assert_array_equal(used.run({"x": X})["y"], expected)
    damage(path)
    if not is_mapped:
        np.testing.assert_array_equal(fresh.run({"x": X})["y"], expected)
        np.testing.assert_array_equal(used.run({"x": X[:2]})["y"], expected[:2])
        return
    for call in (fresh.run, used.run, fresh.raw, lambda feeds: used.prepare({"x": feeds["x"].shape})):
        with pytest.raises(ProgramError, match="written to since it was loaded"):
            call({"x": X})


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_program_can_be_bytes_or_an_open_file(
    is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_memory, "MAPPED_BYTES", 0 if is_mapped else 1 << 30)
    path = tmp_path / "net.qprog"
    two_layers().save(path)
    content, expected = path.read_bytes(), Session(two_layers()).run({"x": X})["y"]
    with path.open("rb") as file:
        file.seek(100)
        from_descriptor = Session(file.fileno())
        assert file.tell() == 100
    path.unlink()
    for session in (from_descriptor, *map(Session, (content, bytearray(content), memoryview(content)))):
        np.testing.assert_array_equal(session.run({"x": X})["y"], expected)
    with pytest.raises(ProgramError, match="truncated"):
        Session(content[:-1])
    with pytest.raises(ProgramError, match="cannot read file descriptor 99999: Bad file descriptor"):
        Session(99999)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs pipes that several threads use")
def test_a_program_can_come_out_of_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "net.qprog"
    two_layers().save(path)
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(path.read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    session = Session(reading)
    writer.join()
    os.close(reading)
    np.testing.assert_array_equal(session.run({"x": X})["y"], Session(path).run({"x": X})["y"])


def test_a_mapped_file_is_let_go_with_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_memory, "MAPPED_BYTES", 0)
    path = tmp_path / "net.qprog"
    two_layers().save(path)
    session = Session(path)
    mapped = file_memory.mapped_file(session.program.blob)
    assert mapped is not None
    handle = mapped._handle
    os.fstat(handle)
    del session, mapped
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_sessions_of_one_file_share_a_program_until_the_file_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "net.qprog"
    two_layers().save(path)
    assert Session(path).program is not Session(path).program, "it might be written again within this tick"
    os.utime(path, (1e9, 1e9))
    first, second = Session(path), Session(str(path))
    link = tmp_path / "link.qprog"
    link.symlink_to(path)
    assert first.program is second.program is Session(link).program
    os.utime(path, (2e9, 2e9))
    assert Session(path).program is not first.program
    two_layers(features=41).save(path)
    os.utime(path, (1e9, 1e9))
    assert Session(path).inputs[0].shape == ("batch", 41)
