"""The page of a comparison: what it says of figures that are given, and how large it becomes."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.page.comparison_page import MOST_TENSORS, ModelFacts, comparison_page
from qcompiler.records import OutputFigure
from qcompiler.report.comparison import EqualShare
from tests.helpers.diff_pages import ORIGIN, comparison, long_comparison, worst
from tests.helpers.page_html import Checked

NAMES = (ModelFacts("a.onnx", {"kind": "float"}), ModelFacts("b.qprog", {"kind": "program"}))


def text_of(**given: object) -> str:
    parsed = Checked(comparison_page(comparison(**given), *NAMES, ORIGIN))
    parsed.assert_whole()
    return " ".join(parsed.text.split())


@pytest.mark.parametrize(
    ("db", "words"),
    [(5.0, "Far apart. The worst output is y: 5.0 dB"), (15.0, "Apart."), (30.0, "Close."), (200.0, "No output diff")],
)
def test_the_verdict_is_that_of_the_worst_output(db: float, words: str) -> None:
    figures = [OutputFigure("x", "", 200.0, 200.0, 200.0, 3), OutputFigure("y", "", db, db, db, 3)]
    assert words in text_of(outputs=figures)


def test_integers_and_what_was_not_compared_have_a_verdict() -> None:
    equal = [EqualShare("top", 3, 4)]
    assert "Of 'top', 3 of 4 elements are equal." in text_of(outputs=[], equal=equal, outputs_sqnr_db={"top": 9.0})
    said = text_of(outputs=[], outputs_sqnr_db={"y": 200.0}, uncompared=["maps"])
    assert "No output that was compared differs; maps could not be." in said


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ({}, "The two share no inner tensor"),
        ({"a_codes": 0.0, "b_codes": 0.25, "c_codes": 0.5}, "more than one step is b_codes : 25 % of them"),
        ({"a_codes": 0.0}, "in none of them do codes differ"),
    ],
)
def test_without_a_tensor_of_both_it_says_what_there_is(codes: dict[str, float], words: str) -> None:
    assert words in text_of(layers=[], parting=None, codes=codes).replace("b_codes:", "b_codes :")


def test_a_large_network_with_images_stays_small() -> None:
    page = comparison_page(long_comparison(2000), *NAMES, ORIGIN)
    Checked(page).assert_whole()
    assert len(page) < 3_000_000


def test_of_many_inputs_and_outputs_the_first_are_shown() -> None:
    arrays = {f"t{at}": np.zeros((2, 3), np.float32) for at in range(MOST_TENSORS + 5)}
    assert "10 more inputs and outputs are not shown." in text_of(worst=[worst(0, arrays, arrays, arrays)])
