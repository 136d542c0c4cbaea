"""What the speed benchmark says of its measurements."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.speed import measure
from benchmarks.tools.cases import MACHINE, Case, folded_by_onnxruntime, light_model
from benchmarks.tools.speed_report import Row, Timing, as_json, geometric_mean, plot, show
from models.small import SMALL_TASKS
from tests.runtime.programs import two_layers


def row(model: str, threads: int, **milliseconds: float) -> Row:
    names = {
        "machine": MACHINE,
        "float": "onnxruntime float",
        "int8": "onnxruntime int8",
        "ours": "onnxruntime out.onnx",
    }
    return Row(
        model,
        threads,
        {names[key]: Timing(value, value / 2, 10_000_000) for key, value in milliseconds.items()},
        2000,
        1900,
    )


ROWS = [
    row("a", 1, machine=1.0, float=2.0, int8=4.0),
    row("b", 1, machine=3.0, float=2.0, ours=6.0),
    row("a", 2, machine=0.5, float=2.0),
]


def test_ratios() -> None:
    assert [one.ratio for one in ROWS] == [0.5, 1.5, 0.25]
    assert ROWS[0].ratio_to("onnxruntime int8", "onnxruntime out.onnx") == 0.25
    assert ROWS[2].ratio_to("onnxruntime int8") is None
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_the_table_has_a_part_for_each_number_of_threads() -> None:
    text = StringIO()
    show(ROWS, Console(file=text, width=200))
    assert text.getvalue().count("geometric mean") == 2
    assert "0.866" in text.getvalue()
    assert "openvino" not in text.getvalue()


def test_json_holds_every_figure() -> None:
    found = json.loads(as_json(ROWS))
    assert found["rows"][1]["engines"]["machine"] == {"median_ms": 3.0, "fastest_ms": 1.5, "peak_bytes": 10_000_000}
    assert [one["threads"] for one in found["rows"]] == [1, 1, 2]


def test_the_plot_is_written(tmp_path: Path) -> None:
    plot(ROWS, tmp_path / "speed.svg")
    assert "</svg>" in (tmp_path / "speed.svg").read_text()


def test_engines_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    two_layers().save(tmp_path / "net.qprog")
    np.savez(tmp_path / "feed.npz", x=np.zeros((2, 40), np.float32))
    found = measure(Case("net", {MACHINE: tmp_path / "net.qprog"}, tmp_path / "feed.npz"), threads=1, rounds=2)
    assert list(found.engines) == [MACHINE]
    assert 0 < found.engines[MACHINE].fastest_ms <= found.engines[MACHINE].median_ms
    assert found.arena_bytes >= found.arena_bound > 0


def test_old_models_are_raised_for_the_quantizer(tmp_path: Path) -> None:
    import onnx

    model, _ = light_model("squeezenet")
    folded = onnx.load(folded_by_onnxruntime(model, tmp_path / "net.onnx"))
    assert max(entry.version for entry in folded.opset_import if entry.domain == "") >= 13
    assert not {node.op_type for node in folded.graph.node} & {"ConstantOfShape", "Constant"}
    assert len(folded.graph.input) == 1
    assert onnx.load(folded_by_onnxruntime(SMALL_TASKS["digits"]().model, tmp_path / "new.onnx")).graph.node
