"""How numbers, names and arrays are written in C."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.c_output.fragments import C_TYPES

Array = NDArray[Any]
WIDTH, INDENT = 120, "    "
_INT64_MIN = -(1 << 63)


def integer(value: int) -> str:
    """An integer constant of a type that holds it."""
    if value == _INT64_MIN:
        return f"(-INT64_C({-(value + 1)}) - 1)"
    return str(value) if abs(value) < 1 << 31 else f"INT64_C({value})"


def real(value: float, wide: bool = False) -> str:
    """A float32, or a float64, to the last bit."""
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    text = repr(float(value)) if wide else format(float(np.float32(value)), ".9g")
    text = text if any(mark in text for mark in ".e") else f"{text}.0"
    return text if wide else f"{text}f"


def identifier(text: str) -> str:
    """A name in C that looks like ``text``."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"n{name}" if not name or name[0].isdigit() else name


def comment(text: str) -> str:
    """A comment of one line, whatever the text holds."""
    plain = "".join(each if each.isascii() and each.isprintable() else "_" for each in text)
    apart = re.sub(r"\*(?=/)|/(?=\*)|\?(?=\?)", lambda mark: f"{mark[0]} ", plain)  # no end, no beginning, no trigraph
    return f"/* {apart} */"


def string(text: str) -> str:
    """A string constant."""
    escaped = "".join(
        f"\\{byte:03o}" if byte in b'"\\?' or not 32 <= byte < 127 else chr(byte) for byte in text.encode()
    )
    return f'"{escaped}"'


def listed(parts: Sequence[str]) -> str:
    """Parts with commas between them, on lines of at most `WIDTH` columns where no part is longer."""
    lines = [""]
    for place, part in enumerate(parts):
        text = part if place == len(parts) - 1 else f"{part},"
        if lines[-1] and len(INDENT) + len(lines[-1]) + 1 + len(text) > WIDTH:
            lines.append("")
        lines[-1] += f" {text}" if lines[-1] else text
    return "\n".join(INDENT + line for line in lines)


def array(name: str, element: str, values: Array) -> str:
    """The definition of a constant array, flat; an empty one gets an element that nobody reads."""
    flat = values.reshape(-1) if values.size else np.zeros(1, values.dtype)
    flat = flat.view(np.uint8) if flat.dtype == np.bool_ else flat
    if flat.dtype.kind == "f":
        parts = [real(value) for value in flat.tolist()]
    else:
        parts = list(map(integer if flat.itemsize == 8 else str, flat.tolist()))
    per_line = max((WIDTH - 4) // (max(map(len, parts)) + 2), 1)
    lines = ("    " + ", ".join(parts[first : first + per_line]) for first in range(0, len(parts), per_line))
    return f"static const {C_TYPES[element]} {name}[{flat.size}] = {{\n" + ",\n".join(lines) + "};\n"
