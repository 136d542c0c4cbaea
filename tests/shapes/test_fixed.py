"""Sizes that the user fixes or bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcompiler.api import Options, compile
from qcompiler.errors import DataError, OptionError
from qcompiler.graph.runner import Runner
from qcompiler.shapes.fixed import parse_sizes

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[batch, length, 4] x) => (float[batch, length, 3] y, int64[batch] last, float[batch, 3] z) {
    y = MatMul(x, w)
    z = ReduceMax<axes = [1], keepdims = 0>(y)
    a = ReduceMax<axes = [1], keepdims = 0>(x)
    last = ArgMax<axis = 1, keepdims = 0>(a)
}"""


def model() -> onnx.ModelProto:
    result = onnx.parser.parse_model(TEXT)
    result.graph.initializer.append(
        onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), "w")
    )
    return result


def feeds(*sizes: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((*size, 4)).astype(np.float32)} for size in sizes]


def shapes(values: list[onnx.ValueInfoProto]) -> list[list[int | str]]:
    return [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]


def test_a_fixed_size_is_written_everywhere(tmp_path: Path) -> None:
    result = compile(model(), data=feeds((1, 5), (1, 9)), options=Options(0, dims=("batch=1",)))
    result.save(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx").graph
    assert shapes(written.input) == [[1, "length", 4]]
    assert shapes(written.output) == [[1, "length", 3], [1], [1, 3]]
    assert [port.name for port in result.program.outputs] == ["y", "last", "z"]
    assert result.program.dims == ("length",)


def test_symbols_survive(tmp_path: Path) -> None:
    compile(model(), data=feeds((2, 5)), options=Options(0)).save(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx").graph
    assert shapes(written.output) == [["batch", "length", 3], ["batch"], ["batch", 3]]
    assert Runner(onnx.load(tmp_path / "out.onnx")).run(feeds((3, 4))[0])["y"].shape == (3, 4, 3)


def test_a_range_bounds_feeds_and_what_is_made_up() -> None:
    result = compile(model(), options=Options(0, dims=("length=2..7", "batch=3")))
    assert {feed["x"].shape for feed in result.feeds} == {(3, 7, 4)}
    with pytest.raises(DataError, match=r"'length' is 9 in a calibration feed, outside of --dim length=2\.\.7"):
        compile(model(), data=feeds((1, 9)), options=Options(0, dims=("length=2..7",)))


@pytest.mark.parametrize(("text", "words"), [
    ("batch", "NAME=SIZE"), ("batch=0", "begin at 1"), ("a=5..2", "smallest comes first"), ("a=x", "NAME=SIZE"),
])  # fmt: skip
def test_what_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_sizes([text])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="symbolic dimensions are batch, length"):
        compile(model(), data=feeds((1, 2)), options=Options(0, dims=("width=2",)))
