"""A measure of the user's own: what it gets, and one line where it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qcompiler.errors import DataError, OptionError
from qcompiler.feeds.sources import InputSpec
from qcompiler.scores.metric import Metric, metric_named

SPECS = (InputSpec("x", np.dtype(np.float32), (None, 4)),)
ONES = np.ones((2, 4), np.float32)


def scored(function: Callable[..., Any]) -> float:
    return Metric("m:f", function, SPECS).score(lambda feeds: {"y": feeds["x"] * 2}, "out.onnx")


def test_it_gets_the_model_and_its_number_is_taken() -> None:
    assert scored(lambda run: run({"x": ONES})["y"].sum()) == 16.0
    assert scored(lambda run: np.asarray(run({"x": ONES})["y"].max())) == 2.0
    assert scored(lambda run: (run({"x": ONES})["y"] == 2).all()) == 1.0
    assert scored(lambda _: 3) == 3.0


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (lambda run: run({"z": ONES}), "run(feeds): 'z' is no input of the model"),
        (lambda run: run({"x": ONES.astype(np.float64)}), "input 'x' is float64; expected float32 [?, 4]"),
        (lambda run: run({"x": ONES[:, :3]}), "has shape [2, 3]"),
        (lambda run: run(ONES), "is a ndarray; expected a dict"),
        (lambda run: run({"x": ONES})["logits"], "KeyError: 'logits' (test_metric.py, line "),
        (lambda run: run({"x": ONES}), "returned an object of type dict; it must return a number"),
        (lambda _: None, "returned an object of type NoneType"),
        (lambda _: ONES, "returned an object of type ndarray"),
        (lambda _: float("nan"), "returned nan; it must return a finite number"),
        (lambda _: -np.inf, "returned -inf"),
        (lambda: 1.0, "TypeError"),
    ],
)
def test_a_fault_is_one_line_that_names_the_function_and_the_model(function: Callable[..., Any], part: str) -> None:
    with pytest.raises(DataError) as caught:
        scored(function)
    assert str(caught.value).startswith("--accuracy m:f, on out.onnx: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "kind"), [("score", OptionError), ("a b:c", OptionError), ("no_such:f", DataError)])
def test_what_names_no_function_is_refused(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"--accuracy {text}: "):
        metric_named(text, SPECS)
