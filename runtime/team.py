"""The helper threads of a session.

A helper sleeps in Python on a queue. For a run it gets the arena and enters compiled code without the GIL, where it takes parts of
instructions until the run is over. Nobody waits for a helper that has not come: the leader runs what others do not take.
While a session's helpers are busy, its other runs go on alone.
"""

from __future__ import annotations

import os
import threading
import weakref
from queue import SimpleQueue
from time import sleep
from typing import Protocol

_LOOKS_BEFORE_NAPS = 50
_NAP_SECONDS = 0.0001
_FAREWELL_SECONDS = 1.0


def yield_core() -> None:
    """Let another thread have the core, if one waits for it: on a busy machine the very one that this thread waits for."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        sleep(0)


class Shared(Protocol):
    """A run that threads can share."""

    def open(self) -> None:
        """Let helpers wait for the run to begin."""

    def close(self) -> None:
        """Let helpers go."""

    def help(self, helper: int) -> int:
        """Do parts of the run; not 0: it goes on, but had nothing to do for a while."""

    def lead(self) -> int:
        """Do the run, with whoever helps."""


_Queue = SimpleQueue[Shared | None]


def _serve(queue: _Queue, helper: int) -> None:
    while True:
        run = queue.get()
        if run is None:
            return
        idle = 0
        while run.help(helper):
            idle += 1
            if idle < _LOOKS_BEFORE_NAPS:
                yield_core()
            else:
                sleep(_NAP_SECONDS)
        del run  # or its memory would live until the next one


def _dismiss(queues: list[_Queue], threads: list[threading.Thread]) -> None:
    """End the helpers, before the interpreter ends."""
    for queue in queues:
        queue.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(_FAREWELL_SECONDS)


class Team:
    """Threads that help one run at a time; they start with the first run and end with the team."""

    def __init__(self, helpers: int) -> None:
        self._queues: list[_Queue] = [SimpleQueue() for _ in range(helpers)]
        self._threads: list[threading.Thread] = []
        self._free = threading.Lock()
        weakref.finalize(self, _dismiss, self._queues, self._threads)

    def run(self, shared: Shared) -> int | None:
        """What ``shared.lead()`` returns; None, and nothing was run, when the team is busy."""
        if not self._free.acquire(blocking=False):
            return None
        try:
            self._start()
            shared.open()
            for queue in self._queues:
                if queue.empty():  # else the helper has yet to come for an earlier run
                    queue.put(shared)
            return shared.lead()
        finally:
            shared.close()
            self._free.release()

    def _start(self) -> None:
        for helper in range(len(self._threads), len(self._queues)):
            thread = threading.Thread(target=_serve, args=(self._queues[helper], helper), name="qcompiler helper", daemon=True)
            thread.start()
            self._threads.append(thread)
