"""``python -m qcompiler.runtime.bundle``: makes an installation's machine code, a file per `features.TARGETS`.

A wheel with these files, or a checkout in which `make` has put them, needs no compiler: neither Numba nor LLVM is
loaded. Code of one CPU is made on any other of the same architecture. A target that has code of the present sources is
left alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from .cpu.features import BUNDLES, FEATURES_VARIABLE, NAME_VARIABLE, TARGETS, Cpu
from .errors import MachineError
from .run.image import made_for
from .run.kept_files import keep, kept
from .run.machine_code import code_key, compiled, image_of


def is_current(path: Path) -> bool:
    """Whether a file holds the code of these sources."""
    image = kept(path)
    return image is not None and made_for(image).sources == code_key()


def make(path: Path, cpu: Cpu) -> None:
    """Make one target's code in a process of its own: kernels are compiled for a target fixed at import.

    Raises:
        MachineError: that process has failed.
    """
    environment = {**os.environ, NAME_VARIABLE: cpu.name, FEATURES_VARIABLE: cpu.features}
    package = __package__ or ""
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.bundle", "--here", str(path)], env=environment, check=False
    )
    if done.returncode != 0 or not is_current(path):
        raise MachineError(f"no machine code was made for {path.stem}")


def _make_here(path: Path) -> None:
    """Make the code of the target that Numba's variables tell."""
    image = image_of(compiled())
    if image is None:
        raise MachineError("machine code can be brought along on Linux on x86-64 only")
    if not keep(path, image):
        raise MachineError(f"cannot write {path}")


def main() -> int:
    """Make what is missing; 1 where that fails."""
    parser = argparse.ArgumentParser(
        prog="bundle", description="Make the machine code that an installation brings along."
    )
    folder = "default: the folder in the package"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(BUNDLES), help=folder)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="targets; default: all")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    try:
        if chosen.here is not None:
            _make_here(chosen.here)
            return 0
        for name in chosen.only:
            path = chosen.folder / f"{name}.image"
            if not is_current(path):
                make(path, TARGETS[name])
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
