"""``python -m qcompiler.runtime.warm``: compile the machine for this CPU now, so that no later run has to wait for it."""

from __future__ import annotations

from time import perf_counter

from .cpu.features import cpu_name
from .cpu.isa import best_isa
from .run.machine_code import cache_folder, load


def warm() -> float:
    """Compile the machine, or load it from the cache; the seconds that took."""
    start = perf_counter()
    load()
    return perf_counter() - start


def main() -> None:
    """Compile, and say where the machine code is kept."""
    seconds = warm()
    where = cache_folder() or "nowhere: the user's cache folder cannot be written"
    print(f"machine for {cpu_name()} ({best_isa().name.lower()}) ready after {seconds:.1f} s, kept in {where}")  # noqa: T201


if __name__ == "__main__":
    main()
