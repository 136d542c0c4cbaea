"""Constants of few values: codes on disk, the same values in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime.binding import packed_weights
from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.program import coded_constants
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.program.coded_constants import SMALLEST, Coding, encoded, restored
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from qcompiler.runtime.vector.sum_tiles import Isa
from tests.runtime.checked import build_one, run_interpreted, run_one
from tests.runtime.program.test_file import forge

SEEDS = st.integers(0, 2**32 - 1)
LIMITS = {dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in (np.int8, np.uint8, np.int16)}


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(list(LIMITS)),
    count=st.integers(1, 17),
    rows=st.integers(1, 40),
    extra=st.integers(0, 9),
    seed=SEEDS,
)
def test_codes_give_back_the_values(dtype: Any, count: int, rows: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = LIMITS[dtype]
    levels = np.unique(np.append(rng.integers(low, high + 1, count - 1), rng.choice([low, high]))).astype(dtype)
    array = rng.choice(levels, (rows, -(-SMALLEST // rows) + extra))
    found = encoded(array)
    if len(np.unique(array)) > 16:
        assert found is None or len(found.tables) == rows
        return
    assert found is not None
    bits = 2 if len(np.unique(array)) <= 4 else 3 if len(np.unique(array)) <= 8 else 4
    assert found.coding == Coding(bits, 1)
    raw = np.frombuffer(found.stored(), np.uint8)
    assert raw.size == found.nbytes == 2**bits * array.itemsize + -(-array.size // 8) * bits
    again = restored(raw, found.coding, array.shape, array.dtype.name)
    np.testing.assert_array_equal(again.values(), array)
    assert again.values().dtype == array.dtype


def test_three_bits_of_a_code_by_hand() -> None:
    array = np.resize(np.arange(8, dtype=np.int8), SMALLEST)
    found = encoded(array)
    assert found is not None
    word = sum(code << (3 * place) for place, code in enumerate(range(8)))
    assert found.stored() == bytes(range(8)) + word.to_bytes(3, "little") * (SMALLEST // 8)


def test_every_row_may_have_values_of_its_own() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-32768, 32768, (50, 16)).astype(np.int16)
    array = np.take_along_axis(levels, rng.integers(0, 16, (50, 96)), axis=1)
    found = encoded(array)
    assert found is not None
    assert found.coding == Coding(4, 50)
    assert found.nbytes == 50 * (16 * 2 + 48)
    np.testing.assert_array_equal(
        restored(np.frombuffer(found.stored(), np.uint8), found.coding, array.shape, "int16").values(), array
    )


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(-32768, 32768, 65536).astype(np.int16),
        np.arange(SMALLEST, dtype=np.int16).reshape(2, -1),
        np.zeros(SMALLEST - 1, np.int8),
        np.zeros(SMALLEST, np.int32),
        np.arange(17, dtype=np.int8).repeat(100),
        np.random.default_rng(0).integers(0, 99, (99, 20)).astype(np.int8),
    ],
    ids=["many values", "differences of a matrix", "small", "int32", "17 values", "tables larger than codes"],
)
def test_what_is_not_coded(array: Any) -> None:
    assert encoded(array) is None


def two_products(levels: Any, rows: int = 3) -> Program:
    """x uint8 [rows, 65] -> gemm -> 1x1 convolution -> y uint8 [rows, 40], all weights among ``levels``; a gather from
    a coded table beside it."""
    rng = np.random.default_rng(5)
    b = ProgramBuilder()
    x, h, y, t, i = (b.buffer(shape, dtype) for shape, dtype in (
        ((rows, 65), np.uint8), ((rows, 33), np.uint8), ((rows, 40), np.uint8), ((2, 64), np.int16), ((2,), np.int64)))
    b.input("x", x, np.uint8, (rows, 65))
    b.input("i", i, np.int64, (2,))
    parameters = {"m": np.full(40, 1 << 30), "n": np.full(40, 40)}
    b.emit(
        "gemm",
        x=x,
        w=rng.choice(levels, (65, 33)),
        bias=np.zeros(33, np.int32),
        **{k: v[:33] for k, v in parameters.items()},
        y=h,
        rows=rows,
        k=65,
        cols=33,
        y_zp=128,
    )
    b.emit(
        "conv",
        x=h,
        w=rng.choice(levels, (1, 1, 33, 40)),
        bias=np.zeros(40, np.int32),
        **parameters,
        y=y,
        batch=1,
        in_h=rows,
        in_w=1,
        in_c=33,
        out_h=rows,
        out_w=1,
        out_c=40,
        kernel_h=1,
        kernel_w=1,
        y_zp=128,
    )
    b.emit(
        "gather",
        x=b.constant(rng.choice(levels, (30, 64)).astype(np.int16)),
        indices=i,
        y=t,
        outer=1,
        axis=30,
        inner=64,
        count=2,
    )
    b.output("y", y, np.uint8, (rows, 40))
    b.output("t", t, np.int16, (2, 64))
    return b.program()


@pytest.mark.parametrize("count", [4, 8, 16])
def test_a_coded_program_computes_the_same_and_is_small(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(count)
    levels = np.append(rng.integers(-127, 128, count - 2), [-127, 127]).astype(np.int8)
    feeds = {"x": rng.integers(0, 256, (3, 65)).astype(np.uint8), "i": np.array([29, 0])}
    program = two_products(levels)
    program.save(tmp_path / "coded.qprog")
    monkeypatch.setattr(coded_constants, "SMALLEST", 1 << 40)
    plain = two_products(levels)
    assert sum(info.coding is not None for info in program.constants) == 3
    assert not any(info.coding for info in plain.constants)
    saved = plain.blob.size - Program.load(tmp_path / "coded.qprog").blob.size
    elements = 65 * 33 + 33 * 40 + 2 * 30 * 64
    assert saved > elements - (65 * 33 + 33 * 40 + 30 * 64) * count.bit_length() / 8 - 4 * 64
    want = Session(plain).raw(feeds)
    for isa in Isa:
        if isa.supported:
            got = Session(tmp_path / "coded.qprog", isa).raw(feeds)
            assert {name: value.tolist() for name, value in got.items()} == {
                name: value.tolist() for name, value in want.items()
            }


def test_memory_counts_what_is_decoded() -> None:
    program = two_products(np.arange(16, dtype=np.int8))
    memory = Session(program, Isa.PLAIN).memory()
    assert memory.constants == program.blob.nbytes
    assert memory.packed >= 65 * 33 + 33 * 40 + 2 * 30 * 64
    assert Session(program).memory().packed >= 2 * 30 * 64


@pytest.mark.parametrize("opcode", ["gemm", "conv"])
def test_a_packed_product_reads_codes_that_come_from_a_constant(opcode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing replaces the weights only: a constant with few values in another place is decoded."""
    monkeypatch.setattr(coded_constants, "SMALLEST", 1)
    rng = np.random.default_rng(8)
    x, w = rng.choice([0, 7, 200], (6, 40)).astype(np.uint8), rng.choice([-90, 3], (40, 33)).astype(np.int8)
    sizes: dict[str, Any] = {"rows": 6, "k": 40, "cols": 33} if opcode == "gemm" else {
        "batch": 1, "in_h": 6, "in_w": 1, "in_c": 40, "out_h": 6, "out_w": 1, "out_c": 33, "kernel_h": 1, "kernel_w": 1}
    b = ProgramBuilder()
    y = b.buffer((6, 33), np.int16)
    b.emit(
        opcode,
        x=b.constant(x),
        w=w,
        bias=np.zeros(33, np.int32),
        m=np.full(33, 1 << 30),
        n=np.full(33, 32),
        y=y,
        **sizes,
    )
    b.output("y", y, np.int16, (6, 33))
    program = b.program()
    assert program.constants[0].coding is not None
    want = (x.astype(int) @ w + 2 >> 2).clip(-32768, 32767)
    for isa in (isa for isa in Isa if isa.supported):
        np.testing.assert_array_equal(run_interpreted(program, {}, isa)["y"], want)
        np.testing.assert_array_equal(Session(program, isa).raw({})["y"], want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item.__setitem__(3, 5), "codes of a constant"),
        (lambda item: item.__setitem__(3, 0), "codes of a constant"),
        (lambda item: item.__setitem__(4, 3), "codes of a constant"),
        (lambda item: item.__setitem__(4, 66), "codes of a constant"),
        (lambda item: item.__setitem__(0, "int32"), "codes of a constant"),
        (lambda item: item.__setitem__(1, [0, 33]), "codes of a constant"),
        (lambda item: item.__setitem__(1, [1 << 40, 33]), "outside the blob"),
        (lambda item: item.__setitem__(2, 1 << 40), "outside the blob"),
        (lambda item: item.pop(), "described wrongly"),
        (lambda item: item.__setitem__(3, "4"), "described wrongly"),
        (lambda item: item.__setitem__(1, [64, 33]), "would read bytes"),
    ],
)
def test_forged_codings_name_what_is_wrong(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.qprog"
    two_products(np.arange(16, dtype=np.int8)).save(path)
    forge(path, lambda parts, text: change(text["constants"][0]))
    with pytest.raises(ProgramError, match=message):
        Session(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
@pytest.mark.parametrize(
    ("count", "by_rows", "inner"),
    [(4, False, 3), (8, False, 7), (16, False, 5), (16, False, 4), (7, True, 40), (16, True, 65)],
)
def test_gather_reads_codes(dtype: Any, count: int, by_rows: bool, inner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tables stay in codes; each row may have values of its own."""
    monkeypatch.setattr(coded_constants, "SMALLEST", 1)
    monkeypatch.setattr(packed_weights, "_LARGE", 0)
    rng, axis = np.random.default_rng(count), 33
    low, high = LIMITS[dtype]
    levels = rng.integers(low, high + 1, (axis if by_rows else 1, count)).astype(dtype)
    levels[:, :2] = low, high
    table = np.take_along_axis(np.broadcast_to(levels, (axis, count)), rng.integers(0, count, (axis, inner)), axis=1)
    indices = np.array([0, 32, -1, -33, 7, 7, 16])
    program, _ = build_one(
        "gather", {"indices": indices}, {"y": ((7, inner), dtype)}, x=table, outer=1, axis=axis, inner=inner, count=7
    )
    assert program.constants[0].coding is not None
    assert program.constants[0].coding.tables == (axis if by_rows else 1)
    assert Session(program).memory().packed == 16
    y = run_one(
        "gather", {"indices": indices}, {"y": ((7, inner), dtype)}, x=table, outer=1, axis=axis, inner=inner, count=7
    )["y"]
    np.testing.assert_array_equal(y, table[indices])
    assert run_interpreted(program, {"indices": indices}, Isa.PORTABLE)["y"].tolist() == table[indices].tolist()


def test_a_table_of_another_shape_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the constant that are not the rows gathered."""
    monkeypatch.setattr(packed_weights, "_LARGE", 0)
    rng = np.random.default_rng(0)
    levels = rng.integers(-32768, 32768, (20, 16)).astype(np.int16)
    table = np.take_along_axis(levels, rng.integers(0, 16, (20, 96)), axis=1)
    indices = np.array([59, 0, 3])
    y = run_one(
        "gather", {"indices": indices}, {"y": ((3, 32), np.int16)}, x=table, outer=1, axis=60, inner=32, count=3
    )["y"]
    np.testing.assert_array_equal(y, table.reshape(60, 32)[indices])


def in_blocks(shape: tuple[int, ...], block: int, count: int, seed: int = 0) -> Any:
    """int8 whose blocks of each column take the values of one of 12 tables of ``count`` values."""
    rng = np.random.default_rng(seed)
    tables = np.stack([rng.choice(np.arange(-127, 128), count, replace=False) for _ in range(12)])
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    kinds = rng.integers(0, 12, (-(-rows // block), columns)).repeat(block, axis=0)[:rows]
    return tables[kinds, rng.integers(0, count, (rows, columns))].astype(np.int8).reshape(shape)


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize(("count", "bits"), [(4, 2), (7, 3), (16, 4)])
@pytest.mark.parametrize("shape", [(300, 31), (3, 3, 40, 9)])
def test_blocks_may_have_tables_in_common(block: int, count: int, bits: int, shape: tuple[int, ...]) -> None:
    array = in_blocks(shape, block, count)
    found = encoded(array)
    assert found is not None
    assert found.coding == Coding(bits, 16, block)
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    assert (
        len(found.stored())
        == found.nbytes
        == 16 * 2**bits + -(-(-(-rows // block) * columns) // 2) + -(-rows * columns // 8) * bits
    )
    np.testing.assert_array_equal(
        restored(np.frombuffer(found.stored(), np.uint8), found.coding, shape, "int8").values(), array
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=SEEDS,
    bits=st.sampled_from([2, 3, 4]),
    block=st.sampled_from([32, 64, 128]),
    rows=st.integers(1, 200),
    columns=st.integers(1, 9),
)
def test_any_bytes_are_a_sound_constant_in_blocks(seed: int, bits: int, block: int, rows: int, columns: int) -> None:
    coded_constants, rng = Coding(bits, 16, block), np.random.default_rng(seed)
    raw = rng.integers(0, 256, coded_constants.nbytes((rows, columns), 1)).astype(np.uint8)
    found = restored(raw, coded_constants, (rows, columns), "int8")
    assert found.kinds is not None
    kinds = found.kinds.repeat(block, axis=0)[:rows]
    np.testing.assert_array_equal(found.values(), found.tables[kinds, found.codes])


@pytest.mark.parametrize("change", [
    lambda item: item.__setitem__(5, 48), lambda item: item.__setitem__(5, 0), lambda item: item.__setitem__(4, 1),
    lambda item: item.__setitem__(0, "int16"), lambda item: item.__setitem__(1, [4290]), lambda item: item.append(64),
])
def test_forged_blocks_name_what_is_wrong(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.qprog"
    block_product(3).save(path)
    forge(path, lambda parts, text: change(text["constants"][0]))
    with pytest.raises(
        ProgramError, match=r"codes of a constant are described wrongly|a constant is described wrongly"
    ):
        Session(path)


def block_product(rows: int) -> Program:
    """x uint8 [rows, 130] -> gemm -> y uint8 [rows, 33], the weight in blocks of 64."""
    b = ProgramBuilder()
    x, y = b.buffer((rows, 130), np.uint8), b.buffer((rows, 33), np.uint8)
    b.input("x", x, np.uint8, (rows, 130))
    b.emit(
        "gemm",
        x=x,
        w=in_blocks((130, 33), 64, 16),
        bias=np.zeros(33, np.int32),
        m=np.full(33, 1 << 30),
        n=np.full(33, 42),
        y=y,
        rows=rows,
        k=130,
        cols=33,
        y_zp=128,
    )
    b.output("y", y, np.uint8, (rows, 33))
    return b.program()


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_products_of_blocks_are_those_of_their_values(rows: int, tmp_path: Path) -> None:
    block_product(rows).save(tmp_path / "net.qprog")
    program = Program.load(tmp_path / "net.qprog")
    assert program.constants[0].coding == Coding(4, 16, 64)
    x = np.random.default_rng(rows).integers(0, 256, (rows, 130)).astype(np.uint8)
    sums = x.astype(np.int64) @ in_blocks((130, 33), 64, 16).astype(np.int64)
    want = (((sums << 30) + (1 << 41) >> 42) + 128).clip(0, 255)
    for isa in (isa for isa in Isa if isa.supported):
        np.testing.assert_array_equal(Session(program, isa).raw({"x": x})["y"], want)
