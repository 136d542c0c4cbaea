"""The page: sound HTML, complete, and with nothing that it would have to load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from qcompiler.cli import application, compile_command
from qcompiler.page.network import NetworkView, NodeView
from qcompiler.page.provenance import Origin
from qcompiler.page.render import page
from qcompiler.records import Allocation, Candidate, FloatNode, LayerBits, OutputFigure, Report, Trial
from tests.helpers.page_html import Checked
from tests.helpers.page_models import small_model

ORIGIN = Origin("m.onnx", "qcompile m.onnx", "a CPU", "Linux", "today", {"qcompiler": "1"}, {"m.onnx": "ab"})


def written(folder: Path, *options: str) -> tuple[str, Checked]:
    onnx.save(small_model(), folder / "model.onnx")
    files = [str(folder / name) for name in ("model.onnx", "out.onnx", "r.html")]
    arguments = [files[0], "-o", files[1], "--report", files[2], *options]
    result = CliRunner().invoke(application(compile_command), arguments)
    assert result.exit_code == 0, result.output
    text = (folder / "r.html").read_text(encoding="utf-8")
    return text, Checked(text)


def test_the_page_is_sound_complete_and_loads_nothing(tmp_path):
    text, parsed = written(tmp_path, "-O", "1")
    parsed.assert_whole()
    nodes = json.loads(parsed.data)["nodes"]
    layers = [node["name"] for node in nodes if "weight_grid" in node]
    assert len(layers) == 3
    rows = dict(re.findall(r'<tr data-node="(\d+)".*?<td>(.*?)</td>', text))
    assert all(nodes[int(place)]["name"] == name for place, name in rows.items())
    assert {*layers} <= {*rows.values()}
    for part in (f"qcompile {tmp_path / 'model.onnx'}", "SHA-256", "quantize-activations", "--calib"):
        assert part in parsed.text or part in parsed.data, part
    assert len(text) < 3_000_000


def test_names_that_look_like_html_stay_text():
    evil = "</script><b>&'\"x"
    report = Report(
        warnings=[evil], outputs=[OutputFigure(evil, "[:, 3]", 5.0, 1.0, 9.0, 3)],
        trials=[Trial(evil, evil, 1.0, 30.0)],
        left_float=[FloatNode(evil, evil, evil, 0.25)],
    )  # fmt: skip
    network = NetworkView([NodeView(evil, evil, evil, "?", sqnr_db=3.0, weight_grid="int8", weight_bytes=5)], [])
    text = page(report, network, ORIGIN)
    parsed = Checked(text)
    assert parsed.text.count(evil) >= 8
    assert json.loads(parsed.data)["nodes"][0]["name"] == evil
    assert "<b>" not in text
    assert "25 %" in parsed.text


@pytest.mark.parametrize(
    ("db", "word"), [(5.0, "Do not use it"), (15.0, "Try it"), (30.0, "Close to"), (200.0, "No output")]
)
def test_the_verdict_is_that_of_the_worst_output(db, word):
    report = Report(outputs=[OutputFigure("a", "", 200.0, 1, 1, 1), OutputFigure("b", "[:, 0]", db, db, db, 2)])
    assert word in Checked(page(report, NetworkView([], []), ORIGIN)).text


def test_the_front_is_there_where_bits_were_allocated():
    candidates = [Candidate("greedy", 60, 0.02, 0.01), Candidate("even", 50, 0.1, 0.2)]
    allocation = Allocation(60, 100, 60, [LayerBits("a", "int4", 60, 0.1)], candidates, [(50, 0.1), (100, 0.001)])
    parsed = Checked(page(Report(allocation=allocation), NetworkView([], []), ORIGIN))
    front = json.loads(parsed.data)["front"]
    assert front["measured"] == [[0.6, pytest.approx(20.0), "greedy"], [0.5, pytest.approx(6.9897), "even"]]
    assert front["predicted"] == [[0.5, 10.0], [1.0, 30.0]]
    assert "chosen: greedy" in parsed.text


def test_another_suffix_is_refused_before_anything_runs(tmp_path):
    onnx.save(small_model(), tmp_path / "model.onnx")
    arguments = [str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx"), "--report", str(tmp_path / "r.txt")]
    result = CliRunner().invoke(application(compile_command), arguments)
    assert result.exit_code == 2
    assert "must end in .html (for people) or .json (for machines)" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_notebooks_show_the_report():
    evil = "<b>&"
    report = Report(
        warnings=[evil], outputs=[OutputFigure(evil, "[:, 3]", 5.0, 1.0, 9.0, 3)],
        left_float=[FloatNode(evil, evil, evil, 0.25)],
    )  # fmt: skip
    text = report._repr_html_()
    parsed = Checked(text)
    assert parsed.text.count(evil) == 5
    assert "1.0 dB to 9.0 dB" in parsed.text
    assert "worst layers" not in parsed.text
