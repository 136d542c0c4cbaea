"""`qcompile inspect` of program files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcompiler
from qcompiler.commands.program_inspection import inspect_program, program_rows
from qcompiler.errors import ModelError
from qcompiler.options import Options
from tests.helpers.mixed_members import KINDS


def test_it_says_which_kind_a_program_is_and_what_runs_it(tmp_path: Path) -> None:
    member = KINDS["trees"](np.random.default_rng(0))
    options = Options(level=0, mixed=True)
    result = qcompiler.compile(member.model, data=member.calibration, options=options, for_onnx=False)
    assert result.mixed is not None
    result.save(tmp_path / "mixed.qprog")
    (tmp_path / "integer.qprog").write_bytes(result.mixed.pieces[0].content)

    mixed, integer = (inspect_program(tmp_path / f"{kind}.qprog") for kind in ("mixed", "integer"))
    assert (mixed.kind, mixed.segments, [each["op"] for each in mixed.outside]) == (
        "mixed", 1, ["TreeEnsembleClassifier", "ZipMap"],
    )  # fmt: skip
    assert mixed.outputs["named"].startswith("sequence")
    assert (integer.kind, integer.outside, integer.integer_mac_share) == ("integer", [], 1.0)
    assert dict(program_rows(mixed))["kind"].startswith("mixed: 1 integer segment(s), 100.0 %")
    assert "the machine's runtime alone does not" in dict(program_rows(mixed))["runs on"]
    assert dict(program_rows(integer))["kind"] == "integer from input to output"

    (tmp_path / "mixed.qprog").write_bytes((tmp_path / "mixed.qprog").read_bytes()[:-40])
    with pytest.raises(ModelError, match="damaged"):
        inspect_program(tmp_path / "mixed.qprog")
