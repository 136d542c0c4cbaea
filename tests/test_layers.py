"""The house (CONTRIBUTING.md): imports run one way, folders are small, a name says where a thing is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import networkx as nx
import pytest

from docs.house import ALLOWED, ROOT, SOURCES, Import, edges, imports, imports_of, room

IDEAS = (
    "eigenvalues", "linear_algebra", "grids", "solvers", "equivalence.affine", "equivalence.hadamard",
    "equivalence.levels",
    "weights.allocation",
    "replacement.cost", "replacement.estimators", "replacement.factor", "replacement.features", "replacement.fit",
    "replacement.neurons",
)  # fmt: skip
"""Mathematics without any graph. The rest of `equivalence` and of `replacement` finds regions of graphs and writes
into them."""

DRIVERS = ("api", "cli", "onnx_io.export", "onnx_io.importer", "manager", "pipeline", "presets", "graph.verify")
CHOOSERS = ("qcompiler.pipeline", "qcompiler.presets")
"""What drives passes; a pass knows none of it."""


def declared(project: str) -> set[str]:
    """Import names of the dependencies that a pyproject.toml declares."""
    described = tomllib.loads((ROOT / project).read_text())["project"]
    requirements = [*described["dependencies"], *described["optional-dependencies"].get("jit", ())]
    names = {re.split(r"[<>=~!\[; ]", requirement)[0].replace("-", "_") for requirement in requirements}
    return {"google" if name == "protobuf" else name for name in names} | {"llvmlite"}  # llvmlite is a part of numba


RUNTIME_NEEDS = declared("runtime/pyproject.toml")
COMPILER_NEEDS = declared("pyproject.toml")


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
    known = any(inside(target, f"qcompiler.{name}") for name in (*IDEAS, "errors", "quiet"))
    if not known and any(inside(module, f"qcompiler.{idea}") for idea in IDEAS):
        return "the ideas are mathematics without any graph"
    return None


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module: str) -> None:
    wrong = [
        f"{SOURCES[module].relative_to(ROOT)}:{item.line}: {why}"
        for item in imports_of(module)
        if (why := complaint(module, item))
    ]
    assert wrong == []


def test_rooms_import_what_the_table_allows() -> None:
    """No import that is not in the table, and no entry of the table that nothing needs."""
    found, allowed = edges(), {(one, other) for one, others in ALLOWED.items() for other in others.split()}
    assert {edge: places[0] for edge, places in found.items() if edge not in allowed} == {}
    assert allowed - found.keys() == set(), "docs/house.py allows what nothing needs"
    assert {room(module) for module in SOURCES} >= ALLOWED.keys()


def test_rooms_build_on_each_other_in_the_order_of_the_table() -> None:
    order = list(ALLOWED)
    assert [
        (one, other)
        for one, others in ALLOWED.items()
        for other in others.split()
        if order.index(other) >= order.index(one)
    ] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """All imports count, those inside functions too: they only hide a knot."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    for module in SOURCES:
        targets = {item.target for item in imports_of(module)} & SOURCES.keys() - {module}
        graph.add_edges_from((module, target) for target in targets)
    assert list(nx.simple_cycles(graph)) == []


MOST_FILES, MOST_LINES = 18, 400
CODE = ("qcompiler", "passes", "runtime", "tests", "models", "benchmarks", "examples", "docs")
PARALLEL = ("lowering/rules", "lowering/to_machine", "lowering/to_onnx")
"""Rooms with one file for each kind of operators, of the same name in all of them."""
OLD_NAMES = {"ir", "runner"}
"""Modules of the root that only lead to where their content is now."""
OF_SEVERAL = {
    "benchmarks": {"real_models"},
    "calibration": {"beyond"},
    "": {"compiled_models", "documents", "exact_values", "layers", "packaging", "small_layers"},
    "examples": {"c", "custom_pass", "edge", "tutorials"},
    "lowering": {"borders", "foreign", "operators", "place", "random_graphs", "string_inputs"},
    "models": {"models", "zoo_tools"},
    "page": {"browser"},
    "passes/equalize": {"equivalence_passes"},
    "passes": {"normalize", "normalize_random"},
    "runtime": {"house"},
}
"""Tests of several modules of a folder at once."""


