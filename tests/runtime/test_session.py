"""Sessions: borders, dimensions, feeds, threads, traces, memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.errors import FeedError, MachineError, ProgramError
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.session import Session
from tests.runtime.programs import HIDDEN, two_layers

X = np.random.default_rng(1).normal(size=(5, 40)).astype(np.float32)


def test_the_border_rounds_half_to_even_and_saturates() -> None:
    b = ProgramBuilder()
    x, y = b.buffer((6,), np.uint8), b.buffer((6,), np.uint8)
    b.input("x", x, np.float32, (6,), scale=0.5, zero_point=10)
    b.emit("move", x=x, y=y, dims=[6], x_strides=[1], y_strides=[1])
    b.output("y", y, np.float32, (6,), scale=0.5, zero_point=10)
    session = Session(b.program())
    feed = {"x": np.array([0.25, 0.75, -0.25, -0.75, 3.4e38, -3.4e38], np.float32)}
    assert session.raw(feed)["y"].tolist() == [10, 12, 10, 8, 255, 0]
    assert session.run(feed)["y"].tolist() == [0.0, 1.0, 0.0, -1.0, 122.5, -5.0]


@pytest.mark.parametrize(
    ("buffer", "dtype", "scale"),
    [(np.int32, np.int64, None), (np.int32, np.float32, 0.5), (np.uint8, np.float32, None)],
)
def test_inputs_must_fit_their_buffers(buffer: Any, dtype: Any, scale: float | None) -> None:
    b = ProgramBuilder()
    x = b.buffer((2,), buffer)
    b.input("x", x, dtype, (2,), scale=scale)
    b.output("y", x, buffer, (2,))
    with pytest.raises(ProgramError, match="input 'x' is "):
        Session(b.program())


def test_a_batch_is_its_rows() -> None:
    session = Session(two_layers())
    whole = session.run({"x": X})
    for i in range(len(X)):
        for name, value in session.run({"x": X[i : i + 1]}).items():
            np.testing.assert_array_equal(value[0], whole[name][i])


@pytest.mark.parametrize(("feeds", "message"), [
    ({}, r"input 'x' is missing; it is float32\['batch', 40\]"),
    ({"x": X, "z": X}, r"unknown input 'z'; the program has \['x'\]"),
    ({"x": X.astype(np.float64)}, "input 'x' is float64; it must be float32"),
    ({"x": X[0]}, "has 1 dimensions; it must have 2"),
    ({"x": X[:, :39]}, "axis 1 must be 40"),
    ({"x": X[:0]}, "empty along axis 0"),
    ({"x": np.full_like(X, np.nan)}, "holds NaN or infinity"),
    ({"x": np.full_like(X, -np.inf)}, "holds NaN or infinity"),
])
def test_wrong_feeds(feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(FeedError, match=message) as caught:
        Session(two_layers()).run(feeds)
    assert "\n" not in str(caught.value)


def test_dimensions_must_agree() -> None:
    b = ProgramBuilder()
    n = b.dim("n")
    x, z, y = (b.buffer((n,), np.uint8) for _ in range(3))
    b.input("x", x, np.uint8, (n,))
    b.input("z", z, np.uint8, (n,))
    b.emit("binary", kind=4, a=x, b=z, y=y, dims=[n], a_strides=[1], b_strides=[1])
    b.output("y", y, np.uint8, (n,))
    session = Session(b.program())
    assert session.run({"x": np.array([1, 9], np.uint8), "z": np.array([5, 6], np.uint8)})["y"].tolist() == [5, 9]
    with pytest.raises(FeedError, match="'n' is 3, but another input says 2"):
        session.run({"x": np.zeros(2, np.uint8), "z": np.zeros(3, np.uint8)})


def test_binding_refuses_dimensions() -> None:
    program = two_layers()
    for dims, message in (
        ({}, "has no value"),
        ({"batch": -1}, "must be between 0"),
        ({"batch": 1, "w": 2}, "unknown dimension 'w'"),
    ):
        with pytest.raises(ProgramError, match=message):
            bind(program, **dims)
    assert bind(program, batch=2) is bind(program, batch=2)


def test_memory_is_known_before_running() -> None:
    memory = Session(two_layers()).memory(batch=8)
    assert memory.peak_lower_bound <= memory.arena
    assert memory.peak_lower_bound == 8 * 40 + 8 * HIDDEN  # x and h, each a multiple of 64 bytes
    assert memory.constants > 40 * HIDDEN


def test_trace_gives_every_named_buffer() -> None:
    session = Session(two_layers())
    codes = session.trace({"x": X})
    assert set(codes) == {"x_codes", "h", "t", "y_codes"}
    np.testing.assert_array_equal(codes["t"], 255 - codes["h"])
    np.testing.assert_array_equal(codes["y_codes"], session.raw({"x": X})["y"])


def test_trace_is_in_the_order_of_onnx_axes() -> None:
    b = ProgramBuilder()
    x, y = b.buffer((1, 2, 3, 4), np.uint8, "x"), b.buffer((1, 3, 4, 2), np.uint8, "y", perm=(0, 3, 1, 2))
    b.input("x", x, np.uint8, (1, 2, 3, 4))
    b.emit("move", x=x, y=y, dims=[3, 4, 2], x_strides=[4, 1, 12], y_strides=[8, 2, 1])
    b.output("y", y, np.uint8, (1, 3, 4, 2))
    feed = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    codes = Session(b.program()).trace({"x": feed})
    np.testing.assert_array_equal(codes["y"], feed)


def test_profile_lists_every_instruction() -> None:
    lines = Session(two_layers()).profile({"x": X})
    assert [line[:2] for line in lines] == [("gemm", "first"), ("table", "act"), ("gemm", "second")]
    assert all(line[2] > 0 for line in lines)


def test_many_threads_share_a_session() -> None:
    session = Session(two_layers())
    feeds = [{"x": np.random.default_rng(i).normal(size=(1 + i % 3, 40)).astype(np.float32)} for i in range(8)]
    expected = [session.raw(feed) for feed in feeds]
    failures: list[str] = []

    def work(which: int) -> None:
        for _ in range(100):
            result = session.raw(feeds[which])
            if any(not np.array_equal(result[name], expected[which][name]) for name in result):
                failures.append(f"thread {which} got another result")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_results_stay_when_the_session_runs_again() -> None:
    session = Session(two_layers())
    first = session.run({"x": X})
    kept = {name: value.copy() for name, value in first.items()}
    session.run({"x": -X})
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)


def test_inputs_and_outputs_can_cross_as_codes() -> None:
    session = Session(two_layers())
    expected, raw = session.run({"x": X}), session.raw({"x": X})
    codes = session.quantize("x", X)
    assert codes.dtype == np.uint8
    for feeds, names in (({"x": codes}, "x"), ({"x": codes}, ("x", "y")), ({"x": X}, ["y"]), ({"x": X}, {"t", "y"})):
        found = session.run(feeds, codes=names)
        np.testing.assert_array_equal(found["y"], raw["y"] if "y" in names else expected["y"])
        assert found["y"].dtype == (raw["y"] if "y" in names else expected["y"]).dtype
        np.testing.assert_array_equal(found["t"], expected["t"])
    given = np.empty((5, 10), np.uint8)
    assert session.run({"x": codes}, out={"y": given}, codes=("x", "y"))["y"] is given
    np.testing.assert_array_equal(given, raw["y"])
    np.testing.assert_array_equal(session.run({"x": X})["y"], expected["y"])
    assert len({id(arena) for arena in session._arenas().values()}) == 1, "they share their memory"


@pytest.mark.parametrize(("feeds", "codes", "message"), [
    ({"x": X.astype(np.uint8)}, (), "input 'x' is uint8; it must be float32"),
    ({"x": X}, "x", "input 'x' is float32; its codes are uint8"),
    ({"x": X.astype(np.int8)}, "x", "input 'x' is int8; its codes are uint8"),
    ({"x": X}, ("x", "z"), r"codes names 'z'; the inputs and outputs are \['t', 'x', 'y'\]"),
])
def test_wrong_codes(feeds: dict[str, Any], codes: Any, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        Session(two_layers()).run(feeds, codes=codes)


def test_columns_with_grids_of_their_own_cross_as_codes() -> None:
    b = ProgramBuilder()
    x, y = (b.buffer((3, 4, 2), np.int8, name) for name in "xy")
    scales, zeros = [0.5, 0.25, 2.0, 1.0], [0, -100, 7, 100]
    b.input("x", x, np.float32, (3, 4, 2), scale=scales, zero_point=zeros, axis=1)
    b.emit("move", x=x, y=y, dims=[24], x_strides=[1], y_strides=[1])
    b.output("y", y, np.float32, (3, 4, 2), scale=scales, zero_point=zeros, axis=1)
    session, values = Session(b.program()), np.random.default_rng(0).normal(0, 40, (3, 4, 2)).astype(np.float32)
    codes = session.raw({"x": values})["y"]
    np.testing.assert_array_equal(session.quantize("x", values), codes)
    np.testing.assert_array_equal(session.run({"x": codes}, codes=["x", "y"])["y"], codes)
    np.testing.assert_array_equal(session.run({"x": codes}, codes="x")["y"], session.run({"x": values})["y"])


def test_what_cannot_be_quantized_is_one_clear_line() -> None:
    session = Session(two_layers())
    for name in ("t", "z"):
        with pytest.raises(FeedError, match=rf"'{name}' is no quantized input; those are \['x'\]"):
            session.quantize(name, [1.0])
    with pytest.raises(FeedError, match="input 'x' holds NaN or infinity"):
        session.quantize("x", [1.0, np.nan])


def test_arenas_are_kept_for_the_last_shapes_whatever_crosses_as_codes() -> None:
    session = Session(two_layers())
    expected = session.run({"x": X})["y"]
    for rows in (1, 2, 3, 4, 5, 1, 2):
        codes = session.quantize("x", X[:rows])
        np.testing.assert_array_equal(session.run({"x": X[:rows]})["y"], expected[:rows])
        np.testing.assert_array_equal(session.run({"x": codes}, codes="x")["y"], expected[:rows])
        assert len({id(arena) for arena in session._arenas().values()}) <= 4


def test_outputs_can_be_written_into_arrays_that_are_given() -> None:
    session = Session(two_layers())
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)}
    expected, given = session.run(feeds)["y"], np.empty((3, 10), np.float32)
    assert session.run(feeds, out={"y": given})["y"] is given
    np.testing.assert_array_equal(given, expected)
    frozen = np.empty((3, 10), np.float32)
    frozen.flags.writeable = False
    for wrong in (np.empty((3, 11), np.float32), np.empty((3, 10)), np.empty((10, 3), np.float32).T, frozen, [0.0]):
        with pytest.raises(FeedError, match="the array for output 'y' must be a contiguous one of float32"):
            session.run(feeds, out={"y": wrong})  # type: ignore[dict-item]
    with pytest.raises(FeedError, match="unknown output 'z'"):
        session.run(feeds, out={"z": given})


def test_a_closed_session_ends_its_threads_and_runs_no_more() -> None:
    before = threading.active_count()
    with Session(two_layers(), num_threads=2) as session:
        session.run({"x": np.zeros((2, 40), np.float32)})
    assert threading.active_count() <= before
    with pytest.raises(MachineError, match="closed"):
        session.run({"x": np.zeros((2, 40), np.float32)})


def test_instruction_sets_have_names() -> None:
    assert Session(two_layers(), isa="portable").isa.name == "PORTABLE"
    with pytest.raises(MachineError, match="there is no instruction set 'neon'; choose plain, portable, avx2"):
        Session(two_layers(), isa="neon")


def test_a_session_knows_its_inputs_and_outputs() -> None:
    session = Session(two_layers())
    ports = [(port.name, port.dtype, port.shape) for port in (*session.inputs, *session.outputs)]
    assert ports == [
        ("x", "float32", ("batch", 40)),
        ("y", "float32", ("batch", 10)),
        ("t", "uint8", ("batch", HIDDEN)),
    ]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        (None, "the inputs must be a dictionary of arrays by name, not NoneType"),
        (np.zeros(3), "the inputs must be a dictionary of arrays by name, not ndarray"),
        ({"x": [[1.0], [1.0, 2.0]]}, "input 'x' is no array: its rows have different lengths"),
    ],
)
def test_what_is_no_array_is_one_clear_line(feeds: Any, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        Session(two_layers()).run(feeds)


def test_a_prepared_session_plans_nothing_in_its_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    session, plain = Session(two_layers()), Session(two_layers())
    assert session.prepare({"x": X.shape}) == plain.memory_for({"x": X})
    expected = plain.run({"x": X})

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr("qcompiler.runtime.session.bind", refuse)
    for name, value in session.run({"x": X}).items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(AssertionError, match="planned again"):
        session.run({"x": X[:2]})


@pytest.mark.parametrize(("shapes", "message"), [
    (None, "takes numbers alone"),
    ({"x": ("batch", 40)}, "takes numbers alone"),
    ({"x": (3, 39)}, "axis 1 must be 40"),
    ({}, "input 'x' is missing"),
    ({"x": (3, 40), "z": (1,)}, "unknown input 'z'"),
])  # fmt: skip
def test_shapes_that_a_program_does_not_take_cannot_be_prepared(shapes: Any, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        Session(two_layers()).prepare(shapes)


def test_sessions_of_one_program_share_its_packed_weights() -> None:
    program = two_layers()
    first = Session(program)
    first.run({"x": X})
    packed = {key: id(value) for key, value in program.packed.items()}
    second = Session(first.program)
    second.run({"x": X})
    assert packed
    assert {key: id(value) for key, value in program.packed.items()} == packed
