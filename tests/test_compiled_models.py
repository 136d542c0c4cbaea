"""The whole line on real networks: compiled, the small models answer as their float originals do, everywhere the
same."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcompiler
from models.small import SMALL_TASKS, manifest
from models.task import Answers, Task, agreement, sqnr_db
from qcompiler import lowering
from qcompiler.api import Compiled
from qcompiler.graph.runner import Runner

NAMES = sorted(manifest())
LOST_ACCURACY = 0.01
LEAST_SQNR_DB = 20.0
LEAST_AGREEMENT = 0.98


@cache
def task_of(name: str) -> Task:
    return SMALL_TASKS[name]()


@cache
def float_answers(name: str) -> Answers:
    runner = Runner(onnx.load(task_of(name).model))
    return [runner.run(feed)["logits"] for feed in task_of(name).feeds]


@cache
def compiled_for(name: str, for_onnx: bool) -> Compiled:
    return qcompiler.compile(task_of(name).model, data=task_of(name).calibration, for_onnx=for_onnx)


def check_answers(name: str, answers: Answers) -> None:
    lost = manifest()[name]["float_accuracy"] - task_of(name).score(answers)["accuracy"]
    assert lost < LOST_ACCURACY + 1e-6  # shares of 500 samples, as floats
    assert agreement(float_answers(name), answers) >= LEAST_AGREEMENT
    assert sqnr_db(float_answers(name), answers) >= LEAST_SQNR_DB


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_answers_as_the_float_model_does(name: str, tmp_path: Path) -> None:
    compiled_for(name, True).save(tmp_path / "out.onnx")
    runner = Runner(onnx.load(tmp_path / "out.onnx"))
    check_answers(name, [runner.run(feed)["logits"] for feed in task_of(name).feeds])


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_answers_as_the_float_model_does(name: str) -> None:
    session = compiled_for(name, False).session()
    check_answers(name, [session.run(feed)["logits"] for feed in task_of(name).feeds])


@pytest.mark.parametrize("name", NAMES)
def test_the_machine_equals_the_integer_onnx_to_the_bit(name: str) -> None:
    compiled = compiled_for(name, False)
    session, runner = compiled.session(), Runner(lowering.to_integer_onnx(compiled.integer_graph), fusions=False)
    feed = task_of(name).feeds[0]
    np.testing.assert_array_equal(session.run(feed)["logits"], runner.run(feed)["logits"])


@pytest.mark.parametrize("name", NAMES)
def test_the_arena_is_hardly_larger_than_what_lives_at_once(name: str) -> None:
    memory = compiled_for(name, False).session().memory_for(task_of(name).feeds[0])
    assert memory.arena <= 1.1 * memory.peak_lower_bound


@pytest.mark.parametrize("name", NAMES)
def test_every_multiplication_is_in_integers(name: str) -> None:
    report = compiled_for(name, False).report
    assert report.figures["integer_mac_share"] == 1.0
    assert report.left_float == []


@pytest.mark.parametrize("suffix", [".onnx", ".qprog"])
def test_compiling_twice_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    for file in ("a", "b"):
        compiled = qcompiler.compile(
            task_of("digits").model, data=task_of("digits").calibration, for_onnx=suffix == ".onnx"
        )
        compiled.save(tmp_path / f"{file}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
