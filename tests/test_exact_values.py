"""Masks, positions, fills and counts that calibration did not show: compiled, a model answers as the float one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import qcompiler
from qcompiler.api import Options
from qcompiler.errors import DataError
from qcompiler.graph.runner import Runner
from qcompiler.runtime.errors import FeedError, ProgramError
from tests.helpers.decoder_members import WAYS as WAYS_OF_DECODERS
from tests.helpers.decoder_members import decoder
from tests.helpers.exact_members import KINDS as EXACT
from tests.helpers.exact_members import Feed, Member, model_of
from tests.helpers.few_members import TAILS, embedder, regressor
from tests.helpers.filled_members import JOINED, PADDED, joined, padded

KINDS = EXACT | {"joined": (joined, JOINED), "padded": (padded, PADDED)}

WAYS = [(name, how) for name, (_, ways) in KINDS.items() for how in ways]


def checked(member: Member, run: Callable[[Feed], Mapping[str, Any]], fills: bool = True) -> dict[str, float]:
    """By output, the SQNR in dB on the trial's feeds, or the share of equal integers; large numbers are fills."""
    reference = Runner(member.model)
    answers = [(reference.run(feed), run(feed)) for feed in member.trial]
    return {name: agreement([(wanted[name], got[name]) for wanted, got in answers], fills) for name in member.wanted}


