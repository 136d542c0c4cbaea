"""Where independent pieces of work run: here, in processes of this machine, or on a Dask cluster.

    with open_executor("processes:2") as executor:
        for result in executor.map(solve, problems): ...

Items and function must be picklable; the function must be defined at module level. Results come in the order of the
items, as they become known.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self, TypeVar

from qcompiler.errors import OptionError

__all__ = ["EXECUTORS", "Executor", "Processes", "Serial", "open_executor"]

EXECUTORS = "serial, processes, processes:COUNT, dask:ADDRESS"
"""Names of executors, for messages."""

AHEAD = 2
"""Items in work per worker: enough to keep it busy, few enough to hold in memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(ABC):
    """Maps a function over items that have nothing to do with each other."""

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, which are drawn as needed; the function's exceptions are raised here."""

    @abstractmethod
    def close(self) -> None:
        """Let go of workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Serial(Executor):
    """One after the other, in this process."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Executor.map`."""
        return map(function, items)

    def close(self) -> None:
        """There is nothing to let go of."""


class Processes(Executor):
    """In processes of this machine. They start fresh: a process that has threads must not fork.

    Args:
        count: how many; default: one for each CPU that this process may use.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or _cpus()
        self._pool = ProcessPoolExecutor(self._count, mp_context=get_context("spawn"))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Executor.map`."""
        return _in_order(self._pool.submit, function, items, AHEAD * self._count)

    def close(self) -> None:
        """End the processes; work that has not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


class DaskCluster(Executor):
    """On a Dask cluster.

    Args:
        address: of its scheduler, such as ``tcp://host:8786``.

    Raises:
        OptionError: Dask is not installed, or the scheduler does not answer.
    """

    def __init__(self, address: str) -> None:
        try:
            distributed = importlib.import_module("distributed")
        except ImportError as error:
            raise OptionError("executor 'dask' needs the package distributed: pip install distributed") from error
        try:
            self._client: Any = distributed.Client(address)
        except (OSError, ValueError) as error:
            raise OptionError(f"executor 'dask:{address}': the scheduler does not answer: {error}") from error

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """See `Executor.map`."""
        workers = max(len(self._client.scheduler_info()["workers"]), 1)

        def submit(work: Callable[[Item], Result], item: Item) -> Any:
            return self._client.submit(work, item, pure=False)

        return _in_order(submit, function, items, AHEAD * workers)

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


def _in_order(
    submit: Callable[..., Any], function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Results in order with at most ``ahead`` items in work."""
    rest = iter(items)
    waiting = [submit(function, item) for item in islice(rest, ahead)]
    while waiting:
        result: Result = waiting.pop(0).result()
        waiting += [submit(function, item) for item in islice(rest, 1)]
        yield result


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_executor(text: str) -> Executor:
    """The executor that a text names, see `EXECUTORS`; close it, or use it in a ``with``.

    Raises:
        OptionError: no such executor, or it cannot be reached.
    """
    kind, _, argument = text.partition(":")
    if kind == "serial" and not argument:
        return Serial()
    if kind == "processes" and (not argument or (argument.isdecimal() and int(argument) > 0)):
        return Processes(int(argument) if argument else None)
    if kind == "dask" and argument:
        return DaskCluster(argument)
    raise OptionError(f"unknown executor '{text}'; known: {EXECUTORS}")
