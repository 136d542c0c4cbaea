"""Masks, positions, fills and counts that calibration did not show: compiled, a model answers as the float one does."""

from __future__ import annotations

import numpy as np
import pytest

import qcompiler
from qcompiler.api import Options
from qcompiler.graph.runner import Runner
from tests.exact_members import KINDS, Member

WAYS = [(name, how) for name, (_, ways) in KINDS.items() for how in ways]


def checked(member: Member, run) -> dict[str, float]:
    """By output, the SQNR in dB on the trial's feeds, or the share of equal integers."""
    reference = Runner(member.model)
    answers = [(reference.run(feed), run(feed)) for feed in member.trial]
    return {name: agreement([(wanted[name], got[name]) for wanted, got in answers]) for name in member.wanted}


def agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    wanted, got = (np.concatenate([np.asarray(pair[index]).ravel() for pair in pairs]) for index in (0, 1))
    if wanted.dtype.kind not in "f":
        return float(np.mean(wanted == got))
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    fills = np.abs(wanted) > 30
    assert np.allclose(wanted[fills], got[fills], rtol=1e-3), "a fill is not where it should be"
    return float(10 * np.log10((wanted[~fills] ** 2).sum() / max(((wanted - got)[~fills] ** 2).sum(), 1e-30)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--graphs") or 1))


@pytest.mark.parametrize(("name", "how"), WAYS)
def test_what_calibration_did_not_show_is_right_in_onnx(name: str, how: str, seed: int) -> None:
    member = KINDS[name][0](np.random.default_rng([seed, *map(ord, name + how)]), how)
    compiled = qcompiler.compile(member.model, data=member.calibration, options=Options(level=1))
    got = checked(member, Runner(compiled.graph).run)
    assert all(got[output] >= least for output, least in member.wanted.items()), got
