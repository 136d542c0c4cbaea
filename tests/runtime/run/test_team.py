"""Runs that threads share: the same bits, no run that waits for ever, no thread that outlives its session."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompiler.runtime.binding.division import DIVIDERS, activations
from qcompiler.runtime.errors import FeedError, MachineError
from qcompiler.runtime.instructions.opcodes import BY_NAME
from qcompiler.runtime.machine.control import ASLEEP, DONE, ENDED, FAULT, LOOKING, TAKEN
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.run.pace import Pace
from qcompiler.runtime.run.team import Team
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one
from tests.runtime.kernels.test_recurrent import TANH, Net
from tests.runtime.programs import two_layers

ROOT = Path(__file__).parents[3]
MANY = 20_000
"""Runs within which a helper finds a core, however busy the machine."""


def layers(size: int, channels: int, seed: int, index: bool = False) -> Program:
    """x float [size, size, channels] -> 3x3 convolution -> table -> depthwise -> 1x1 -> sum with the first; big enough
    to share."""
    rng = np.random.default_rng(seed)
    b = ProgramBuilder()
    shape = (1, size, size, channels)
    x, c, t, d, p, y = (b.buffer(shape, np.uint8, name) for name in "xctdpy")
    b.input("x", x, np.float32, shape, scale=0.05, zero_point=120)

    def conv(node: str, source: Any, target: Any, kernel: int, groups: int) -> None:
        weights = rng.integers(-127, 128, (kernel, kernel, channels // groups, channels)).astype(np.int8)
        b.emit(
            "conv", node=node, x=source, w=weights, bias=rng.integers(-9999, 9999, channels),
            m=np.full(channels, 1 << 30), n=np.full(channels, 41), y=target, batch=1, in_h=size, in_w=size,
            in_c=channels, out_h=size, out_w=size, out_c=channels, kernel_h=kernel, kernel_w=kernel,
            pad_top=kernel // 2, pad_left=kernel // 2, groups=groups, x_zp=100, y_zp=100,
        )  # fmt: skip

    conv("conv", x, c, 3, 1)
    b.emit("table", node="table", x=c, table=np.arange(256, dtype=np.uint8)[::-1], y=t, count=size * size * channels)
    conv("depthwise", t, d, 3, channels)
    conv("pointwise", d, p, 1, 1)
    b.emit(
        "binary", node="add", kind=0, a=p, b=c, y=y, dims=[size * size * channels], a_strides=[1], b_strides=[1],
        a_zp=100, b_zp=100, a_m=1 << 20, b_m=1 << 20, n=21, y_zp=128,
    )  # fmt: skip
    if index:
        i, g = b.buffer((2,), np.int64), b.buffer((2,), np.uint8)
        b.input("i", i, np.int64, (2,))
        b.emit("gather", node="gather", x=y, indices=i, y=g, outer=1, axis=size * size * channels, inner=1, count=2)
        b.output("g", g, np.uint8, (2,))
    b.output("y", y, np.float32, shape, scale=0.1, zero_point=128)
    return b.program()


def feed(program: Program, seed: int) -> dict[str, Any]:
    port = program.inputs[0]
    return {
        port.name: np.random.default_rng(seed)
        .normal(size=[5 if isinstance(s, str) else s for s in port.shape])
        .astype(np.float32)
    }


def arena_of(session: Session) -> Any:
    return next(iter(session._arenas().values()))


def helped(arena: Any) -> int:
    """Parts that helpers have done."""
    return int(arena._facts[DONE // 8])


@pytest.fixture(autouse=True)
def always_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers are asked in every run, however long that takes."""
    monkeypatch.setattr(Pace, "asks", lambda _: True)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_shared_runs_give_the_same_bits(threads: int) -> None:
    program = layers(32, 48, 0)
    alone, together = Session(program, num_threads=1), Session(program, num_threads=threads)
    expected = [alone.raw(feed(program, seed)) for seed in range(20)]
    for run in range(MANY):
        np.testing.assert_array_equal(together.raw(feed(program, run % 20))["y"], expected[run % 20]["y"])
        if run > 100 and helped(arena_of(together)):
            break
    assert arena_of(together).is_shared
    assert helped(arena_of(together)) > 0
    assert not arena_of(alone).is_shared


def test_small_programs_wake_nobody() -> None:
    session = Session(two_layers(), num_threads=2)
    session.run(feed(session.program, 0))
    assert not arena_of(session).is_shared
    assert session._team is not None
    assert not session._team.threads


def recurrent() -> tuple[Program, dict[str, Any]]:
    """One LSTM that updates its state in place, and a feed."""
    net = Net(4, 7, steps=6, batch=2, inputs=8, hidden=24)
    cells = np.random.default_rng(7).integers(-(2**17), 2**17, (2, 24)).astype(np.int32)
    outputs = {"y": ((6, 2, 2, 24), np.uint8), "h": ((2, 24), np.uint8), "c": ((2, 24), np.int32)}
    return build_one("lstm", {"x": net.x, "h": net.h, "c": cells}, outputs, table_h=TANH, **net.fields(0))


