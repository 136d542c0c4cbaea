"""Object files as images that run wherever they are mapped: what a linker does, for the few things that kernels need.

An object file of the kernels calls nothing but each other and a C function or two, so no linker is needed to load it:
sections are laid out one after another, distances between them are written in, a jump through a table leads to each C
function. This is done once, after compilation. What remains to be done in each process is to copy the image, to fill in
the table, and to make it executable.

Known are ELF files for x86-64 (System V ABI, AMD64 supplement) and aarch64 (ELF for the Arm 64-bit Architecture); for
any other llvmlite links the object file in each process. An image of one is made on any other.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import struct
import sys
from typing import Any, NamedTuple

_FUNCTIONS = frozenset({"memset", "memcpy", "memmove"})
"""Functions of the C library that LLVM makes of loops."""

_MAGIC, _RELA, _SYMBOLS, _NO_BITS, _ALLOCATED = b"\x7fELF\x02\x01", 4, 2, 8, 2

_ALIGNMENT = 64
_LENGTH = struct.Struct("<I")


class _Section(NamedTuple):
    """The fields of an ELF section header that matter here."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int

    def entries(self, code: bytes, layout: struct.Struct) -> list[tuple[Any, ...]]:
        """The records that the section holds."""
        return list(layout.iter_unpack(code[self.offset : self.offset + self.size]))


_SECTION, _RELOCATION, _SYMBOL = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<QIIq"), struct.Struct("<IBBHQQ")


class MadeFor(NamedTuple):
    """What an image is made of and for.

    Attributes:
        sources: hash of the modules that were compiled.
        needs: features of a CPU without which it cannot run.
    """

    sources: str
    needs: tuple[str, ...]


def make_image(code: bytes, entries: tuple[str, ...], made: MadeFor) -> bytes | None:
    """An image of an object file; None where it is of an unknown kind or needs more than is done here.

    Args:
        code: an ELF object file.
        entries: global functions that are called from outside.
        made: what `made_for` answers.
    """
    machine = _MACHINES.get(struct.unpack_from("<H", code, 18)[0]) if len(code) >= 64 and code[:6] == _MAGIC else None
    if machine is None or not sys.platform.startswith("linux"):
        return None
    start, count = struct.unpack_from("<Q", code, 40)[0], struct.unpack_from("<H", code, 60)[0]
    sections = [_Section(*_SECTION.unpack_from(code, start + i * _SECTION.size)) for i in range(count)]
    return _Layout(code, sections, machine).image(entries, made)


class _X86:
    """Relocations of x86-64: R_X86_64_64; PLT32; PC32."""

    absolute, calls = 1, frozenset({4})
    _distances = frozenset({2, 4})

    def write(self, image: bytearray, kind: int, place: int, target: int) -> bool:
        """Write a distance into the code; False for a kind that is not known."""
        if kind in self._distances:
            struct.pack_into("<i", image, place, target - place)
        return kind in self._distances

    def jump(self, start: int, slot: int) -> bytes:
        """``jmp [rip + distance]``: to what a slot holds."""
        return b"\xff\x25" + struct.pack("<i", slot - (start + 6))


_SCALES = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
"""ADD_ABS_LO12_NC and LDST8 to LDST128_ABS_LO12_NC: the place in a page is counted in 2^scale bytes."""


class _Arm:
    """Relocations of aarch64: R_AARCH64_ABS64; JUMP26, CALL26; PREL32, ADR_PREL_PG_HI21; those of `_SCALES`. An image
    begins at a page, so that a distance of pages and a place in its page are known before.
    """

    absolute, calls = 257, frozenset({282, 283})
    _distance, _page, _page_bits = 261, 275, 12

    def write(self, image: bytearray, kind: int, place: int, target: int) -> bool:
        """Write a distance, or the place in a page, into the code; False for a kind that is not known."""
        if kind == self._distance:
            struct.pack_into("<i", image, place, target - place)
        elif kind in self.calls:
            _insert(image, place, (target - place) >> 2 & 0x3FFFFFF)
        elif kind == self._page:
            pages = (target >> self._page_bits) - (place >> self._page_bits)
            _insert(image, place, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)
        elif kind in _SCALES:
            _insert(image, place, (target & 0xFFF) >> _SCALES[kind] << 10)
        else:
            return False
        return True

    def jump(self, start: int, slot: int) -> bytes:
        """``ldr x16, slot; br x16``: to what a slot holds."""
        return struct.pack("<II", 0x58000010 | (slot - start >> 2 & 0x7FFFF) << 5, 0xD61F0200)


