"""Imports run one way (CONTRIBUTING.md, "The house"): runtime <- qcompiler -> passes (from pipeline.py and presets.py alone) -> the ideas and ir."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"qcompiler": "qcompiler", "qcompiler.passes": "passes", "qcompiler.runtime": "runtime"}

IDEAS = (
    "linear_algebra", "grids", "layer_problem", "solvers", "equivalence.affine", "equivalence.hadamard", "equivalence.levels", "allocation",
    "replacement.cost", "replacement.estimators", "replacement.factor", "replacement.features", "replacement.fit", "replacement.neurons",
)  # fmt: skip
"""Mathematics without any graph. The rest of `equivalence` and of `replacement` finds regions of graphs and writes into them."""

DRIVERS = ("api", "cli", "export", "importer", "manager", "pipeline", "presets", "verify")
CHOOSERS = ("qcompiler.pipeline", "qcompiler.presets")
"""What drives passes; a pass knows none of it."""

def declared(project: str) -> set[str]:
    """Import names of the dependencies that a pyproject.toml declares."""
    requirements = tomllib.loads((ROOT / project).read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0].replace("-", "_") for requirement in requirements}
    return {"google" if name == "protobuf" else name for name in names} | {"llvmlite"}  # llvmlite is a part of numba


RUNTIME_NEEDS = declared("runtime/pyproject.toml")
COMPILER_NEEDS = declared("pyproject.toml")


@dataclass(frozen=True)
class Import:
    """One imported name: its absolute module, as far as it is known, and whether it is imported with the file itself."""

    target: str
    line: int
    at_load: bool
    relative: bool


def module_name(path: Path, package: str, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def sources() -> dict[str, Path]:
    """Every module of the three folders, by the name it has when installed."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "build" not in path.relative_to(ROOT).parts:
                found[module_name(path, package, ROOT / folder)] = path
    return found


SOURCES = sources()


def absolute(node: ast.ImportFrom, package: list[str]) -> str:
    """The module that a ``from`` import in ``package`` means."""
    if node.level == 0:
        return str(node.module)
    parents = package[: len(package) - node.level + 1]
    return ".".join((*parents, node.module) if node.module else parents)


def imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import of a file; those below ``if TYPE_CHECKING`` or in a function do not count as ``at_load``."""
    tree = ast.parse(source)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) not in late, False)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module.split(".") if is_package else module.split(".")[:-1])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in SOURCES else base, node.lineno, id(node) not in late, node.level > 0)


def imports_of(module: str) -> list[Import]:
    path = SOURCES[module]
    return list(imports(path.read_text(encoding="utf8"), module, path.name == "__init__.py"))


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def complaint(module: str, item: Import) -> str | None:
    """What is wrong with this import; None when it is fine."""
    target, top = item.target, item.target.split(".")[0]
    in_part = inside(module, "qcompiler.passes") or inside(module, "qcompiler.runtime")
    if top in ("passes", "runtime"):
        return f"'{top}' is no name of its own: use qcompiler.{top}, or a relative import inside that folder"
    if in_part and top == "qcompiler" and not item.relative:
        return "inside passes/ and runtime/ only relative imports"
    if top != "qcompiler":
        needs = RUNTIME_NEEDS if inside(module, "qcompiler.runtime") else COMPILER_NEEDS
        return None if top in sys.stdlib_module_names or top in needs else f"'{top}' is not a dependency of this part"
    if inside(module, "qcompiler.runtime") and not inside(target, "qcompiler.runtime"):
        return "runtime/ imports nothing of the compiler"
    if inside(target, "qcompiler.passes") and not inside(module, "qcompiler.passes") and module not in CHOOSERS:
        return "only pipeline.py and presets.py import passes"
    if inside(module, "qcompiler.passes") and any(inside(target, f"qcompiler.{driver}") for driver in DRIVERS):
        return "a pass knows nothing of what drives it"
    if any(inside(module, f"qcompiler.{idea}") for idea in IDEAS) and not any(inside(target, f"qcompiler.{name}") for name in (*IDEAS, "errors")):
        return "the ideas are mathematics without any graph"
    return None


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module: str) -> None:
    wrong = [f"{SOURCES[module].relative_to(ROOT)}:{item.line}: {why}" for item in imports_of(module) if (why := complaint(module, item))]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    edges: nx.DiGraph[str] = nx.DiGraph()
    for module in SOURCES:
        targets = {item.target for item in imports_of(module) if item.at_load} & SOURCES.keys() - {module}
        edges.add_edges_from((module, target) for target in targets)
    assert list(nx.simple_cycles(edges)) == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("qcompiler.runtime.session", "import onnx", "'onnx' is not a dependency of this part"),
        ("qcompiler.runtime.session", "from ..ir import Graph", "runtime/ imports nothing of the compiler"),
        ("qcompiler.runtime.session", "from qcompiler.runtime import requant", "inside passes/ and runtime/ only relative imports"),
        ("qcompiler.passes.fold", "from ..manager import run", "a pass knows nothing of what drives it"),
        ("qcompiler.passes.fold", "from ..ir import Graph\nfrom . import other\nimport numpy as np", None),
        ("qcompiler.manager", "def f():\n    from qcompiler.passes.fold import Fold", "only pipeline.py and presets.py import passes"),
        ("qcompiler.manager", "import passes", "'passes' is no name of its own: use qcompiler.passes, or a relative import inside that folder"),
        ("qcompiler.grids", "from qcompiler.ir import Graph", "the ideas are mathematics without any graph"),
        ("qcompiler.cli", "import requests", "'requests' is not a dependency of this part"),
    ],
)
def test_the_rule_bites(module: str, source: str, expected: str | None) -> None:
    found = [why for item in imports(source, module, False) if (why := complaint(module, item))]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("module", "is_package", "line", "target"),
    [
        ("qcompiler.passes.fold", False, "from ..ir import Graph", "qcompiler.ir"),
        ("qcompiler.passes.fold", False, "from .. import ir", "qcompiler.ir"),
        ("qcompiler.passes", True, "from ..ir import Graph", "qcompiler.ir"),
        ("qcompiler.runtime.kernels", True, "from . import gemm", "qcompiler.runtime.kernels"),
        ("qcompiler.runtime.kernels.gemm", False, "from ..requant import requant", "qcompiler.runtime.requant"),
    ],
)
def test_relative_imports_are_resolved(module: str, is_package: bool, line: str, target: str) -> None:
    assert [item.target for item in imports(line, module, is_package)] == [target]


@pytest.mark.parametrize("name", ["qcompiler", "qcompiler.runtime"])
def test_nothing_heavy_is_loaded_with_the_package_or_the_machine(name: str) -> None:
    heavy = ("onnx", "onnxruntime", "onnx_graphsurgeon", "scipy", "sympy", "networkx", "typer", "rich")
    code = f"import sys, {name}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_compiler_loads_no_library_that_only_some_passes_need() -> None:
    """A command that rounds to 8 bits should not wait for Numba, nor pay its memory."""
    program = "import sys, qcompiler.api; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split())
    assert "qcompiler.pipeline" in loaded
    assert not loaded & {"numba", "llvmlite", "scipy.linalg", "scipy.optimize", "scipy.sparse", "scipy.special", "matplotlib", "distributed"}
