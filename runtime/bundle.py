"""``python -m qcompiler.runtime.bundle``: makes an installation's machine code, a file per `features.TARGETS`.

A wheel with these files, or a checkout in which `make` has put them, needs no compiler: neither Numba nor LLVM is
loaded. Code of one CPU is made on any other. A target that has code of the present sources is left alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .cpu.features import BUNDLES, TARGET_VARIABLE, TARGETS, bundle_file
from .errors import MachineError
from .run.image import made_for
from .run.kept_files import keep, kept
from .run.machine_code import SEAL, code_key, compiled, image_of


def is_current(path: Path) -> bool:
    """Whether a file holds the code of these sources."""
    image = kept(path)
    return image is not None and made_for(image).sources == code_key()


def make(path: Path, name: str) -> None:
    """Make one target's code in a process of its own: kernels are compiled for a target fixed at import.

    Raises:
        MachineError: that process has failed.
    """
    environment = {**os.environ, TARGET_VARIABLE: name}
    package = __package__ or ""
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.bundle", "--here", str(path)], env=environment, check=False
    )
    if done.returncode != 0 or not is_current(path):
        raise MachineError(f"no machine code was made for {path.stem}")


def _make_here(path: Path) -> None:
    """Make the code of the target that the variable tells."""
    image = image_of(compiled())
    if image is None:
        raise MachineError("machine code can be made ahead of time on Linux only, for x86-64 and aarch64")
    if not keep(path, image):
        raise MachineError(f"cannot write {path}")


def copy_for(machine: str, folder: Path) -> None:
    """Copy an architecture's code into the folder of an installation that is being built of these sources.

    Raises:
        MachineError: there is none of these sources.
    """
    folder.mkdir(parents=True)
    for name in (name for name, cpu in TARGETS.items() if cpu.machine == machine):
        path = Path(bundle_file(name))
        if not is_current(path):
            raise MachineError(f"there is no machine code of these sources for {name}; make bundles makes it")
        shutil.copy(path, folder)
    (folder / SEAL).touch()


def main() -> int:
    """Make what is missing; 1 where that fails."""
    parser = argparse.ArgumentParser(
        prog="bundle", description="Make the machine code that an installation brings along."
    )
    folder = "default: the folder in the package"
    parser.add_argument("folder", nargs="?", type=Path, default=Path(BUNDLES), help=folder)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="targets; default: all")
    machines = sorted({cpu.machine for cpu in TARGETS.values()})
    parser.add_argument("--copy-for", choices=machines, help="copy the code of an architecture into the folder")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    try:
        if chosen.here is not None:
            _make_here(chosen.here)
            return 0
        if chosen.copy_for is not None:
            copy_for(chosen.copy_for, chosen.folder)
            return 0
        for name in chosen.only:
            path = chosen.folder / f"{name}.image"
            if not is_current(path):
                make(path, name)
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
