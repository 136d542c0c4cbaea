"""The kernels in C, and which of them a text needs.

A fragment is a function, a structure or a macro in ``kernels/*.c``. Capital letters that stand for a part of a name
are parameters: ``gemm_X_Y`` is the kernel for any element types X and Y, and ``X_t`` the C type of X. A text that calls
``gemm_u8_i16`` gets that function, and what it calls in turn.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

C_TYPES = {
    "u8": "uint8_t", "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t",
    "f32": "float", "f64": "double",
}  # fmt: skip
"""The C type of every element type."""

_INTEGER, _REAL = "u8|i8|i16|i32|i64", "f32|f64"
_PARAMETERS = {"A": _INTEGER, "B": _INTEGER, "X": _INTEGER, "Y": _INTEGER, "F": _REAL, "K": "[a-z][a-z0-9]*(?:_equal)?"}
"""What each parameter may be, as a regular expression; K is a kind of an operator."""

_FOLDER = Path(__file__).parent / "kernels"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USES = re.compile(r"\bstruct (\w+)|\b(\w+)\(|\b([A-Z]+_[a-z0-9]+)\b")
"""Where a structure, a function and a macro are named."""

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ITEM = re.compile(
    r"(?P<comment>/\*(?:(?!\*/).)*\*/\n)?"
    r"(?P<code>#define (?P<macro>\w+) [^\n]*\n"
    r"|struct (?P<struct>\w+) \{\n.*?\n\};\n"
    r"|static [^\n(]*?(?P<function>\w+)\((?:.(?!\n\}))*.\n\}\n)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Fragment:
    """A definition in C, with parameters in its name.

    Attributes:
        name: as it is written.
        text: the definition and the comment before it.
        order: its place among all fragments.
    """

    name: str
    text: str
    order: int

    @functools.cached_property
    def parameters(self) -> list[str]:
        """The parameters in its name."""
        return [part for part in self.name.split("_") if part in _PARAMETERS]

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """What matches the names that it may have."""
        parts = (f"(?P<{part}>{_PARAMETERS[part]})" if part in _PARAMETERS else part for part in self.name.split("_"))
        return re.compile("_".join(parts))

    def of(self, values: Mapping[str, str]) -> str:
        """The definition with values for the parameters."""
        return _WORD.sub(lambda word: _substituted(word.group(), values), self.text)


def _substituted(word: str, values: Mapping[str, str]) -> str:
    parameter = word.removesuffix("_t")
    if word.endswith("_t") and parameter in values:
        return C_TYPES[values[parameter]]
    return "_".join(values.get(part, part) for part in word.split("_"))


@functools.cache
def fragments() -> tuple[Fragment, ...]:
    """All of them, those without parameters first: a definition for one type goes before that for any type."""
    found: list[Fragment] = []
    for path in sorted(_FOLDER.glob("*.c")):
        for item in _ITEM.finditer(path.read_text(encoding="utf-8")):
            name = item["macro"] or item["struct"] or item["function"]
            found.append(Fragment(name, (item["comment"] or "") + item["code"], len(found)))
    return tuple(sorted(found, key=lambda fragment: len(fragment.parameters)))


def fields_of(struct: str) -> list[tuple[str, int]]:
    """The members of a structure: name, and length where it is an array (else 0)."""
    text = next(fragment.text for fragment in fragments() if fragment.name == struct)
    body = _COMMENT.sub("", text[text.index("{") : text.index("}")])
    return [(name, int(length or 0)) for name, length in re.findall(r"(\w+)(?:\[(\d+)\])?[,;]", body)]


def definitions(text: str, present: Iterable[str] = ()) -> dict[str, str]:
    """What a text needs, by name, each behind what it needs itself; without those that are ``present``."""
    found: dict[str, str] = {}
    _add(text, set(present), found)
    return found


def _add(text: str, seen: set[str], found: dict[str, str]) -> None:
    used = (name for names in _USES.findall(_COMMENT.sub("", text)) for name in names if name)
    for name in dict.fromkeys(used):
        if name in seen:
            continue
        seen.add(name)
        for fragment in fragments():
            match = fragment.pattern.fullmatch(name)
            if match is not None:
                definition = fragment.of(match.groupdict())
                _add(definition, seen, found)
                found[name] = definition
                break