def agreement(pairs: list[tuple[np.ndarray, np.ndarray]], has_fills: bool = True) -> float:
    wanted, got = (np.concatenate([np.asarray(pair[index]).ravel() for pair in pairs]) for index in (0, 1))
    if wanted.dtype.kind not in "f":
        return float(np.mean(wanted == got))
    wanted, got = wanted.astype(np.float64), got.astype(np.float64)
    fills = (np.abs(wanted) > 30) & has_fills
    assert np.allclose(wanted[fills], got[fills], rtol=1e-3), "a fill is not where it should be"
    wanted, got = wanted[~fills], got[~fills]
    return float(10 * np.log10((wanted**2).sum() / max(((wanted - got) ** 2).sum(), 1e-30)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--graphs") or 1))


@pytest.mark.parametrize(("name", "how"), WAYS)
def test_what_calibration_did_not_show_is_right_in_onnx(name: str, how: str, seed: int) -> None:
    member = KINDS[name][0](np.random.default_rng([seed, *map(ord, name + how)]), how)
    compiled = qcompiler.compile(member.model, data=member.calibration, options=Options(level=1))
    got = checked(member, Runner(compiled.graph).run)
    assert all(got[output] >= least for output, least in member.wanted.items()), got


MACHINE = [
    ("attention", "mul"),
    ("attention", "blend"),
    ("attention", "added"),
    ("attention", "less"),
    ("rotary", "mul"),
    ("rotary", "outer"),
    ("sinusoid", "range"),
    ("sinusoid", "step"),
    ("actions", "where"),
    ("actions", "blend"),
    ("pooling", "tokens"),
    ("pooling", "picture"),
    ("mean", "clip"),
    ("mean", "other"),
    *(("joined", how) for how in JOINED),
    *(("padded", how) for how in PADDED),
]
"""What the machine has a form for."""


@pytest.mark.parametrize(("name", "how"), MACHINE)
def test_what_calibration_did_not_show_is_right_on_the_machine(name: str, how: str, seed: int) -> None:
    member = KINDS[name][0](np.random.default_rng([seed, *map(ord, name + how)]), how)
    got = checked(
        member,
        qcompiler.compile(member.model, data=member.calibration, options=Options(level=1), for_onnx=False)
        .session()
        .run,
    )
    assert all(got[output] >= least for output, least in member.wanted.items()), got


def cache_model(last: str) -> onnx.ModelProto:
    text = f"""g (float[B, P, 8] past, float[B, T, 8] x) => (float[] y, float[B, S, 8] present) {{
        h = MatMul(x, w)  present = Concat <axis = 1> (past, h)  {last} }}"""
    return model_of(text, {"w": np.eye(8, dtype=np.float32) / 2})


def cached(past: int, length: int) -> Feed:
    rng = np.random.default_rng(past)
    return {
        "past": rng.uniform(-1, 1, (1, past, 8)).astype(np.float32),
        "x": rng.uniform(-2, 2, (1, length, 8)).astype(np.float32),
    }


@pytest.mark.parametrize("for_onnx", [True, False])
def test_a_cache_may_be_empty(for_onnx: bool) -> None:
    model = cache_model("p = Softmax(present)  y = MatMul(p, w)")
    compiled = qcompiler.compile(
        model, data=[cached(0, 5), cached(4, 1), cached(9, 2)], options=Options(level=0), for_onnx=for_onnx
    )
    run = Runner(compiled.graph).run if for_onnx else compiled.session().run
    got = checked(Member(model, [], [cached(0, 3), cached(5, 1)], {"y": 25.0, "present": 30.0}), run)
    assert min(got.values()) > 25, got


OF_EMPTY = {
    "table": "a = Exp(past)", "binary": "a = Add(past, past)", "joined constant": "a = Mul(past, s)",
    "compare, where": "c = Less(past, s)  a = Where(c, past, z)", "gemm": "a = MatMul(past, w)",
    "softmax": "a = Softmax(past)", "layernorm": "a = LayerNormalization(past, g)",
    "gather": "t = Gather <axis = 2> (past, i)  a = Concat <axis = 2> (t, t)",
    "matmul": "t = Transpose <perm = [0, 2, 1]> (past)  m = MatMul(past, t)  k = MatMul(m, past)  a = Tanh(k)",
    "requantized": "b = Slice(past, b0, b1, b2)  a = Concat <axis = 2> (b, b)",
}  # fmt: skip


@pytest.mark.parametrize("body", OF_EMPTY.values(), ids=OF_EMPTY)
def test_every_instruction_may_have_nothing_to_write(body: str) -> None:
    text = f"""g (float[1, P, 8] past, float[1, T, 8] x) => (float[1, L, 8] y, float[1, P, 8] z0) {{
        {body}  h = MatMul(x, w)  y = Concat <axis = 1> (a, h)  z0 = Relu(a) }}"""
    rng = np.random.default_rng(3)
    constants = {
        "w": np.eye(8, dtype=np.float32) / 2, "s": np.float32(0.25), "z": rng.normal(size=8).astype(np.float32),
        "g": np.ones(8, np.float32), "i": np.arange(4)[::-1].copy(), "b0": np.array([4]), "b1": np.array([8]),
        "b2": np.array([2]),
    }  # fmt: skip
    used = {name: value for name, value in constants.items() if f"{name}" in text}
    model = model_of(text, used)
    compiled = qcompiler.compile(
        model, data=[cached(4, 5), cached(5, 1), cached(9, 2)], options=Options(level=0), for_onnx=False
    )
    real, run = Runner(model), compiled.session().run
    for feed in (cached(0, 3), cached(3, 2), cached(0, 1)):
        wanted, got = real.run(feed), run(feed)
        for name in ("y", "z0"):
            assert got[name].shape == wanted[name].shape
            assert np.abs(got[name] - wanted[name]).max(initial=0) < 0.05 * (1 + np.abs(wanted[name]).max(initial=0))


def test_an_empty_part_is_requantized_into_a_concat() -> None:
    model = model_of("g (float[2, P] past, float[2, T] x) => (float[2, L] y) { y = Concat <axis = 1> (past, x) }", {})

    def feed(past: int, length: int) -> Feed:
        rng = np.random.default_rng(past)
        return {
            "past": rng.uniform(0, 0.1, (2, past)).astype(np.float32),
            "x": rng.uniform(-1, 1, (2, length)).astype(np.float32),
        }

    compiled = qcompiler.compile(
        model, data=[feed(4, 500), feed(50, 1), feed(9, 2)], options=Options(level=0), for_onnx=False
    )
    for given in (feed(0, 3), feed(3, 2), feed(1, 0)):
        got = compiled.session().run(given)["y"]
        np.testing.assert_allclose(got, np.concatenate([given["past"], given["x"]], axis=1), atol=0.02)


def test_a_feed_without_any_element_and_a_reduction_of_nothing_are_told() -> None:
    compiled = qcompiler.compile(
        cache_model("y = ReduceMean <axes = [1]> (past)"), data=[cached(4, 1)], options=Options(level=0), for_onnx=False
    )
    with pytest.raises(ProgramError, match="is empty"):
        compiled.session().run(cached(0, 3))
    with pytest.raises(FeedError, match="is empty"):
        compiled.session().run(cached(0, 0))
    with pytest.raises(DataError, match="holds no element"):
        qcompiler.compile(cache_model("y = Relu(present)"), data=[cached(0, 0)])


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("how", WAYS_OF_DECODERS)
def test_a_decoder_calibrated_on_few_tokens_goes_on_with_others(how: str, for_onnx: bool, seed: int) -> None:
    member = decoder(np.random.default_rng([seed, len(how)]), how)
    compiled = qcompiler.compile(member.model, data=member.calibration, options=Options(level=1), for_onnx=for_onnx)
    got = checked(member, Runner(compiled.graph).run if for_onnx else compiled.session().run, fills=False)
    assert all(got[output] >= least for output, least in member.wanted.items()), got


@pytest.mark.parametrize("make", [regressor, embedder])
@pytest.mark.parametrize("how", TAILS)
def test_few_numbers_tell_enough(make: Callable[..., Member], how: str, seed: int) -> None:
    member = make(np.random.default_rng([seed, len(how)]), how)
    compiled = qcompiler.compile(member.model, data=member.calibration, options=Options(level=1))
    got = checked(member, Runner(compiled.graph).run, fills=False)
    assert got["y"] >= member.wanted["y"], got
