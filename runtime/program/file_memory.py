"""The bytes of a file in memory: a small file is copied, a large one mapped and watched.

A mapped file costs no memory of its own, as other processes that map it share it and the system can drop and read it
again. But it changes when the file is written to, and what was cut off can no longer be read: the process would get
SIGBUS. Where that matters a program is asked before each run (`MappedFile.has_changed`), which is a system call; for a
small file a copy is cheaper than that.
"""

from __future__ import annotations

import mmap
import os
import stat
import time
import weakref
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: where constants begin in a file, and so in memory."""

MAPPED_BYTES = 1 << 20
"""Files of at least this size are mapped."""

_SETTLED_SECONDS = 2.0

Bytes = NDArray[np.uint8]


class MappedFile(mmap.mmap):
    """A whole file, mapped to be read; it keeps the file open.

    Args:
        handle: a descriptor of it, which may be closed afterwards.

    Raises:
        OSError, ValueError: it cannot be mapped.
    """

    _handle: int
    _state: tuple[int, int]

    def __new__(cls, handle: int) -> Self:
        """Map it."""
        self = super().__new__(cls, handle, 0, access=mmap.ACCESS_READ)
        self._handle = os.dup(handle)
        weakref.finalize(self, os.close, self._handle)
        self._state = _state_of(self._handle)
        return self

    def has_changed(self) -> bool:
        """Whether somebody has written to the file, or truncated it, since it was mapped."""
        return _state_of(self._handle) != self._state


def _state_of(handle: int) -> tuple[int, int]:
    state = os.fstat(handle)
    return state.st_size, state.st_mtime_ns


def identity_of(source: str | os.PathLike[str] | int) -> tuple[int, ...] | None:
    """What tells a file, as it is now, from all others that exist; None where nothing does.

    A file that has just been written may be written again within the same tick of its clock.
    """
    try:
        state = os.stat(source)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(state.st_mode) or time.time() - state.st_mtime < _SETTLED_SECONDS:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def read_or_map(source: str | int) -> Bytes:
    """What a file holds, from its first byte on whatever the position of a descriptor; a pipe is read to its end.

    Args:
        source: path, or descriptor, which is left open.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    handle = source if isinstance(source, int) else os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            with open(handle, "rb", closefd=False) as file:
                return aligned_copy(file.read())
        if state.st_size >= MAPPED_BYTES:
            return np.frombuffer(MappedFile(handle), np.uint8)
        return aligned_copy(_content(handle, state.st_size))
    finally:
        if not isinstance(source, int):
            os.close(handle)


def _content(handle: int, size: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, size, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, size)


def aligned_copy(content: bytes | bytearray | memoryview) -> Bytes:
    """A copy that begins at a multiple of `ALIGNMENT`."""
    raw = np.frombuffer(content, np.uint8)
    memory = np.empty(raw.size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    memory[start : start + raw.size] = raw
    return memory[start : start + raw.size]


def mapped_file(blob: Bytes) -> MappedFile | None:
    """The file that an array is a part of; None for one in memory."""
    owner: Any = blob
    while isinstance(owner, (np.ndarray, memoryview)):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner if isinstance(owner, MappedFile) else None
