"""What a score may lose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.scores.score_drop import ScoreDrop


@pytest.mark.parametrize(
    ("text", "score", "least"),
    [("0.5%", 0.8, 0.796), ("0.01", 0.8, 0.79), ("10%", -2.0, -2.2), ("0", 3.0, 3.0), ("5%", 0.0, 0.0)],
)
def test_a_share_is_of_the_float_score_and_a_number_is_not(text: str, score: float, least: float) -> None:
    assert ScoreDrop.read(text).least(score) == pytest.approx(least)


@pytest.mark.parametrize("text", ["", "%", "-1%", "-0.1", "nan", "inf%", "1 percent", "0.5%%"])
def test_what_is_no_drop_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"could not convert|^-|nan|inf"):
        ScoreDrop.read(text)


@given(amount=st.floats(0, 1e6), is_share=st.booleans(), score=st.floats(-1e6, 1e6))
def test_nothing_is_gained_by_a_drop_and_its_text_is_read_again(amount: float, is_share: bool, score: float) -> None:
    drop = ScoreDrop(amount, is_share)
    assert drop.least(score) <= score
    assert ScoreDrop.read(str(drop)) == ScoreDrop(float(f"{amount:g}"), is_share)
