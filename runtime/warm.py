"""``python -m qcompiler.runtime.warm``: have this CPU's machine code ready, so that no later run waits for it.

``--cache-dir FOLDER`` (or the variable ``QCOMPILER_CACHE``) says where it is kept; later runs are told the same, and
need not be able to write there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from .cpu.features import bundled_target
from .cpu.isa import best_isa
from .errors import MachineError
from .run.machine_code import load, places


def warm(cache_dir: str | Path | None = None) -> float:
    """Compile the machine, or load it from where it is; the seconds that took."""
    start = perf_counter()
    load(cache_dir)
    return perf_counter() - start


def main() -> int:
    """Compile, and say where the machine code is kept; 1 where there is none and it cannot be compiled."""
    parser = argparse.ArgumentParser(prog="warm", description="Have the machine code for this CPU ready.")
    parser.add_argument(
        "--cache-dir", type=Path, help="folder for it; default: QCOMPILER_CACHE, or the user's cache folder"
    )
    folder = parser.parse_args().cache_dir
    try:
        seconds = warm(folder)
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    bundle = bundled_target()
    kept = [str(place) for place in places(folder) if place.is_dir()]
    where = (
        f"brought by the installation ({bundle})"
        if bundle
        else f"kept in {kept[0]}"
        if kept
        else "kept nowhere: no folder can be written"
    )
    print(f"machine code ({best_isa().name.lower()}) ready after {seconds:.1f} s, {where}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
