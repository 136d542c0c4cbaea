"""`qcompile inspect`: what it says is what the compiler then does."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from typer.testing import CliRunner

import qcompiler
from qcompiler.cli import application, compile_command, inspect_command, run_qcompile
from qcompiler.commands.inspection import inspect, rows
from qcompiler.feeds.sources import check_feed, input_specs
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import Options
from tests.helpers.page_models import FEEDS, small_model

MANY = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 2, 2] x, int64[N, 3] i, bool[N] b, float[2] s) => (float[N] y, int64[N, 3] j, bool[N] c) {
  t = Mul(x, s) a = Exp(t) y = Det(a) j = Neg(i) c = Not(b)
}"""


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def feeds_of(template: str) -> list[dict[str, np.ndarray]]:
    names: dict[str, object] = {}
    exec(compile(template, "template", "exec"), names)
    return list(names["feeds"]())


def test_the_figures_are_those_of_the_compilation(tmp_path):
    path = saved(tmp_path, small_model())
    found = inspect(path)
    compiled = qcompiler.compile(path, data=FEEDS, options=Options(0))
    assert found.macs == compiled.report.figures["macs"]
    assert found.integer_share == compiled.report.figures["integer_mac_share"] == 1.0
    assert found.weight_bytes == compiled.report.figures["float_bytes"]
    assert found.layers == 3
    assert found.inputs == {"image": "float32 [N, 3, 8, 8]"}
    assert found.operators["Conv"] == 2


def test_what_stays_float_is_told_with_the_reason(tmp_path):
    path = saved(tmp_path, onnx.parser.parse_model(MANY))
    found = inspect(path)
    data = [{"x": np.ones((2, 2, 2), np.float32), "i": np.ones((2, 3), np.int64), "b": np.ones(2, bool),
             "s": np.ones(2, np.float32)}]  # fmt: skip
    compiled = qcompiler.compile(path, data=data, options=Options(0))
    told = {(left.op, name) for left in found.left_float for name in left.nodes}
    assert told == {(node.op, node.node) for node in compiled.report.left_float}
    assert any(text.startswith("Det (1, ") and "no integer form" in text for _, text in rows(found))


@pytest.mark.parametrize("text", [MANY, None])
def test_the_template_yields_feeds_that_the_model_takes(tmp_path, text):
    path = saved(tmp_path, small_model() if text is None else onnx.parser.parse_model(text))
    specs = input_specs(load_graph(path))
    feeds = feeds_of(inspect(path).template)
    assert len(feeds) == 64
    for feed in feeds[:2]:
        checked = check_feed(feed, specs, "template")
        assert {name: value.dtype for name, value in checked.items()} == {spec.name: spec.dtype for spec in specs}


def test_the_suggested_command_runs_with_the_template(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, small_model())
    found = inspect(Path("model.onnx"), ["N=2"])
    (tmp_path / "my_feeds.py").write_text(found.template, encoding="utf-8")
    words = shlex.split(found.command)
    assert words[:2] == ["qcompile", "model.onnx"]
    assert "--dim" in words
    assert "np.zeros((2, 3, 8, 8)" in found.template
    result = CliRunner().invoke(application(compile_command), [*words[1:], "-O", "0"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model.int8.onnx").exists()
    assert (tmp_path / "model.html").exists()


def test_the_command_prints_a_table_or_json_and_one_line_for_bad_input(tmp_path, capsys):
    path = saved(tmp_path, small_model())
    with pytest.raises(SystemExit) as left:
        run_qcompile(["inspect", str(path)])
    assert left.value.code == 0
    assert "def feeds():" in capsys.readouterr().out
    result = CliRunner().invoke(application(inspect_command), [str(path), "--json"])
    assert json.loads(result.stdout)["layers"] == 3
    (tmp_path / "no.onnx").write_bytes(b"no model")
    for arguments in ([str(tmp_path / "no.onnx")], [str(path), "--dim", "M=2"], [str(tmp_path / "missing.onnx")]):
        result = CliRunner().invoke(application(inspect_command), arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
