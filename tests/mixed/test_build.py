"""Models of which a part has no integer form, compiled and run as mixed programs, against float onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcompiler
from qcompiler.api import Compiled
from qcompiler.errors import NoIntegerFormError, UnsupportedError
from qcompiler.graph.runner import Runner
from qcompiler.mixed.container import MixedProgram
from qcompiler.mixed.joined import MixedSession
from qcompiler.options import Options
from qcompiler.report.measure import Sqnr
from qcompiler.runtime import Program
from tests.helpers.exact_members import Feed, Member, data_of, model_of, weight_of
from tests.helpers.mixed_members import KINDS, SCALER, learned

FAST = Options(level=0, mixed=True)
MARGIN = 3.0
"""Decibels by which roundings that fall otherwise on the machine may differ from those of the quantized graph."""
LAYOUTS = {
    "detector": "IF", "normalized": "IF", "in_the_middle": "IFI", "in_sequence": "IFIFI", "around": "IFI",
    "loop": "IFI", "trees": "IF",
}  # fmt: skip


def compiled(member: Member, options: Options = FAST) -> Compiled:
    return qcompiler.compile(member.model, data=member.calibration, options=options, for_onnx=False)


def mixed_of(result: Compiled) -> MixedProgram:
    assert result.mixed is not None
    return result.mixed


def layout(program: MixedProgram) -> str:
    return "".join("I" if piece.is_segment else "F" for piece in program.pieces)


def judge(member: Member, result: Compiled, *, absolute: bool = False) -> MixedProgram:
    """The program, if its outputs come in the model's order, of its types and shapes, and are as near to it as the
    quantized graph is in onnxruntime (a grid that calibration left too small shows there, too), or, ``absolute``, as
    the member says.
    """
    program = MixedProgram.load(mixed_of(result).to_bytes())
    session, real, graph = MixedSession(program), Runner(member.model), Runner(result.graph)
    found, bound = Sqnr(), Sqnr()
    same: dict[str, list[bool]] = {}
    for feed in member.trial:
        expected, got = real.run(feed), session.run(feed)
        assert [*expected] == [*got]
        for name, value in expected.items():
            assert got[name].dtype == value.dtype
            if name in member.wanted:
                assert got[name].shape == value.shape
                same.setdefault(name, []).extend(np.ravel(got[name] == value).tolist())
        found.add(expected, got)
        bound.add(expected, graph.run(feed))
    for name, least in member.wanted.items():
        if least <= 1:
            assert np.mean(same[name]) >= least, name
        else:
            assert found.db()[name] >= (least if absolute else bound.db()[name] - MARGIN), name
    return program


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_a_member_of_each_kind_is_as_near_to_its_float_model_as_any(kind: str, seed: int) -> None:
    member = KINDS[kind](np.random.default_rng(seed))
    program = judge(member, compiled(member))
    assert layout(program) == LAYOUTS[kind]
    assert program.integer_share is not None
    assert program.integer_share > 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_of_each_kind_keeps_its_figure(kind: str) -> None:
    member = KINDS[kind](np.random.default_rng(33319))
    judge(member, compiled(member), absolute=True)


def test_the_same_model_gives_the_same_bytes_at_every_level() -> None:
    for options in (FAST, Options(mixed=True)):
        first, second = (mixed_of(compiled(KINDS["normalized"](np.random.default_rng(3)), options)) for _ in range(2))
        assert first.to_bytes() == second.to_bytes()


def test_a_model_of_integers_alone_has_no_mixed_program_and_the_program_that_it_had() -> None:
    text = "g (float[N, 8] x) => (float[N, 8] y) { a = MatMul(x, w) y = Relu(a) }"
    member = Member(model_of(text, {"w": np.eye(8, dtype=np.float32)}), [{"x": np.ones((2, 8), np.float32)}], [])
    plain, strict = compiled(member), compiled(member, Options(level=0))
    assert (plain.mixed, strict.mixed) == (None, None)
    assert plain.program.to_bytes() == strict.program.to_bytes()


def test_a_mixed_program_is_asked_for() -> None:
    result = compiled(KINDS["normalized"](np.random.default_rng(0)), Options(level=0))
    assert result.mixed is None
    with pytest.raises(NoIntegerFormError, match=r"no integer form for 1 node\(s\): 'Normalizer_best' \(Normalizer\)"):
        result.program  # noqa: B018


def test_a_model_of_which_nothing_can_be_integer_is_refused() -> None:
    model = model_of("g (float[N, 8] x) => (int64[2, M] i) { i = NonZero(x) }", {})
    with pytest.raises(UnsupportedError, match=r"'NonZero_i' \(NonZero\).*; nothing else in the model"):
        compiled(Member(model, [{"x": np.ones((2, 8), np.float32)}], [])).mixed  # noqa: B018


def _projected(rng: np.random.Generator, body: str, result: str, constants: Mapping[str, object]) -> Member:
    """Layers around ``body``, which makes ``z`` of ``r``, both [N, 64]."""
    text = f"g (float[N, 24] x) => ({result} y) {{ a = MatMul(x, u)  r = Relu(a)  {body}  y = MatMul(z, v) }}"
    known = {"u": weight_of(rng, 24, 64), "v": weight_of(rng, 64, 8), **constants}
    feeds: list[Feed] = [{"x": data_of(rng, rows, 24)} for rows in (3, 3, 3, 3, 1, 5)]
    return Member(model_of(text, known), feeds[:4], feeds[4:], {"y": 18.0})


def test_what_a_loop_takes_from_outside_crosses_to_it() -> None:
    member = KINDS["loop"](np.random.default_rng(5))
    program = judge(member, compiled(member))
    assert len(program.pieces[1].inputs) == 1  # read at its start, and in its body
    assert [each.op for each in program.outside] == ["Loop"]


def test_sequences_stay_outside_and_may_pass_by_a_segment() -> None:
    rng = np.random.default_rng(0)
    body = """q = SplitToSequence<axis = 1>(r, half)  e = SequenceAt(q, zero)  b = MatMul(e, p)  f = Relu(b)
        g0 = MatMul(f, t)  s = SequenceInsert(q, g0)  k = SequenceAt(s, two)  z = Concat<axis = 1>(k, k)"""
    constants = {
        "p": weight_of(rng, 32, 256), "t": weight_of(rng, 256, 32), "half": np.array(32), "zero": np.array(0),
        "two": np.array(2),
    }  # fmt: skip
    member = _projected(rng, body, "float[N, 8]", constants)
    program = judge(member, compiled(member))
    assert layout(program).startswith("IFIF")
    crossing = {*program.pieces[1].outputs} & {*program.pieces[3].inputs}
    assert "q" in crossing
    assert not any("q" in piece.inputs for piece in program.pieces if piece.is_segment)


def test_a_number_of_rows_that_is_data_may_be_none() -> None:
    """What enters a segment without any element leaves it without any."""
    rng = np.random.default_rng(1)
    body = """m = ReduceMax<axes = [1], keepdims = 0>(r)  b = Greater(m, least)  n = NonZero(b)  j = Squeeze(n, zero)
        h = Gather<axis = 0>(r, j)  f = MatMul(h, p)  z = Relu(f)"""
    constants = {"p": weight_of(rng, 64, 64), "least": np.float32(1), "zero": np.array([0])}
    member = _projected(rng, body, "float[M, 8]", constants)
    program = judge(member, compiled(member))
    got = MixedSession(program).run({"x": np.zeros((4, 24), np.float32)})["y"]
    assert got.shape == (0, 8)


def test_sizes_cross_a_border_without_being_data() -> None:
    rng = np.random.default_rng(2)
    text = f"""g (float[N, T, 24] x) => (float[N, M] y) {{ a = MatMul(x, u)  r = Relu(a)  d = {SCALER} (r)  s = Shape(d)
          n = Gather(s, zero)
        nv = Unsqueeze(n, zeros)  to = Concat<axis = 0>(nv, minus)  m = MatMul(d, v)  y = Reshape(m, to) }}"""
    constants = {
        "u": weight_of(rng, 24, 64), "v": weight_of(rng, 64, 64), "zero": np.array(0), "zeros": np.array([0]),
        "minus": np.array([-1]),
    }  # fmt: skip
    feeds: list[Feed] = [{"x": data_of(rng, n, t, 24)} for n, t in ((2, 5), (2, 5), (2, 6), (3, 7), (1, 2))]
    member = Member(learned(model_of(text, constants)), feeds[:3], feeds[3:], {"y": 18.0})
    program = judge(member, compiled(member))
    assert layout(program) == "IFI"


def test_outputs_may_be_constants_sizes_and_of_other_float_types() -> None:
    rng = np.random.default_rng(3)
    text = """g (float16[N, 24] x) => (int64[2] s, float[3] k, float16[N, 24] b, int64[N, 1] i) { f = Cast<to = 1>(x)
        s = Shape(x)  a = MatMul(f, u)  r = Relu(a)  k = Identity(c)  t = ai.onnx.ml.Normalizer(r)
        i = ArgMax <axis = 1> (t)  b = Cast<to = 10>(t) }"""
    constants = {"u": weight_of(rng, 24, 24), "c": weight_of(rng, 3)}
    feeds: list[Feed] = [{"x": data_of(rng, 2, 24).astype(np.float16)} for _ in range(4)]
    member = Member(model_of(text, constants), feeds[:3], feeds[3:], {"s": 1.0, "k": 40.0, "b": 18.0})
    judge(member, compiled(member))


def test_segments_are_programs_of_the_machine_and_keep_their_grids_across_a_border() -> None:
    """What leaves a segment as codes enters the next one as the same codes."""
    member = KINDS["around"](np.random.default_rng(7))
    program = mixed_of(compiled(member))
    first, last = (Program.load(piece.content) for piece in program.pieces if piece.is_segment)
    leaving = {port.name: (port.scale, port.zero_point) for port in first.outputs}
    entering = {port.name: (port.scale, port.zero_point) for port in last.inputs}
    shared = leaving.keys() & entering.keys()
    assert shared
    assert all(leaving[name] == entering[name] for name in shared)
    assert program.pieces[0].content == first.to_bytes()
