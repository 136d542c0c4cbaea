"""The helper threads of a session.

A helper waits for work in compiled code, looking at its *post*, so that the next run costs it neither Python nor a
system call. When nobody asks for a while it sleeps in Python until the next run wakes it. Nobody waits for a helper
that has not come: the leader runs what others do not take. While a session's helpers are busy with one run, its other
runs go on alone.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

import numpy as np

from ..machine.control import ASLEEP, FAULT, LINE, POST_BYTES, TAKEN
from .pace import Pace

_LOOKS = 5000
"""Polls of an empty mailbox (some 20 ns each) before a helper thread sleeps."""

_FAREWELL_SECONDS = 1.0

_MOST_THREADS = 4

Attend = Callable[[int, int, int], int]


def default_threads() -> int:
    """As many as this process may use cores, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


class Shared(Protocol):
    """A run that threads can share.

    Attributes:
        pace: says whether it is worth it.
    """

    pace: Pace

    def run(self, posts: int, helpers: int) -> int:
        """Run it, with whoever helps of those whose posts these are."""

    def fail(self) -> None:
        """A helper has failed: let the run end, now or at its next part."""


class _State:
    """What helpers and their team know of each other; helpers hold no team, so that it can end."""

    def __init__(self, helpers: int) -> None:
        self.words = np.zeros((helpers + 1) * POST_BYTES // 8, np.int64)
        start = int(self.words.__array_interface__["data"][0])
        self.first = -start % LINE // 8
        self.address = start + 8 * self.first
        self.posts = self.words[self.first :: POST_BYTES // 8][:helpers].data
        self.words[self.first :: POST_BYTES // 8] = ASLEEP
        self.bells = [threading.Lock() for _ in range(helpers)]
        self.runs: set[Shared] = set()
        self.ended = False
        for bell in self.bells:
            bell.acquire()

    def ring(self, helper: int) -> None:
        """Wake a helper, unless it is on its way."""
        if self.bells[helper].locked():
            self.bells[helper].release()


def _serve(state: _State, helper: int, attend: Attend) -> None:
    post = state.address + helper * POST_BYTES
    while True:
        state.bells[helper].acquire()
        if state.ended:
            return
        if attend(post, helper, _LOOKS) == FAULT:
            state.posts[helper] = TAKEN
            for run in list(state.runs):
                run.fail()
            return


def _dismiss(state: _State, threads: list[threading.Thread]) -> None:
    """End the helpers, before the interpreter ends."""
    state.ended = True
    for helper, thread in enumerate(threads):
        state.ring(helper)
        if thread is not threading.current_thread():
            thread.join(_FAREWELL_SECONDS)


class Team:
    """Threads that help one run at a time; they start with the first run and end with the team.

    Args:
        helpers: how many.
        attend: the function in which they wait, `shared_run.attend`.
    """

    def __init__(self, helpers: int, attend: Attend) -> None:
        self._attend, self._count = attend, helpers
        self._gather()
        _TEAMS.add(self)

    def _gather(self) -> None:
        """Be a team whose helpers have not started yet."""
        self._state = _State(self._count)
        self.threads: list[threading.Thread] = []
        self._free = threading.Lock()
        self._end = weakref.finalize(self, _dismiss, self._state, self.threads)

    def close(self) -> None:
        """End the helpers now."""
        self._end()

    def revive(self) -> None:
        """Gather anew in a forked process, which has none of its parent's helpers."""
        if self._end.detach() is not None:
            self._gather()

    def run(self, shared: Shared) -> int:
        """What ``shared.run()`` returns, with helpers where that is faster, alone when the team is busy."""
        asked, start = shared.pace.asks() and self._free.acquire(blocking=False), perf_counter_ns()
        status = self._run_shared(shared) if asked else shared.run(0, 0)
        shared.pace.took(asked, perf_counter_ns() - start)
        return status

    def _run_shared(self, shared: Shared) -> int:
        state = self._state
        try:
            if len(self.threads) < self._count:
                self._start()
            state.runs.add(shared)  # its memory must last as long as a helper may look at it
            for helper, word in enumerate(state.posts):
                if word == ASLEEP:
                    state.ring(helper)
            return shared.run(state.address, self._count)
        finally:
            if TAKEN not in state.posts:
                state.runs.clear()
            self._free.release()

    def _start(self) -> None:
        for helper in range(len(self.threads), self._count):
            thread = threading.Thread(
                target=_serve, args=(self._state, helper, self._attend), name="qcompiler helper", daemon=True
            )
            thread.start()
            self.threads.append(thread)


_TEAMS: weakref.WeakSet[Team] = weakref.WeakSet()


def _revive_all() -> None:
    for team in list(_TEAMS):
        team.revive()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_revive_all)
