"""The committed models are the ones the manifest tells of, and as good as it says."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import onnx
import pytest

from models.data import ALPHABET, TEXT_LENGTH, encode
from models.small import HOME, SMALL_TASKS, manifest
from models.task import agreement, edit_distance, sqnr_db
from qcompiler.graph.runner import Runner

NAMES = sorted(manifest())


def answers(name: str) -> list[np.ndarray]:
    task = SMALL_TASKS[name]()
    runner = Runner(onnx.load(task.model))
    return [runner.run(feed)["logits"] for feed in task.feeds]


def test_every_folder_with_a_model_is_in_the_manifest() -> None:
    assert sorted(path.parent.name for path in HOME.glob("*/model.onnx")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_checksums(name: str) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (HOME / name).iterdir()}
    assert found == manifest()[name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_the_models_are_small_and_say_where_they_come_from(name: str) -> None:
    entry = manifest()[name]
    assert (HOME / name / "model.onnx").stat().st_size < 500_000
    assert (HOME.parent / entry["trained_by"].partition(",")[0]).is_file()
    assert entry["licence"] == "Apache-2.0"
    assert name in (HOME / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_float_accuracy_is_what_the_manifest_says(name: str) -> None:
    assert SMALL_TASKS[name]().score(answers(name))["accuracy"] == pytest.approx(
        manifest()[name]["float_accuracy"], abs=0.0021
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_test_sample_is_calibrated_with(name: str) -> None:
    task = SMALL_TASKS[name]()
    seen = [
        {sample.tobytes() for feed in feeds for sample in next(iter(feed.values()))}
        for feeds in (task.feeds, task.calibration)
    ]
    assert len(seen[1]) == 128
    assert not seen[0] & seen[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_models_carry_no_trace_of_the_machine_that_made_them(name: str) -> None:
    assert re.findall(rb"/(?:home|root|work|tmp|usr)/[\w./]*", (HOME / name / "model.onnx").read_bytes()) == []


def test_the_digits_network_keeps_its_batchnorm() -> None:
    operators = [node.op_type for node in onnx.load(HOME / "digits" / "model.onnx").graph.node]
    assert operators.count("BatchNormalization") == 5


def test_text_becomes_codes() -> None:
    codes = encode("Öl & Wasser" + "x" * 100)
    assert codes.shape == (TEXT_LENGTH,)
    assert [ALPHABET[code] for code in codes[:11]] == ["ö", "l", " ", "\1", " ", *"wasser"]
    assert encode("ja").tolist() == [ALPHABET.index("j"), ALPHABET.index("a"), *([0] * (TEXT_LENGTH - 2))]


def test_agreement_and_sqnr() -> None:
    real = [np.array([[1.0, 2.0], [4.0, 3.0]])]
    got = [np.array([[1.0, 2.0], [3.0, 4.0]])]
    assert agreement(real, got) == 0.5
    assert sqnr_db(real, got) == pytest.approx(10 * np.log10(30 / 2))
    assert sqnr_db(real, real) == float("inf")


def test_edit_distance() -> None:
    assert [edit_distance(*pair) for pair in (("", "abc"), ("kitten", "sitting"), ("same", "same"))] == [3, 3, 0]