@pytest.mark.parametrize("path", sorted((ROOT / "passes").rglob("*.py")), ids=lambda path: path.stem)
def test_every_pass_has_a_test_file(path: Path) -> None:
    mirrored = ROOT / "tests" / path.relative_to(ROOT)
    assert path.name == "__init__.py" or mirrored.with_name(f"test_{path.name}").exists()


def files(*folders: str) -> list[Path]:
    """The Python files of these folders of the checkout, build trees left out."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.relative_to(ROOT) for path in found if "build" not in path.relative_to(ROOT).parts]


def test_no_folder_has_too_many_files() -> None:
    counts = Counter(path.parent.as_posix() for path in files(*CODE))
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_file_is_too_long() -> None:
    lengths = {path.as_posix(): len((ROOT / path).read_text(encoding="utf8").splitlines()) for path in files(*CODE)}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize("package", ["qcompiler", "passes", "runtime"])
def test_no_module_name_occurs_twice(package: str) -> None:
    rooms: dict[str, set[str]] = {}
    for path in files(package):
        folder = path.parent.relative_to(package).as_posix()
        if folder != "." or path.stem not in OLD_NAMES:
            rooms.setdefault(path.stem, set()).add("lowering/*" if folder in PARALLEL else folder)
    assert {name: places for name, places in rooms.items() if len(places) > 1 and name != "__init__"} == {}


def test_tests_lie_where_their_modules_do() -> None:
    """``tests/<folder>/test_<module>.py``, with the folders of `qcompiler/` named without it."""
    modules = {path.with_suffix("").as_posix().removeprefix("qcompiler/") for path in files(*CODE)}
    astray = []
    for path in files("tests"):
        folder, name = path.parent.relative_to("tests").as_posix().removeprefix("."), path.stem.removeprefix("test_")
        if (
            path.name.startswith("test_")
            and name not in OF_SEVERAL.get(folder, ())
            and f"{folder}/{name}".removeprefix("/") not in modules
        ):
            astray.append(path.as_posix())
    assert astray == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("qcompiler.runtime.session", "import onnx", "'onnx' is not a dependency of this part"),
        ("qcompiler.runtime.session", "from ..graph.ir import Graph", "runtime/ imports nothing of the compiler"),
        (
            "qcompiler.runtime.session",
            "from qcompiler.runtime import requant",
            "inside passes/ and runtime/ only relative imports",
        ),
        ("qcompiler.passes.fold", "from ..manager import run", "a pass knows nothing of what drives it"),
        ("qcompiler.passes.fold", "from ..graph.ir import Graph\nfrom . import other\nimport numpy as np", None),
        (
            "qcompiler.manager",
            "def f():\n    from qcompiler.passes.fold import Fold",
            "only pipeline.py and presets.py import passes",
        ),
        (
            "qcompiler.manager",
            "import passes",
            ("'passes' is no name of its own: use qcompiler.passes, or a relative import inside that folder"),
        ),
        ("qcompiler.grids", "from qcompiler.graph.ir import Graph", "the ideas are mathematics without any graph"),
        ("qcompiler.cli", "import requests", "'requests' is not a dependency of this part"),
    ],
)
def test_the_rule_bites(module: str, source: str, expected: str | None) -> None:
    found = [why for item in imports(source, module, False) if (why := complaint(module, item))]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("module", "is_package", "line", "target"),
    [
        ("qcompiler.passes.fold", False, "from ..graph.ir import Graph", "qcompiler.graph.ir"),
        ("qcompiler.passes.fold", False, "from ..graph import ir", "qcompiler.graph.ir"),
        ("qcompiler.passes", True, "from ..graph.ir import Graph", "qcompiler.graph.ir"),
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
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
    )
    assert "qcompiler.pipeline" in loaded
    assert not loaded & {
        "numba",
        "llvmlite",
        "scipy.linalg",
        "scipy.optimize",
        "scipy.sparse",
        "scipy.special",
        "matplotlib",
        "distributed",
    }


@pytest.mark.parametrize("name", ["ir", "runner"])
def test_old_names_say_the_new_ones(name: str) -> None:
    sys.modules.pop(f"qcompiler.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"qcompiler.graph.{name}"):
        old = importlib.import_module(f"qcompiler.{name}")
    new = importlib.import_module(f"qcompiler.graph.{name}")
    assert {key for key in new.__all__ if getattr(old, key) is not getattr(new, key)} == set()