def _insert(image: bytearray, place: int, bits: int) -> None:
    struct.pack_into("<I", image, place, struct.unpack_from("<I", image, place)[0] | bits)


_MACHINES: dict[int, _X86 | _Arm] = {62: _X86(), 183: _Arm()}
"""By the number in an ELF file."""


class _Layout:
    """The sections of an object file one after another."""

    def __init__(self, code: bytes, sections: list[_Section], machine: _X86 | _Arm) -> None:
        self._code, self._sections, self._machine = code, sections, machine
        self._image, self._starts = bytearray(), dict[int, int]()
        self._jumps, self._slots, self._absolute = dict[str, int](), dict[str, int](), list[int]()
        for index, section in enumerate(sections):
            if section.flags & _ALLOCATED:
                self._starts[index] = self._append(
                    bytes(section.size) if section.kind == _NO_BITS else self._content(section)
                )
        table = next(section for section in sections if section.kind == _SYMBOLS)
        names = self._content(sections[table.link])
        self._symbols = [
            (names[name : names.index(b"\0", name)].decode(), place, value)
            for name, _, _, place, value, _ in table.entries(code, _SYMBOL)
        ]

    def image(self, entries: tuple[str, ...], made: MadeFor) -> bytes | None:
        """The image with all distances written in."""
        for section in self._sections:
            if section.kind == _RELA and section.info in self._starts:
                for offset, kind, symbol, addend in section.entries(self._code, _RELOCATION):
                    if not self._relocate(self._starts[section.info] + offset, symbol, kind, addend):
                        return None
        places = {
            name: self._starts[place] + value
            for name, place, value in self._symbols
            if name in entries and place in self._starts
        }
        made_for = {"sources": made.sources, "needs": made.needs}
        head = json.dumps({"entries": places, "slots": self._slots, "absolute": self._absolute, **made_for}).encode()
        return _LENGTH.pack(len(head)) + head + bytes(self._image)

    def _content(self, section: _Section) -> bytes:
        return self._code[section.offset : section.offset + section.size]

    def _append(self, content: bytes) -> int:
        start = -(-len(self._image) // _ALIGNMENT) * _ALIGNMENT
        self._image += bytes(start - len(self._image)) + content
        return start

    def _relocate(self, place: int, symbol: int, kind: int, addend: int) -> bool:
        name, section, value = self._symbols[symbol]
        if section in self._starts:
            target = self._starts[section] + value
        elif section == 0 and kind in self._machine.calls and name in _FUNCTIONS:
            target = self._jump(name)
        else:
            return False
        if kind != self._machine.absolute:
            return self._machine.write(self._image, kind, place, target + addend)
        struct.pack_into("<q", self._image, place, target + addend)
        self._absolute.append(place)
        return True

    def _jump(self, name: str) -> int:
        """The code that jumps to a C function."""
        if name not in self._jumps:
            self._slots[name] = self._append(bytes(8))
            start = -(-len(self._image) // _ALIGNMENT) * _ALIGNMENT
            self._jumps[name] = self._append(self._machine.jump(start, self._slots[name]))
        return self._jumps[name]


class Mapped(NamedTuple):
    """An image in memory, and the addresses of its entries."""

    memory: mmap.mmap
    addresses: dict[str, int]


def made_for(image: bytes) -> MadeFor:
    """What an image is made of and for."""
    head = _head(image)
    return MadeFor(head["sources"], tuple(head["needs"]))


def _head(image: bytes) -> Any:
    return json.loads(image[_LENGTH.size : _LENGTH.size + _LENGTH.unpack_from(image)[0]])


def map_image(image: bytes) -> Mapped | None:
    """Make an image executable; None where the system does not allow that.

    The pages are new: Linux brings the instruction caches of an ARM up to date when they first become executable.
    """
    head = _head(image)
    content = image[_LENGTH.size + _LENGTH.unpack_from(image)[0] :]
    library = ctypes.CDLL(None)
    memory = mmap.mmap(-1, len(content), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    memory[:] = content
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for name, slot in head["slots"].items():
        struct.pack_into("<q", memory, slot, ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0)
    for place in head["absolute"]:
        struct.pack_into("<q", memory, place, base + struct.unpack_from("<q", memory, place)[0])
    library.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if library.mprotect(base, len(memory), mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        return None
    return Mapped(memory, {name: base + start for name, start in head["entries"].items()})
