"""Running mixed programs: feeds that do not fit, files, what traces and memory say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcompiler
from qcompiler import errors
from qcompiler.errors import DataError
from qcompiler.mixed.container import MixedProgram, Piece
from qcompiler.mixed.joined import MixedSession
from qcompiler.options import Options
from qcompiler.runtime import Session
from qcompiler.runtime.errors import FeedError, ProgramError
from tests.helpers.mixed_members import KINDS

MEMBER = KINDS["normalized"](np.random.default_rng(4))
FEED = MEMBER.trial[0]


@cache
def program() -> MixedProgram:
    options = Options(level=0, mixed=True)
    result = qcompiler.compile(MEMBER.model, data=MEMBER.calibration, options=options, for_onnx=False)
    assert result.mixed is not None
    return result.mixed


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "input 'x' is missing; it is float32"),
        ({**FEED, "z": FEED["x"]}, "unknown input 'z'"),
        ({"x": FEED["x"].astype(np.float64)}, "input 'x' is float64; it must be float32"),
        ({"x": FEED["x"][0]}, "input 'x' has 3 dimensions; it must have 4"),
        ({"x": FEED["x"][:, :2]}, "axis 1 must be 3"),
        ({"x": np.full_like(FEED["x"], np.nan)}, "NaN or infinity"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(feed: dict[str, Any], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        MixedSession(program()).run(feed)


def test_run_takes_files_and_programs_of_both_kinds(tmp_path: Path) -> None:
    program().save(tmp_path / "mixed.qprog")
    expected = MixedSession(program()).run(FEED)
    for source in (program(), tmp_path / "mixed.qprog", str(tmp_path / "mixed.qprog")):
        got = qcompiler.run(source, FEED)
        assert all(np.array_equal(got[name], value) for name, value in expected.items())
    (tmp_path / "segment.qprog").write_bytes(program().pieces[0].content)
    segment = Session(tmp_path / "segment.qprog")
    got = qcompiler.run(tmp_path / "segment.qprog", FEED)
    assert all(np.array_equal(got[name], value) for name, value in segment.run(FEED).items())
    with pytest.raises(ProgramError, match="cannot read"):
        qcompiler.run(tmp_path / "none.qprog", FEED)
    with pytest.raises(DataError, match="must be a dictionary"):
        qcompiler.run(program(), [FEED])  # type: ignore[arg-type]


def test_a_trace_has_the_codes_of_segments_and_what_crosses() -> None:
    session = MixedSession(program())
    trace, outputs = session.trace(FEED), session.run(FEED)
    assert all(np.array_equal(trace[name], value) for name, value in outputs.items())
    assert any(value.dtype == np.uint8 for value in trace.values())
    assert session.memory(FEED)["arena_bytes"] > 0


def test_a_damaged_part_is_one_line() -> None:
    broken = replace(program(), pieces=(program().pieces[0], Piece(False, (), (), b"\xff\xff nonsense")))
    with pytest.raises(errors.ModelError, match="damaged: a float part is no ONNX model"):
        MixedSession(broken)


def test_an_input_that_must_be_one_number_is_checked() -> None:
    fixed = replace(program(), only={"x": 7})
    with pytest.raises(FeedError, match="input 'x' must be 7"):
        MixedSession(fixed).run(FEED)
