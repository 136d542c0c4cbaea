"""Products with weights in codes: bit for bit those with the same weights as int8, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.binding import packed_weights
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.packed_weights import MOST_CODED_ROWS, MOST_ROWS_OF_2_BITS, pack_program
from qcompiler.runtime.cpu.isa import Isa
from qcompiler.runtime.instructions.instruction import Form
from qcompiler.runtime.program import coded_constants
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_divided, run_one
from tests.runtime.kernels.test_product import draw, layer, output, requantized

ISAS = [isa for isa in Isa if isa.supported]


@pytest.fixture(autouse=True)
def small_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of any size are coded, and products of any size read codes."""
    monkeypatch.setattr(coded_constants, "SMALLEST", 1)
    monkeypatch.setattr(packed_weights, "_LARGE", 0)


def coded_layer(rng: np.random.Generator, count: int, k: int, cols: int) -> dict[str, Any]:
    """A layer whose weights take ``count`` values, the extreme ones among them."""
    levels = np.concatenate([[-128, 127], rng.choice(np.arange(-127, 127), count - 2, replace=False)]).astype(np.int8)
    return {**layer(rng, (k, cols), cols), "w": rng.choice(levels, (k, cols))}


def forms(program: Program, isa: Isa) -> list[Form]:
    return [weights.form for weights in pack_program(program, bind(program), isa).values()]


@settings(max_examples=16, deadline=None)
@given(
    x_type=st.sampled_from([np.uint8, np.int16]),
    count=st.sampled_from([2, 4, 8, 16]),
    rows=st.integers(1, 5),
    k=st.integers(1, 40),
    cols=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_gemm(x_type: Any, count: int, rows: int, k: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, p = draw(rng, x_type, (rows, k + 3)), coded_layer(rng, count, k, cols)
    dtype, out = output(rng)
    numbers = {"rows": rows, "k": k, "cols": cols, "x_row": k + 3, "x_offset": 1, "y_row": cols + 2, "y_offset": 2}
    limits = {"y_zp": out.zero_point, "lo": out.lo, "hi": out.hi}
    y = run_one("gemm", {"x": x}, {"y": ((rows, cols + 2), dtype)}, **p, **numbers, **limits)["y"]
    acc = x[:, 1 : 1 + k].astype(np.int64) @ p["w"].astype(np.int64) + p["bias"]
    assert y[:, 2:].tolist() == requantized(acc, p, out).tolist()


@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
@pytest.mark.parametrize("count", [4, 16])
@pytest.mark.parametrize("shape", [(1, 1), (4, 16), (8, 64), (9, 65), (31, 63), (64, 80), (130, 193), (257, 128)])
def test_all_sizes_and_instruction_sets(
    x_type: Any, count: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(count)
    for rows in range(1, MOST_CODED_ROWS + 1):
        p = coded_layer(rng, count, *shape)
        x = np.full((rows, shape[0]), np.iinfo(x_type).max, x_type)
        x[1:] = draw(rng, x_type, (rows - 1, shape[0]))
        y = {"y": ((rows, shape[1]), np.int16)}
        program, feeds = build_one("gemm", {"x": x}, y, **p, rows=rows, k=shape[0], cols=shape[1])
        monkeypatch.setattr(coded_constants, "SMALLEST", 1 << 60)
        plain, _ = build_one("gemm", {"x": x}, y, **p, rows=rows, k=shape[0], cols=shape[1])
        monkeypatch.setattr(coded_constants, "SMALLEST", 1)
        for isa in ISAS:
            if isa.has_lookup:
                small = len(np.unique(p["w"])) <= 4 and rows <= MOST_ROWS_OF_2_BITS
                assert forms(program, isa) == [Form.CODES_2 if small else Form.CODES_4]
                assert forms(plain, isa) == [Form.PACKED]
            np.testing.assert_array_equal(
                Session(program, isa).raw(feeds)["y"],
                Session(plain, isa).raw(feeds)["y"],
                err_msg=f"{isa.name}, {rows}",
            )


@pytest.mark.parametrize("cols", [256, 401])
def test_parts_of_a_product_read_their_codes(cols: int) -> None:
    """However threads share a product out, by rows or by columns."""
    rng = np.random.default_rng(cols)
    for count, rows in ((16, 1), (4, 2), (16, 4)):
        p, x = coded_layer(rng, count, 70, cols), draw(rng, np.uint8, (rows, 70))
        program, feeds = build_one("gemm", {"x": x}, {"y": ((rows, cols), np.int16)}, **p, rows=rows, k=70, cols=cols)
        want = Session(program, Isa.PLAIN).raw(feeds)["y"]
        for isa in ISAS:
            np.testing.assert_array_equal(run_divided(program, feeds, isa)["y"], want, err_msg=isa.name)


def test_which_products_read_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of few rows; one weight may be packed in both forms. Portable tiles read int8."""
    monkeypatch.setattr(packed_weights, "_LARGE", 1 << 21)
    rng = np.random.default_rng(0)
    p = coded_layer(rng, 16, 64, 64)

    def chosen(rows: int, isa: Isa, x_type: Any = np.uint8) -> Form:
        program, _ = build_one(
            "gemm", {"x": draw(rng, x_type, (rows, 64))}, {"y": ((rows, 64), np.uint8)}, **p, rows=rows, k=64, cols=64
        )
        return forms(program, isa)[0]

    assert chosen(MOST_CODED_ROWS, Isa.AVX2) is chosen(1, Isa.AVX_VNNI) is chosen(1, Isa.AVX512_VNNI) is Form.CODES_4
    assert chosen(MOST_CODED_ROWS + 1, Isa.AVX512_VNNI) is chosen(1, Isa.PORTABLE) is Form.PACKED
    assert chosen(1, Isa.AVX512_VNNI, np.int16) is Form.PACKED
    assert chosen(1, Isa.AVX2, np.int16) is Form.CODES_4


def test_codes_take_half_or_a_quarter_of_the_memory() -> None:
    rng = np.random.default_rng(0)
    x, sizes = draw(rng, np.uint8, (1, 1024)), {}
    for count in (4, 16, 17):
        p = coded_layer(rng, count, 1024, 512)
        program, _ = build_one("gemm", {"x": x}, {"y": ((1, 512), np.uint8)}, **p, rows=1, k=1024, cols=512)
        sizes[count] = Session(program).memory().packed
    if max(ISAS).has_lookup:
        heads = 512 * 24
        assert sizes[17] == 1024 * 512 + heads
        assert sizes[16] - heads < 0.51 * 1024 * 512
        assert sizes[4] - heads < 0.26 * 1024 * 512


def test_rounding_is_that_of_the_specification() -> None:
    rng = np.random.default_rng(1)
    p, x = coded_layer(rng, 16, 24, 20), draw(rng, np.uint8, (2, 24))
    program, feeds = build_one("gemm", {"x": x}, {"y": ((2, 20), np.int16)}, **p, rows=2, k=24, cols=20)
    acc = x.astype(np.int64) @ p["w"].astype(np.int64) + p["bias"]
    for isa in ISAS:
        assert (
            Session(program, isa).raw(feeds)["y"].tolist() == requantized(acc, p, spec.Range(0, -32768, 32767)).tolist()
        )
