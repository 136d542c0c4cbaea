"""Weights beside the model: mapped, not read; damaged, or outside of the folder."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from qcompiler.errors import ModelError
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.importer import load_graph
from tests.onnx_io.test_importer import model_of
from tests.passes.rewriting import random


def external_model(folder: Path) -> Path:
    model = model_of(
        "g (float[N, 64] x) => (float[N, 64] y) { h = MatMul(x, w)  y = Add(h, b) }", w=random(64, 64), b=random(64)
    )
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_mapped_not_read(tmp_path):
    graph = load_graph(external_model(tmp_path))
    weight = graph.nodes[0].inputs[1].values
    assert isinstance(weight, np.memmap)
    x = random(2, 64)
    np.testing.assert_allclose(Runner(graph).run({"x": x})["y"], x @ random(64, 64) + random(64), rtol=1e-4, atol=1e-4)


def edit_location(path: Path, **fields: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor, (key, value) in itertools.product(model.graph.initializer, fields.items()):
        for entry in tensor.external_data:
            entry.value = value if entry.key == key else entry.value
    path.write_bytes(model.SerializeToString())


def test_damaged_external_data(tmp_path):
    path = external_model(tmp_path)
    data = tmp_path / "weights.bin"
    content = data.read_bytes()
    data.write_bytes(content[:-100])
    with pytest.raises(ModelError, match=r"weights\.bin' is truncated: it ends before byte"):
        load_graph(path)
    data.unlink()
    with pytest.raises(ModelError, match=r"'weights\.bin' is missing beside the model"):
        load_graph(path)
    with pytest.raises(ModelError, match="pass the path of the model"):
        load_graph(onnx.load(path, load_external_data=False))
    data.write_bytes(content)
    edit_location(path, length="12")
    with pytest.raises(ModelError, match="has 12 bytes, its shape and type need"):
        load_graph(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", ""])
def test_external_data_outside_of_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external_model(folder)
    edit_location(path, location=location)
    with pytest.raises(ModelError, match="not a file in the model's own folder"):
        load_graph(path)
