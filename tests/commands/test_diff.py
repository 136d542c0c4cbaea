"""`qdiff`: where two models part, the worst feeds, and the reports of both kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command, diff_command
from qcompiler.page.png import data_address
from tests.helpers.diff_models import chain, model_of, saved
from tests.helpers.page_html import Checked

IMAGES = "g (float[N, 1, 16, 16] image) => (float[N, 1, 16, 16] y) { t = Mul(image, image) y = Add(t, image) }"
CLIPPED = """g (float[N, 1, 16, 16] image) => (float[N, 1, 16, 16] y) {
  s = Mul(image, image) t = Clip(s, low, high) y = Add(t, image) }"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(application(diff_command), [str(argument) for argument in arguments])


def compiled(*arguments: object) -> None:
    result = CliRunner().invoke(application(compile_command), [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def found(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def feeds(folder: Path, count: int = 6, **shapes: tuple[int, ...]) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "feeds.npz"
    np.savez(path, **{name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()})
    return path


@pytest.mark.parametrize("seed", range(6))
def test_float_models_part_at_the_layer_that_was_changed(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(2, 9))
    broken = int(rng.integers(layers))
    harm = float(rng.choice([1.0, 1e-5]))
    paths = saved(tmp_path, a=chain(layers, seed=seed), b=chain(layers, broken, harm, seed=seed))
    given = found(*paths, "--feeds", feeds(tmp_path, x=(3, 8)))
    assert given["parts_at"]["tensor"] == f"m{broken}"
    assert given["parts_at"]["node"] == f"product_{broken}"
    assert given["parts_at"]["reads_db"] == 200.0
    assert not given["feeds_made_up"]
    assert [each["tensor"] for each in given["layers"]] == [f"{kind}{at}" for at in range(layers) for kind in "mt"]


@pytest.mark.parametrize("broken", [0, 3, 5])
def test_a_quantized_model_parts_at_the_layer_that_was_changed(tmp_path: Path, broken: int) -> None:
    """Every layer of it differs a little; the float models beside differ in one."""
    first, second = saved(tmp_path, a=chain(6), b=chain(6, broken))
    path = feeds(tmp_path, 12, x=(3, 8))
    out = tmp_path / "out.onnx"
    compiled(second, "-o", out, "--calib", path, "-O", "0", "--rule", "op=MatMul,int16")
    given = found(first, out, "--feeds", path)
    assert given["parts_at"]["node"] == f"product_{broken}"
    assert given["parts_at"]["worst_db"] < 20
    assert all(each["worst_db"] < 200 for each in given["layers"])


def test_the_page_holds_the_worst_feed_and_where_they_part(tmp_path: Path) -> None:
    clipped = model_of(CLIPPED)
    clipped.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.float32(value), name) for name, value in (("low", -9), ("high", 4))
    )
    first, second = saved(tmp_path, first=model_of(IMAGES), second=clipped)
    images = np.random.default_rng(0).integers(0, 2, (6, 1, 1, 16, 16)).astype(np.float32)
    images[4, 0, 0, :7] = 3.0
    np.savez(tmp_path / "feeds.npz", image=images)
    page, data = tmp_path / "diff.html", tmp_path / "diff.json"
    for report in (page, data):
        result = call(first, second, "--feeds", tmp_path / "feeds.npz", "--report", report)
        assert result.exit_code == 0, result.output
    assert "part first at t, written by Mul_t (Mul / Clip): " in " ".join(result.stdout.split())
    text = page.read_text(encoding="utf-8")
    parsed = Checked(text)
    parsed.assert_whole()
    assert "Feed 4" in parsed.text
    assert "Feed 3" not in parsed.text
    assert "They part first at t." in parsed.text
    black_to_white = images[4, 0, 0, :, :, None] / 3 * 255
    assert data_address(np.rint(black_to_white).astype(np.uint8)) in text
    assert text.count("data:image/png") == 3  # the input, and the output of both
    plot = json.loads(parsed.data)["layers"]
    assert plot["names"][plot["at"]] == "t"
    given = json.loads(data.read_text(encoding="utf-8"))
    assert given["worst_feeds"] == [{"feed": 4, "row": None, "sqnr_db": given["worst_feeds"][0]["sqnr_db"]}]
    assert given == found(first, second, "--feeds", tmp_path / "feeds.npz")


def test_a_model_beside_itself_has_no_worst_feed(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, a=chain(3))
    report = tmp_path / "r.html"
    result = call(path, path, "--report", report)
    assert result.exit_code == 0, result.output
    assert "nowhere: no tensor differs" in result.stdout
    assert "16, made up from the model" in result.stdout
    text = Checked(report.read_text(encoding="utf-8")).text
    assert "No output differs on any feed." in text
    assert "16, made up from the model" in text
    assert "Nowhere: of the 6 tensors that both compute, none differs." in text


def test_what_has_no_tensor_of_both_says_so(tmp_path: Path) -> None:
    first = model_of("g (float[N, 4] x) => (float[N, 4] y) { a = Tanh(x) y = Neg(a) }")
    second = model_of("g (float[N, 4] x) => (float[N, 4] y) { b = Tanh(x) c = Relu(b) y = Neg(c) }")
    paths = saved(tmp_path, a=first, b=second)
    result = call(*paths, "--feeds", feeds(tmp_path, x=(2, 4)), "--report", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "the two share no inner tensor" in result.stdout
    assert "The two share no inner tensor" in Checked((tmp_path / "r.html").read_text(encoding="utf-8")).text


def test_groups_of_columns_have_figures_of_their_own(tmp_path: Path) -> None:
    """An error in the small columns is seen although the large ones are a hundred times as large."""
    text = "g (float[N, 4] x) => (float[N, 4] y) { t = Add(x, k) y = Mul(t, scale) }"
    models = {}
    for name, harm in (("a", 0.0), ("b", 0.5)):
        models[name] = model_of(text)
        for key, value in (("k", [0, 0, 0, harm]), ("scale", [100, 100, 1, 1])):
            models[name].graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.float32), key))
    given = found(*saved(tmp_path, **models), "--feeds", feeds(tmp_path, x=(50, 4)))
    figures = {each["columns"]: each["sqnr_db"] for each in given["outputs"]}
    assert set(figures) == {"", "[:, 0:2]", "[:, 2:4]"}
    assert figures["[:, 2:4]"] < 12
    assert figures["[:, 0:2]"] == 200.0
    assert figures[""] > 40


