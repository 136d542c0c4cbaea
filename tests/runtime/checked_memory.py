"""Memory that refuses what lies outside of what was declared."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


class AccessError(Exception):
    """A kernel left what it declared."""


class CheckedMemory:
    """Loads and stores that know which bytes may be touched."""

    def __init__(self) -> None:
        self.readable: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []

    def loader(self, width: int, signed: bool) -> Callable[[int, int], int]:
        size = width // 8

        def load(base: int, index: int) -> int:
            address = base + index * size
            if not any(first <= address and address + size <= end for first, end in self.readable):
                raise AccessError(f"read of {size} bytes at {address}, allowed {self.readable}")
            return int.from_bytes(ctypes.string_at(address, size), "little", signed=signed)

        return load

    def storer(self, width: int) -> Callable[[int, int, int], None]:
        size = width // 8

        def store(base: int, index: int, value: int) -> None:
            address = base + index * size
            if not any(first <= address and address + size <= end for first, end in self.writable):
                raise AccessError(f"write of {size} bytes at {address}, allowed {self.writable}")
            if width == 64 and not -(1 << 63) <= value < 1 << 63:
                raise OverflowError(f"{value} does not fit into 64 bits")
            ctypes.memmove(address, (value & ((1 << width) - 1)).to_bytes(size, "little"), size)

        return store
