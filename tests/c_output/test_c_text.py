"""Numbers, names and arrays as C reads them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.c_output.c_text import WIDTH, array, comment, identifier, integer, listed, real, string


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-7, "-7"),
        ((1 << 31) - 1, "2147483647"),
        (1 << 31, "INT64_C(2147483648)"),
        (-(1 << 31), "INT64_C(-2147483648)"),
        (-(1 << 63), "(-INT64_C(9223372036854775807) - 1)"),
    ],
)
def test_integers_fit_the_type_of_their_constant(value: int, text: str) -> None:
    assert integer(value) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_to_the_last_bit(value: float) -> None:
    text = real(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?f", text)
    assert "." in text or "e" in text
    assert np.float32(text[:-1]) == np.float32(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float64_to_the_last_bit(value: float) -> None:
    assert float(real(value, wide=True)) == value


def test_infinity_is_the_macro() -> None:
    assert (real(np.inf), real(-np.inf)) == ("INFINITY", "-INFINITY")


@given(st.text() | st.text("*/?\\ ", max_size=8))
def test_a_comment_is_one_line_and_ends_where_it_ends(text: str) -> None:
    made = comment(text)
    assert made.isascii()
    assert made.isprintable()
    assert made.index("*/") == len(made) - 2
    assert "/*" not in made[2:]
    assert "??" not in made


@pytest.mark.parametrize(("text", "name"), [("model", "model"), ("my-net.v2", "my_net_v2"), ("2nd", "n2nd"), ("", "n")])
def test_names(text: str, name: str) -> None:
    assert identifier(text) == name


def test_strings_hold_what_c_does_not_take_as_it_is_by_number() -> None:
    assert string('a"\\?\n') == '"a\\042\\134\\077\\012"'
    assert string("ä") == '"\\303\\244"'


def test_arrays_are_flat_and_lines_short() -> None:
    text = array("c0", "i16", np.arange(-300, 300, dtype=np.int16).reshape(20, 30))
    assert text.startswith("static const int16_t c0[600] = {\n")
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert [int(number) for number in re.findall(r"-?\d+(?=[,}])", text)] == list(range(-300, 300))
    assert array("c2", "u8", np.array([True, False])) == "static const uint8_t c2[2] = {\n    1, 0};\n"
    assert array("c1", "i8", np.zeros((0, 3), np.int8)) == "static const int8_t c1[1] = {\n    0};\n"


def test_lists_break_between_their_parts() -> None:
    parts = [f".member_{i} = {i}" for i in range(40)]
    lines = listed(parts).splitlines()
    assert len(lines) > 1
    assert all(len(line) <= WIDTH and line.startswith("    .") for line in lines)
    assert " ".join(" ".join(lines).split()) == ", ".join(parts)
    assert listed(["0"]) == "    0"
