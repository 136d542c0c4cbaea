"""What the accuracy benchmarks keep, and what they do not measure twice."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy, accuracy_peers
from benchmarks.peers.feeds import read_feeds
from models.small import SMALL_TASKS
from qcompiler.api import Options

PEER = """
import sys
import numpy as np
import onnxruntime as ort
sys.path.insert(0, sys.argv[5])
from feeds import write_answers
from pathlib import Path
open(sys.argv[6], "a").write("ran\\n")
if sys.argv[7] == "fails":
    sys.exit("first line\\nthis is why\\n")
path = Path(sys.argv[1])
write_answers(sys.argv[4], ort.InferenceSession(path), sys.argv[3], 1.5, path)
"""


def run(module: object, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    return int(module.main())  # type: ignore[attr-defined]


def peer(folder: Path, how: str) -> str:
    script = folder / "peer.py"
    script.write_text(PEER)
    feeds = Path(accuracy_peers.__file__).parent / "peers"
    return f"{sys.executable} {shlex.quote(str(script))} {{io}} {feeds} {folder / 'runs.txt'} {how}"


def test_peers_are_run_once_and_failures_are_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("digits", "--json", str(tmp_path / "results.json"), "--peer", f"float again={peer(tmp_path, 'works')}")
    assert run(accuracy_peers, monkeypatch, *arguments) == 0
    assert run(accuracy_peers, monkeypatch, *arguments, "--peer", f"broken={peer(tmp_path, 'fails')}") == 0
    assert (tmp_path / "runs.txt").read_text() == "ran\nran\n"
    original, again, broken = json.loads((tmp_path / "results.json").read_text())
    assert (original["peer"], original["score"]) == ("float", again["score"])
    assert (again["same"], again["seconds"], again["bytes"]) == (1.0, 1.5, original["bytes"])
    assert again["sqnr_db"] > 60
    assert broken["score"] == "failed: this is why"
    assert broken["sqnr_db"] is None
    assert "float again" in capsys.readouterr().out


def test_a_peer_that_takes_too_long(tmp_path: Path) -> None:
    task = SMALL_TASKS["digits"]()
    found = accuracy_peers.measure(task, [], "slow", f"{sys.executable} -c 'import time; time.sleep(60)'", timeout=0.2)
    assert found.score == "took longer than 0 s"


def test_feeds_come_back_as_they_were(tmp_path: Path) -> None:
    feeds = [{"a": np.arange(3.0), "b|c": np.ones((2, 2), np.int64)} for _ in range(12)]
    feeds[11] = {"a": np.zeros(5), "b|c": np.zeros(1, np.int64)}
    accuracy_peers.write_feeds(tmp_path / "feeds.npz", feeds)
    for wanted, got in zip(feeds, read_feeds(str(tmp_path / "feeds.npz")), strict=True):
        assert list(got) == list(wanted)
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_presets_are_named_by_their_bits() -> None:
    assert accuracy.preset_name(Options(1, weights="int4")) == "-O1 W4A8"
    assert accuracy.preset_name(Options(2, weights="int4", activations="uint4")) == "-O2 W4A4"
    assert accuracy.preset_name(Options(2, weights="nf4", block=32)) == "-O2 nf4, uint8, blocks of 32"
    assert accuracy.preset_name(Options(2, weights="auto", size_budget=0.5)) == "-O2 auto, uint8, size 0.5"


def test_accuracy_goes_on_where_it_was_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    arguments = ("digits", "-O0", "--json", str(path))
    assert run(accuracy, monkeypatch, *arguments, "--bits", "W4A8") == 0
    first = json.loads(path.read_text())
    assert [row["preset"] for row in first] == ["float", *["-O0 W4A8"] * 4]
    monkeypatch.setattr(accuracy, "compile_to", lambda *_, **__: pytest.fail("compiled again"))
    assert run(accuracy, monkeypatch, *arguments, "--bits", "W4A8") == 0
    assert json.loads(path.read_text()) == first


def test_accuracy_measures_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, asked = tmp_path / "results.json", []
    row = accuracy.Row("digits", "-O0 W8A8", "out.onnx, onnxruntime", "accuracy 0.5", 0.5, 3.0, 1.0, 10, 1.0)
    monkeypatch.setattr(
        accuracy, "measure", lambda _task, _float, options, **_: asked.append(accuracy.preset_name(options)) or [row]
    )
    assert run(accuracy, monkeypatch, "digits", "-O0", "--json", str(path)) == 0
    assert run(accuracy, monkeypatch, "digits", "-O0", "--json", str(path), "--bits", "W8A8", "W2A8") == 0
    assert asked == ["-O0 W8A8", "-O0 W2A8"]
