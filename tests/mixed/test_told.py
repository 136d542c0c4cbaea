"""What the commands say of mixed programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command, diff_command, inspect_command, run_command
from tests.helpers.mixed_members import KINDS

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with feeds."""
    place = tmp_path_factory.mktemp("mixed")
    member = KINDS["detector"](np.random.default_rng(11))
    onnx.save(member.model, place / "model.onnx")
    np.savez(place / "feeds.npz", x=np.stack([feed["x"] for feed in member.calibration]))
    return place


def compiled(folder: Path, *arguments: object) -> Result:
    given = [folder / "model.onnx", "-O", "0", "--calib", folder / "feeds.npz", "--force", "--mixed", *arguments]
    return RUNNER.invoke(application(compile_command), [str(argument) for argument in given])


def test_the_report_begins_with_what_the_program_is(folder: Path) -> None:
    result = compiled(folder, "-o", folder / "out.qprog", "--verify", "--report", folder / "report.html")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()[:2]
    assert first.startswith("program")
    assert "mixed: 1 integer segment(s) with 100 % of all multiply-accumulates" in first
    assert second.startswith("outside")
    assert "NonMaxSuppression" in second
    assert result.stderr.splitlines()[0].startswith("warning: this is a mixed program: 1 integer segment(s)")
    assert "NonMaxSuppression" in (folder / "report.html").read_text(encoding="utf8")


def test_both_forms_have_one_report(folder: Path) -> None:
    result = compiled(folder, "-o", folder / "out.onnx", "-o", folder / "out.qprog", "--json")
    told = json.loads(result.stdout)
    assert told["program"] == "mixed"
    assert next(each["op"] for each in told["outside"]) == "NonMaxSuppression"
    assert told["figures"]["program_mac_share"] == 1.0
    assert {*told["file_bytes"]} == {"out.onnx", "out.qprog"}
    assert not any("no integer program" in warning for warning in told["warnings"])


def test_a_refusal_is_one_line_and_nothing_is_written(folder: Path) -> None:
    result = compiled(folder, "-o", folder / "out2.qprog", "-o", folder / "out2.onnx", "--format", "integer")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("error: no integer form for 1 node(s): 'NonMaxSuppression")
    assert not [*folder.glob("out2*")]


def test_a_mixed_program_is_not_written_unasked(folder: Path) -> None:
    given = [folder / "model.onnx", "-O", "0", "--calib", folder / "feeds.npz", "-o", folder / "out3.qprog"]
    result = RUNNER.invoke(application(compile_command), [*map(str, given)])
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: no integer form for 1 node(s): 'NonMaxSuppression")
    assert last.endswith("; with --mixed such parts run on onnxruntime, beside the machine")
    assert not [*folder.glob("out3*")]


def test_a_program_of_integers_alone_says_so(folder: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { y = Exp(x) }'
    onnx.save(onnx.parser.parse_model(text), folder / "exp.onnx")
    arguments = [folder / "exp.onnx", "-o", folder / "exp.qprog", "-O", "0", "--mixed"]
    result = RUNNER.invoke(application(compile_command), [*map(str, arguments)])
    assert result.stdout.splitlines()[0].split(maxsplit=1) == ["program", "integer from input to output"]
    told = RUNNER.invoke(application(inspect_command), [str(folder / "exp.qprog"), "--json"])
    assert json.loads(told.stdout)["kind"] == "integer"


def test_commands_run_and_compare_a_mixed_program(folder: Path) -> None:
    compiled(folder, "-o", folder / "out.qprog")
    feeds = ["--feeds", str(folder / "feeds.npz"), "--json"]
    run = RUNNER.invoke(application(run_command), [str(folder / "out.qprog"), *feeds])
    assert {*json.loads(run.stdout)["outputs"]} == {"boxes", "chosen", "all"}
    made_up = RUNNER.invoke(application(run_command), [str(folder / "out.qprog"), "--json"])
    assert made_up.exit_code == 0, made_up.output
    diff = RUNNER.invoke(application(diff_command), [str(folder / "model.onnx"), str(folder / "out.qprog"), *feeds])
    assert json.loads(diff.stdout)["outputs_sqnr_db"]["all"] > 20
    inspected = RUNNER.invoke(application(inspect_command), [str(folder / "out.qprog")])
    assert "mixed: 1 integer segment(s)" in inspected.stdout
    assert inspected.exit_code == 0


def test_outputs_that_are_sequences_of_maps_are_told(folder: Path) -> None:
    member = KINDS["trees"](np.random.default_rng(1))
    onnx.save(member.model, folder / "trees.onnx")
    arguments = [folder / "trees.onnx", "-o", folder / "trees.qprog", "-O", "0", "--mixed"]
    assert RUNNER.invoke(application(compile_command), [*map(str, arguments)]).exit_code == 0
    run = RUNNER.invoke(application(run_command), [str(folder / "trees.qprog"), "--json"])
    assert "sequences, maps or strings" in json.loads(run.stdout)["outputs"]["named"]
