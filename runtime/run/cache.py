"""Folders and files in which machine code is kept between processes.

The first folder is the one that the caller or the variable ``QCOMPILER_CACHE`` names, or the user's cache folder. The
second serves where that cannot be written (read-only, full, no home): this user's own folder among the temporary files.
Whatever can be read is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .kept_files import UNFINISHED, keep, kept

VARIABLE = "QCOMPILER_CACHE"
"""Environment variable that names the folder."""

_LOG = logging.getLogger("qcompiler.runtime")

_KEPT, _LITTER_SECONDS = 8, 3600
"""Folders that `prune` leaves, those used last, and the age from which an unfinished file belongs to nobody."""


def folders(chosen: str | Path | None = None) -> list[Path]:
    """Where to look, in order; a folder need not exist.

    Args:
        chosen: the caller's folder; default: ``QCOMPILER_CACHE``, else the user's cache folder.
    """
    named = chosen or os.environ.get(VARIABLE)
    first = Path(named) if named else _users_folder()
    temporary = Path(tempfile.gettempdir()) / f"qcompiler-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    return [folder for folder in (first, temporary if _is_private(temporary) else None) if folder is not None]


def _users_folder() -> Path | None:
    """The user's cache folder; None for a user without a home."""
    variable, parts = (
        ("LOCALAPPDATA", ("AppData", "Local")) if sys.platform == "win32" else ("XDG_CACHE_HOME", (".cache",))
    )
    base = os.environ.get(variable)
    home = os.path.expanduser("~")
    if not base and home == "~":
        return None
    return Path(base or Path(home, *parts)) / "qcompiler" / "machine"


def _is_private(folder: Path) -> bool:
    """Whether nobody else can put code there: it is missing yet, or this user's alone."""
    if not hasattr(os, "getuid"):
        return True
    try:
        state = folder.lstat()
    except OSError:
        return True
    return state.st_uid == os.getuid() and state.st_mode & 0o170022 == 0o040000


def find(places: list[Path], name: str) -> bytes | None:
    """The first file of this name that is whole; its folder counts as used now."""
    for place in places:
        content = kept(place / name)
        if content is not None:
            with contextlib.suppress(OSError):
                os.utime(place)
            return content
    return None


def store(places: list[Path], name: str, content: bytes) -> Path | None:
    """Keep a file in the first folder that takes it; None: no folder does."""
    return next((place for place in places if keep(place / name, content)), None)


@contextlib.contextmanager
def alone(places: list[Path]) -> Iterator[None]:
    """Wait until no other process is in here with the same folder.

    The system gives the lock back when its owner ends, however that happens. Where there are no locks several processes
    do the same work.
    """
    handle = next((file for place in places if (file := _lock_file(place)) is not None), None)
    try:
        if handle is not None:
            _lock(handle)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock_file(place: Path) -> int | None:
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(place / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError:
        return None


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _LOG.warning("another process is compiling the integer machine; waiting for it")
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return


def prune(base: Path) -> None:
    """Delete what has not been used for longest, and files that a killed process left unfinished."""
    with contextlib.suppress(OSError):
        by_age = sorted(
            (item for item in base.iterdir() if item.is_dir()), key=lambda item: item.stat().st_mtime, reverse=True
        )
        for folder in by_age[_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (*base.glob(f"{UNFINISHED}*"), *base.glob(f"*/{UNFINISHED}*")):
            if file.stat().st_mtime < time.time() - _LITTER_SECONDS:
                file.unlink(missing_ok=True)