def test_outputs_of_integers_and_those_of_one_model_are_told(tmp_path: Path) -> None:
    first = model_of("""g (float[N, 4] x) => (float[N, 4] y, int64[N] top, float[N, 4] more) {
      y = Tanh(x) top = ArgMax<axis = 1, keepdims = 0>(y) more = Neg(y) }""")
    second = model_of("""g (float[N, 4] x) => (float[N, 4] y, int64[N] top) {
      z = Neg(x) y = Tanh(z) top = ArgMax<axis = 1, keepdims = 0>(y) }""")
    paths = saved(tmp_path, a=first, b=second)
    given = found(*paths, "--feeds", feeds(tmp_path, x=(8, 4)), "--report", tmp_path / "r.html")
    assert given["outputs_of_one_model"] == [["more"], []]
    (top,) = given["equal_outputs"]
    assert (top["output"], top["elements"]) == ("top", 48)
    assert top["equal"] < 30
    text = Checked((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert f"{top['equal']} of 48 equal" in text
    assert "Only a.onnx has: more." in text


def test_maps_from_classes_to_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    text = "g (float[N, 3] x) => (float[N, 3] y) { y = OP(x) }"
    models = {}
    for name, op in (("a", "Tanh"), ("b", "Relu")):
        models[name] = model_of(text.replace("OP", op))
        models[name].opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
        zipped = onnx.helper.make_node("ZipMap", ["y"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 5])
        models[name].graph.node.append(zipped)
        kind = onnx.TypeProto()
        kind.sequence_type.elem_type.map_type.key_type = onnx.TensorProto.INT64
        kind.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        models[name].graph.output.append(onnx.ValueInfoProto(name="maps", type=kind))
    paths = saved(tmp_path, **models)
    given = found(*paths, "--feeds", feeds(tmp_path, x=(7, 3)), "--report", tmp_path / "r.html")
    assert given["outputs_not_compared"] == []
    assert given["outputs_sqnr_db"]["maps"] == given["outputs_sqnr_db"]["y"]


def test_codes_of_a_model_and_its_program_are_compared_in_their_order(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, a=chain(3))
    given = feeds(tmp_path, 12, x=(3, 8))
    outs = [tmp_path / "out.onnx", tmp_path / "out.qprog"]
    compiled(path, "-o", outs[0], "-o", outs[1], "--format", "integer", "--calib", given, "-O", "0")
    result = call(*outs, "--feeds", given, "--report", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "tensors of codes; in none of them" in Checked((tmp_path / "r.html").read_text(encoding="utf-8")).text
    result = call(path, outs[1], "--feeds", given, "--report", tmp_path / "s.html")
    assert result.exit_code == 0, result.output
    assert "integer program" in Checked((tmp_path / "s.html").read_text(encoding="utf-8")).text


def test_texts_are_shown_as_texts_and_names_stay_names(tmp_path: Path) -> None:
    evil = "</script><b>&'\"x"
    head = "g (string[N] words, float[N] x) => (string[N] said, float[N] y)"
    models = [model_of(f"{head} {{ said = Identity(words) y = {op}(x) }}") for op in ("Neg", "Relu")]
    paths = saved(tmp_path, a=models[0], b=models[1])
    np.savez(tmp_path / "feeds.npz", words=np.array([[evil, "two"]]), x=np.array([[1.0, -2.0]], np.float32))
    result = call(*paths, "--feeds", tmp_path / "feeds.npz", "--report", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    parsed = Checked(text)
    parsed.assert_whole()
    assert parsed.text.count(evil) == 3
    assert "<b>&" not in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["{a}", "{a}", "--report", "{r}.txt"], ["--report", ".txt", "must end in .html (for people) or .json"]),
        (["{a}", "{a}", "--report", "{r}/no/r.html"], ["--report", "does not exist"]),
        (["{a}", "{a}", "--report", "{old}"], ["--report", "exists", "--force"]),
        (["{a}", "{a}no", "--report", "{r}.html"], ["no such file"]),
        (["{a}", "{a}", "--feeds", "{r}.npz", "--report", "{r}.html"], ["r.npz"]),
        (["{a}", "{b}", "--report", "{r}.html"], ["no output of the same name and shape"]),
        (["{a}", "{a}", "--feeds", "{wrong}", "--report", "{r}.html"], ["input 'x'"]),
        (["{a}", "{a}", "-n", "0", "--report", "{r}.html"], ["-n"]),
        (["{a}", "{a}", "--reprot", "{r}.html"], ["no such option --reprot", "--report"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    a, b = saved(tmp_path, a=chain(2), b=model_of("g (float[N, 8] x) => (float[N, 8] other) { other = Neg(x) }"))
    old, wrong = tmp_path / "old.html", tmp_path / "wrong.npz"
    old.write_text("mine")
    np.savez(wrong, x=np.zeros((3, 5), np.float32))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    places = {"a": a, "b": b, "r": tmp_path / "r", "old": old, "wrong": wrong}
    result = call(*(text.format(**places) for text in arguments))
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert all(part in line for part in parts), line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_report_is_replaced_only_by_force(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, a=chain(2))
    report = tmp_path / "r.json"
    report.write_text("mine")
    assert call(path, path, "--report", report, "--force").exit_code == 0
    assert json.loads(report.read_text())["feeds"] > 0
