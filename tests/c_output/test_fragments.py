"""The kernels' text is read whole, and a text gets what it calls and no more."""

from __future__ import annotations

import re

import pytest

from qcompiler.c_output.fragments import C_TYPES, Fragment, definitions, fields_of, fragments


def test_every_line_of_the_kernels_is_part_of_a_fragment() -> None:
    from qcompiler.c_output import fragments as module

    for path in sorted(module._FOLDER.glob("*.c")):
        left = path.read_text(encoding="utf-8")
        for fragment in fragments():
            left = left.replace(fragment.text, "")
        left = re.sub(r"\A/\*.*?\*/", "", left, flags=re.DOTALL)  # what the file is for
        assert not left.strip(), f"{path.name}: {left.strip()[:200]}"


def test_a_name_is_defined_once() -> None:
    names = [fragment.name for fragment in fragments()]
    assert len(names) == len(set(names))


def test_types_take_the_place_of_parameters() -> None:
    text = "static Y_t convert_X_Y(const X_t *x)\n{\n    return low_Y(x[INT64_C(0)]);\n}\n"
    made = Fragment("convert_X_Y", text, 0).of({"X": "u8", "Y": "i16"})
    assert made == "static int16_t convert_u8_i16(const uint8_t *x)\n{\n    return low_i16(x[INT64_C(0)]);\n}\n"


def test_what_a_text_calls_comes_with_it_and_before_it() -> None:
    found = definitions("gemm_u8_i16(&f0, AT(0), c0, c1, c2, c3, AT(64));")
    assert list(found)[-1] == "gemm_u8_i16"
    assert {"gemm_fields", "dot_u8", "code_i16", "store_i16", "low_i16", "clamp"} <= set(found)
    assert not {"dot_i16", "code_u8", "conv_fields"} & set(found)
    places = {name: place for place, name in enumerate(found)}
    for name, text in found.items():
        for other in found:
            if other != name and re.search(rf"\b{other}\b[({{]", text):
                assert places[other] < places[name]
    assert not definitions("gemm_u8_i16();", found)


def test_what_is_written_for_one_type_goes_before_what_is_written_for_any() -> None:
    assert "uint32_t)x[i] * (uint32_t)w[i]" in definitions("dot_i32();")["dot_i32"]
    assert "(int32_t)x[i] * w[i]" in definitions("dot_u8();")["dot_u8"]
    assert "pick_max" in definitions("reduce_max_u8_u8();")
    assert "reduced_code" in definitions("reduce_sum_u8_u8();")


def test_a_comment_calls_nothing() -> None:
    assert not definitions("/* gemm_u8_i16() */")


@pytest.mark.parametrize("name", ["gemm_u8_u7", "gemm_u8", "printf", "gemm_X_Y"])
def test_other_names_are_left_alone(name: str) -> None:
    assert not definitions(f"{name}();")


def test_members_of_a_structure() -> None:
    assert fields_of("logic_fields") == [("d", 6), ("a_s", 6), ("b_s", 6)]
    assert fields_of("fill_fields") == [("count", 0), ("y_offset", 0), ("value", 0)]
    assert set(C_TYPES) == {"u8", "i8", "i16", "i32", "i64", "f32", "f64"}