def test_eight_threads_share_sessions() -> None:
    """Convolutions on two sizes, a symbolic batch, an LSTM; alone, shared by two and by three threads."""
    lstm, state = recurrent()
    cases = [
        (program, [feed(program, seed) for seed in range(3)])
        for program in (layers(32, 48, 1), layers(40, 32, 2), two_layers())
    ]
    cases.append((lstm, [{**state, "x": np.roll(state["x"], shift, axis=0)} for shift in range(3)]))
    sessions = [(Session(program, num_threads=threads), feeds) for program, feeds in cases for threads in (1, 2, 3)]
    expected = [
        [Session(program, num_threads=1).raw(one) for one in feeds] for program, feeds in cases for _ in range(3)
    ]
    failures: list[str] = []

    def work(thread: int) -> None:
        for run in range(500):
            which, seed = (run + thread) % len(sessions), (run * 7 + thread) % 3
            session, feeds = sessions[which]
            result = session.raw(feeds[seed])
            if any(not np.array_equal(result[name], value) for name, value in expected[which][seed].items()):
                failures.append(f"thread {thread}, run {run}, session {which}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_error_ends_a_shared_run_and_the_next_one_is_fine() -> None:
    program = layers(32, 48, 3, index=True)
    session = Session(program, num_threads=2)
    good = {**feed(program, 0), "i": np.array([0, 5])}
    expected = Session(program).raw(good)
    for _ in range(5):
        with pytest.raises(FeedError, match="gather: an index is out of range"):
            session.run({**good, "i": np.array([0, 1 << 40])})
        np.testing.assert_array_equal(session.raw(good)["g"], expected["g"])


def test_an_error_of_a_helper_ends_the_run_instead_of_hanging_it() -> None:
    program = layers(32, 48, 5)
    expected = Session(program).raw(feed(program, 0))
    session = Session(program, num_threads=2)

    def attend(post: int, _helper: int, _patience: int) -> int:
        """Take a part that will never be done."""
        offer = ctypes.c_int64.from_address(post)
        while offer.value <= LOOKING:
            time.sleep(0)
        word = ctypes.c_int64.from_address(offer.value)
        offer.value = TAKEN
        while word.value == ENDED:
            time.sleep(0)
        word.value += 1
        return FAULT

    session._team = Team(1, attend)

    def run_often() -> None:
        for _ in range(MANY):
            session.run(feed(program, 0))

    with pytest.raises(MachineError, match="stopped"):
        run_often()
    np.testing.assert_array_equal(session.raw(feed(program, 0))["y"], expected["y"])


def test_an_interrupted_run_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    program = layers(32, 48, 4)
    session = Session(program, num_threads=2)
    expected = session.raw(feed(program, 0))
    arena = arena_of(session)

    def interrupt(_posts: int, _helpers: int) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arena, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.run(feed(program, 0))
    before = helped(arena)
    for _ in range(MANY):
        np.testing.assert_array_equal(session.raw(feed(program, 0))["y"], expected["y"])
        if helped(arena) > before:
            return
    pytest.fail("the helper never came again")


def test_a_helper_that_sleeps_is_woken() -> None:
    program = layers(32, 48, 4)
    session = Session(program, num_threads=2)
    expected, arena = session.raw(feed(program, 0)), arena_of(session)
    assert session._team is not None
    for _ in range(MANY):
        while session._team._state.posts[0] != ASLEEP:
            time.sleep(0.001)
        before = helped(arena)
        np.testing.assert_array_equal(session.raw(feed(program, 0))["y"], expected["y"])
        if helped(arena) > before:
            return
    pytest.fail("the helper never came in time")


def test_helpers_end_with_their_session() -> None:
    session = Session(layers(32, 48, 5), num_threads=3)
    session.run(feed(session.program, 0))
    assert session._team is not None
    helpers = list(session._team.threads)
    assert len(helpers) == 2
    assert all(helper.is_alive() for helper in helpers)
    del session
    gc.collect()
    for helper in helpers:
        helper.join(5)
        assert not helper.is_alive()


def test_a_process_ends_while_helpers_sleep() -> None:
    code = (
        "from tests.runtime.run.test_team import *; p = layers(32, 48, 6); s = Session(p, num_threads=2); "
        "s.run(feed(p, 0)); "
        "t = threading.Thread(target=lambda: [s.run(feed(p, 0)) for _ in range(50)], daemon=True); t.start(); "
        "s.run(feed(p, 0)); print('end')"
    )
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "end", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    """Also when the team was at work for another thread when it was forked; a closed session stays closed."""
    code = """
from tests.runtime.run.test_team import *
Pace.asks = lambda _: True
program = layers(32, 48, 7)
session, closed = Session(program, num_threads=2), Session(program, num_threads=2)
for one in (session, closed):
    expected = one.raw(feed(program, 0))["y"]
closed.close()
session._team._free.acquire()
child = os.fork()
if child:
    session._team._free.release()
before, helps = helped(arena_of(session)), False
for _ in range(MANY):
    if not np.array_equal(session.raw(feed(program, 0))["y"], expected):
        sys.exit(1)
    if helped(arena_of(session)) > before and (child or session._team.threads[0].is_alive()):
        helps = True
        break
try:
    closed.run(feed(program, 0))
except MachineError:
    pass
else:
    sys.exit(2)
if child:
    print("end", helps, os.waitpid(child, 0)[1])
else:
    sys.exit(0 if helps else 3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "end True 0"), done.stderr


def test_the_default_is_a_thread_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        session = Session(layers(32, 48, 8))
        assert session._threads == threads
        assert session.memory().scratch == threads * Session(layers(32, 48, 8), num_threads=1).memory().scratch
        assert Session(two_layers()).memory(batch=1) == Session(two_layers(), num_threads=1).memory(batch=1)


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(MachineError, match="num_threads is 0; it must be at least 1"):
        Session(two_layers(), num_threads=0)


@pytest.mark.parametrize("name", sorted(DIVIDERS))
def test_dividing_moves_every_activation(name: str) -> None:
    """An opcode that gets an operand must teach its divider to move it; until then it is not divided."""
    assert activations(BY_NAME[name]) == DIVIDERS[name][1]
