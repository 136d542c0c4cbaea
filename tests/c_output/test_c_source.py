"""Programs as C: real networks, what the file is made of, and what is refused."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcompiler
from models.small import SMALL_TASKS
from qcompiler.api import Options
from qcompiler.c_output import c_source, to_c, write_c
from qcompiler.errors import OptionError, UnsupportedError
from qcompiler.runtime import Program, Session
from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.program.builder import ProgramBuilder
from tests.c_output.compiled import STRICT, TARGETS, CaseInC, Target, check_in_c, needs_compiler
from tests.runtime.programs import two_layers

NO_LIBRARY = {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}
"""What a compiler may call without being asked."""

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=["digits", "lines"])
def network(request: pytest.FixtureRequest) -> tuple[Program, Mapping[str, Array]]:
    """A trained network as a program, and one sample."""
    task = SMALL_TASKS[request.param]()
    compiled = qcompiler.compile(task.model, data=task.calibration[:1], options=Options(level=0), for_onnx=False)
    return compiled.program, {name: array[:1] for name, array in dict(task.feeds[0]).items()}


def cases_of(program: Program, feeds: Mapping[str, Array]) -> list[CaseInC]:
    """One run with floats and one with codes."""
    session, one = Session(program), dict.fromkeys(program.dims, 1)
    names = [port.name for port in (*program.inputs, *program.outputs)]
    codes = {name: session.quantize(name, array) for name, array in feeds.items()}
    return [
        CaseInC(program, feeds, session.run(feeds), "floats", as_codes=False, dims=one),
        CaseInC(program, codes, session.run(codes, codes=names), "codes", dims=one),
    ]


@needs_compiler
def test_a_network_gives_the_codes_and_the_numbers_of_the_machine(network: tuple[Program, Mapping[str, Array]]) -> None:
    check_in_c(cases_of(*network))


@needs_compiler
@pytest.mark.parametrize("name", ["aarch64", "armv7", "cortex-m4"])
def test_a_network_on_an_emulated_processor(name: str, network: tuple[Program, Mapping[str, Array]]) -> None:
    if TARGETS[name].missing:
        pytest.skip(f"{TARGETS[name].missing} is not installed")
    check_in_c(cases_of(*network), TARGETS[name])


@needs_compiler
@pytest.mark.parametrize("flags", [["-O2"], ["-O3"], ["-O2", "-DNET_NO_FLOAT"], ["-O0", "-ffreestanding"]])
def test_the_file_compiles_without_a_warning_and_calls_no_library(flags: list[str], tmp_path: Path) -> None:
    write_c(two_layers(batch=1), tmp_path / "net.c")
    subprocess.run(["cc", *STRICT, *flags, "-c", "net.c", "-o", "net.o"], cwd=tmp_path, check=True)
    listed = subprocess.run(["nm", "net.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[-2:] for line in listed.splitlines()]
    assert {name for kind, name in symbols if kind == "U"} <= NO_LIBRARY
    public = {"net_run_codes"} if "-DNET_NO_FLOAT" in flags else {"net_run", "net_run_codes"}
    assert {name for kind, name in symbols if kind == "T"} == public
    assert not [name for kind, name in symbols if kind in "bBdDC"], "a variable: runs could not share the time"


@needs_compiler
def test_a_compiler_that_bends_floats_is_refused_where_there_are_floats(tmp_path: Path) -> None:
    write_c(two_layers(batch=1), tmp_path / "net.c")
    command = ["cc", "-std=c99", "-ffast-math", "-fsyntax-only", "net.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "without -ffast-math" in done.stderr
    assert subprocess.run([*command, "-DNET_NO_FLOAT"], cwd=tmp_path, check=False).returncode == 0


def test_no_float_outside_of_the_border() -> None:
    made = to_c(two_layers(batch=1))
    core = "".join([*made.kernels.values(), made.body])
    assert not re.search(r"\b(float|double)\b", core)
    assert "float" in "".join(made.border_kernels.values())
    assert not re.search(r"\b(malloc|calloc|free|printf)\b", made.source)


def test_the_header_says_what_a_caller_needs() -> None:
    made = to_c(two_layers(), "my-net", {"batch": 3})
    macros = dict(re.findall(r"#define MY_NET_(\w+) (.+)", made.header))
    assert macros["INPUT_0_NAME"] == '"x"'
    assert (macros["INPUT_0_TYPE"], macros["INPUT_0_CODE_TYPE"]) == ("float", "uint8_t")
    assert (macros["INPUT_0_RANK"], macros["INPUT_0_SHAPE"], macros["INPUT_0_ELEMENTS"]) == ("2", "{3, 40}", "120")
    assert (macros["INPUT_0_SCALE"], macros["INPUT_0_ZERO_POINT"]) == ("0.0500000007f", "128")
    assert (macros["OUTPUT_0_SCALE"], macros["OUTPUT_1_TYPE"]) == ("0.25f", "uint8_t")
    assert (macros["INPUTS"], macros["OUTPUTS"]) == ("1", "2")
    assert "int my_net_run(const void *const in[], void *const out[], void *memory);" in made.header
    assert '#include "my-net.h"' in made.source


def test_the_same_program_gives_the_same_text() -> None:
    assert to_c(two_layers(batch=2)) == to_c(two_layers(batch=2))


def test_constants_that_are_alike_are_there_once() -> None:
    b = ProgramBuilder()
    x, y, z = (b.buffer((8,), np.uint8) for _ in range(3))
    b.input("x", x, np.uint8, (8,))
    table = np.arange(256, dtype=np.uint8)[::-1]
    b.emit("table", node="a", x=x, table=table, y=y, count=8)
    b.emit("table", node="b", x=y, table=table.copy(), y=z, count=8)
    b.output("z", z, np.uint8, (8,))
    assert len(re.findall(r"^static const ", to_c(b.program()).body, re.MULTILINE)) == 2


@needs_compiler
def test_constants_of_every_type_are_operands() -> None:
    cases = []
    for dtype in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.bool_):
        limits = (0, 1) if dtype is np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        held = np.array([*limits, 0, 1], dtype)
        b = ProgramBuilder()
        x, y = b.buffer((4,), dtype), b.buffer((4,), dtype)
        b.input("x", x, dtype, (4,))
        chosen = np.array([True, False, True, False])
        b.emit("where", node="w", c=chosen, a=x, b=held, y=y, dims=[4], c_strides=[1], a_strides=[1], b_strides=[1])
        b.output("y", y, dtype, (4,))
        program, feeds = b.program(), {"x": held[::-1].copy()}
        cases.append(CaseInC(program, feeds, Session(program).raw(feeds), f"{dtype}"))
    check_in_c(cases)


def test_open_sizes_are_refused_in_one_line_that_names_them() -> None:
    with pytest.raises(OptionError, match=r"decide that of 'batch': give --c-dim batch=SIZE$"):
        to_c(two_layers())
    with pytest.raises(ProgramError, match="unknown dimension 'length'"):
        to_c(two_layers(), dims={"batch": 1, "length": 3})


@pytest.mark.parametrize("stem", ['a"b', "a\\b", "ä", "a\nb"])
def test_names_that_no_include_can_hold(stem: str) -> None:
    with pytest.raises(OptionError, match="printable ASCII"):
        to_c(two_layers(batch=1), stem)


def test_all_instructions_without_a_kernel_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(c_source.KERNELS, "gemm")
    with pytest.raises(UnsupportedError, match=r"'first' \(gemm\), 'second' \(gemm\); use the .qprog"):
        to_c(two_layers(batch=1))


def test_what_does_nothing_is_left_out() -> None:
    b = ProgramBuilder()
    x, empty = b.buffer((0, 4), np.uint8), b.buffer((0, 4), np.uint8)
    b.input("x", x, np.uint8, (0, 4))
    b.emit("table", node="nothing", x=x, table=np.arange(256, dtype=np.uint8), y=empty, count=0)
    b.output("y", empty, np.uint8, (0, 4))
    assert "nothing" not in to_c(b.program()).source


def test_a_target_whose_tools_are_missing_is_known() -> None:
    assert Target("no-such-compiler").missing == "no-such-compiler"
    assert Target("cc", emulator=("no-such-emulator", "-M", "board")).missing in ("cc", "no-such-emulator")
