"""What the runtime promises about itself: no floats inside, no heavy imports, movable, cached."""

from __future__ import annotations

import ast
import importlib
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import qcompiler.runtime
from qcompiler.runtime.cpu.jit import linked
from qcompiler.runtime.instructions.opcodes import OPCODES
from qcompiler.runtime.machine import shared_run
from qcompiler.runtime.run.machine_code import COMPILED, load
from tests.runtime.programs import two_layers

ROOT = Path(qcompiler.runtime.__file__).parent


def test_no_float_type_occurs_in_the_machine_code() -> None:
    """The LLVM IR of a thread that shares a run, with the interpreter and every kernel linked in, knows no float or
    double."""
    text = str(linked(shared_run.attend))
    assert len(re.findall(r"^define ", text, re.MULTILINE)) > 20
    found = re.findall(r"^.*(?<![%@])\b(?:float|double|half|bfloat)\b.*$", text, re.MULTILINE)
    # %half is a variable of a kernel
    assert not found, found[:3]


def compiled_functions(function: Any) -> set[str]:
    """Names of a compiled function and of all that it calls, directly or not."""
    found: dict[str, Any] = {}

    def visit(item: Any) -> None:
        name = f"{item.py_func.__module__}.{item.py_func.__name__}"
        if name in found:
            return
        found[name] = item
        for used in item.py_func.__code__.co_names:
            value = item.py_func.__globals__.get(used)
            if isinstance(value, Dispatcher):
                visit(value)

    visit(function)
    return set(found)


def test_the_machine_code_without_floats_holds_every_kernel() -> None:
    kernels = {f"qcompiler.runtime.kernels.{path.stem}" for path in ROOT.glob("kernels/*.py")}
    known = {
        f"{name}.{value.py_func.__name__}" for name in kernels for value in vars(importlib.import_module(name)).values()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == name
    }
    assert len(known) > 100
    assert known <= compiled_functions(shared_run.attend)


def python(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_session_loads_neither_the_compiler_nor_numba(tmp_path: Path) -> None:
    two_layers().save(tmp_path / "net.qprog")
    code = (
        "import sys, numpy as np; from qcompiler.runtime import Session; "
        f"Session({str(tmp_path / 'net.qprog')!r}).run({{'x': np.zeros((2, 40), np.float32)}}); "
        "print(*sorted({n.split('.')[0] for n in sys.modules}))"
    )
    load()  # the machine code is in the cache now
    loaded = set(python(code, ROOT.parent).split())
    assert "numpy" in loaded
    assert not loaded & {"numba", "scipy"}
    if sys.platform.startswith("linux") and platform.machine() == "x86_64":
        assert "llvmlite" not in loaded  # an image is mapped; elsewhere llvmlite links
    assert not loaded & {
        "onnx",
        "onnxruntime",
        "onnx_graphsurgeon",
        "networkx",
        "sympy",
        "typer",
        "rich",
        "torch",
        "pandas",
    }


def test_a_copy_under_another_name_runs_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "machine_copy", ignore=shutil.ignore_patterns("__pycache__"))
    two_layers().save(tmp_path / "net.qprog")
    code = (
        "import sys, numpy as np; from machine_copy import Session; "
        "y = Session('net.qprog').run({'x': np.zeros((2, 40), np.float32)}); "
        "print(y['y'].shape, any(n.startswith('qcompiler') for n in sys.modules))"
    )
    assert python(code, tmp_path).strip() == "(2, 10) False"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.name)
def test_imports_are_relative_or_of_the_three_libraries(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "numba", "llvmlite"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        assert {name.split(".")[0] for name in names} <= allowed


def test_the_cache_key_covers_every_module_that_is_compiled() -> None:
    """What `entry.py` imports, directly or not, lies in the folders that are hashed; errors.py is raised by Python
    alone."""
    imports = "import sys, qcompiler.runtime.machine.entry"
    code = f"{imports}; print(*(n for n in sys.modules if n.startswith('qcompiler.runtime.')))"
    loaded = {tuple(name.split(".")[2:]) for name in python(code, ROOT.parent).split()}
    assert {
        ("machine", "interpreter"),
        ("vector", "memory"),
        ("instructions", "opcodes"),
        ("kernels", "tiles"),
    } <= loaded
    assert {folder for folder, *_ in loaded} == {*COMPILED, "errors"}


def test_the_interpreter_knows_every_opcode() -> None:
    """Each opcode leads to a kernel: an unknown one would be skipped without a word."""
    tree = ast.parse((ROOT / "machine" / "interpreter.py").read_text())
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    compared = {
        item.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for side in node.comparators
        for item in ast.walk(side)
        if isinstance(item, ast.Name) and item.id.startswith("_")
    }
    assert {opcode.name for opcode in OPCODES} <= named
    assert {f"_{opcode.name.upper()}" for opcode in OPCODES} - {"_RESIZE_LINEAR"} <= compared
