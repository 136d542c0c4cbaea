"""Files behind a checksum."""

from __future__ import annotations

from pathlib import Path

from qcompiler.runtime.run.kept_files import keep, kept


def test_damaged_files_count_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert kept(path) is None
    assert keep(path, b"content")
    assert kept(path) == b"content"
    for damaged in (b"", path.read_bytes()[:-1], path.read_bytes() + b"x", path.read_bytes().replace(b"t", b"T")):
        path.write_bytes(damaged)
        assert kept(path) is None
    (tmp_path / "occupied").write_bytes(b"")
    assert not keep(tmp_path / "occupied" / "file", b"content")
