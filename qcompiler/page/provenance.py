"""Where a result comes from: what was typed, which versions and files, on which CPU."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from qcompiler.version import __version__

__all__ = ["Origin", "origin_of", "sha256"]

PACKAGES = ("onnx", "onnxruntime", "numpy", "numba", "scipy")


@dataclass(frozen=True)
class Origin:
    """How a result was made.

    Attributes:
        model: the float model's file.
        command: what was typed.
        cpu: its name.
        system: of the machine.
        date: when, UTC.
        versions: by package.
        hashes: SHA-256 of each file by its name; of a model with external data, of the ``.onnx`` file itself.
    """

    model: str
    command: str
    cpu: str
    system: str
    date: str
    versions: dict[str, str]
    hashes: dict[str, str]


def origin_of(model: Path, outputs: Iterable[Path], command: str) -> Origin:
    """The origin of ``outputs``, which lie on the disk."""
    versions = {"qcompiler": __version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in PACKAGES}
    hashes = {path.name: sha256(path) for path in (model, *outputs)}
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Origin(model.name, command, _cpu(), f"{platform.system()} {platform.machine()}", when, versions, hashes)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cpu() -> str:
    """The CPU's name as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
