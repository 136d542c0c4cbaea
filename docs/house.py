"""The house: which folder may import which. `tests/test_layers.py` holds the code to it, ``python -m
docs.architecture`` draws it.

A *room* is a folder, or a module that lies in the root of `qcompiler/`, `passes/` or `runtime/`. The front of a package
(its ``__init__.py``, where that imports anything) is a room of its own: what is behind it does not know it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"qcompiler": "qcompiler", "qcompiler.passes": "passes", "qcompiler.runtime": "runtime"}
"""Folder of each package, by the name it is imported by."""

ALLOWED: Mapping[str, str] = {
    # the machine
    "runtime/errors": "",
    "runtime/requant": "runtime/errors",
    "runtime/cpu": "runtime/errors",
    "runtime/instructions": "runtime/cpu runtime/errors",
    "runtime/vector": "runtime/cpu runtime/instructions",
    "runtime/kernels": "runtime/cpu runtime/instructions runtime/vector",
    "runtime/machine": "runtime/cpu runtime/instructions runtime/kernels runtime/vector",
    "runtime/program": "runtime/errors runtime/instructions",
    "runtime/binding": "runtime/cpu runtime/errors runtime/instructions runtime/program",
    "runtime/run": "runtime/binding runtime/cpu runtime/errors runtime/instructions runtime/machine runtime/program",
    "runtime/session": "runtime/binding runtime/cpu runtime/errors runtime/instructions runtime/machine "
    "runtime/program runtime/run",
    "runtime/warm": "runtime/cpu runtime/errors runtime/run",
    "runtime/bundle": "runtime/cpu runtime/errors runtime/run",
    "runtime": "runtime/errors runtime/program runtime/session",
    # mathematics and data that know no graph
    "errors": "",
    "version": "",
    "records": "",
    "quiet": "",
    "workers": "errors",
    "linear_algebra": "",
    "layer_rules": "errors",
    "eigenvalues": "linear_algebra",
    "grids": "errors",
    "solvers": "grids linear_algebra",
    # the graph
    "graph": "errors",
    "shapes": "errors graph",
    "rewriting": "graph grids",
    "pass_base": "graph grids records",
    "onnx_io": "errors graph grids shapes version runtime/program",
    # lowering
    "lowering/core": "errors graph shapes runtime/errors runtime/instructions runtime/requant",
    "lowering/rules": "errors graph lowering/core shapes",
    "lowering/to_onnx": "errors graph lowering/core",
    "lowering/to_machine": "errors graph lowering/core shapes runtime/errors runtime/instructions runtime/program",
    "lowering": "graph lowering/core lowering/rules lowering/to_machine lowering/to_onnx runtime",
    "mixed": "errors graph lowering onnx_io records runtime runtime/errors runtime/program shapes",
    # programs as C
    "c_output": "errors runtime runtime/binding runtime/instructions runtime/program",
    # what is measured on feeds, and what passes do with it
    "feeds": "errors graph pass_base shapes",
    "scores": "errors feeds runtime/errors",
    "losses": "errors graph",
    "moments": "graph pass_base",
    "calibration": "losses errors feeds graph grids pass_base records solvers linear_algebra",
    "activations": "calibration feeds graph grids lowering/core linear_algebra",
    "equivalence": "calibration errors feeds graph pass_base records shapes linear_algebra",
    "replacement": "losses calibration equivalence errors feeds graph lowering pass_base records runtime "
    "linear_algebra eigenvalues",
    "weights": (
        "calibration errors feeds graph grids linear_algebra lowering pass_base quiet records rewriting solvers "
        "runtime runtime/binding"
    ),
    # passes
    "passes/expand": "graph pass_base rewriting shapes",
    "passes/fuse": "graph pass_base rewriting shapes",
    "passes/normalize": "graph pass_base rewriting shapes",
    "passes/equalize": "activations calibration equivalence feeds graph pass_base records rewriting linear_algebra",
    "passes/activations": "activations calibration errors feeds graph grids layer_rules moments pass_base records "
    "rewriting shapes",
    "passes/weights": "losses calibration errors feeds graph grids onnx_io pass_base records rewriting solvers weights "
    "workers linear_algebra",
    "passes/correct": "losses calibration feeds graph moments pass_base",
    "passes/replace": "calibration graph pass_base passes/activations passes/weights replacement linear_algebra",
    "passes/lower": "graph lowering pass_base",
    # what drives them
    "options": "errors grids layer_rules scores",
    "manager": "errors graph pass_base records",
    "pipeline": (
        "errors graph pass_base passes/activations passes/correct passes/equalize passes/expand "
        "passes/fuse passes/lower passes/normalize passes/replace passes/weights"
    ),
    "presets": "errors graph pass_base passes/activations passes/correct passes/equalize passes/replace passes/weights "
    "options pipeline",
    "report": "activations calibration errors feeds graph records",
    "page": "calibration errors graph grids records report version",
    "api": "c_output errors feeds graph lowering manager mixed onnx_io options pass_base presets records report "
    "runtime shapes",
    "commands": "api c_output errors feeds graph layer_rules lowering manager mixed onnx_io options page pass_base "
    "presets records report runtime scores shapes version",
    "cli": "commands errors options report runtime/errors",
    "qcompiler": "api mixed pass_base pipeline version",
    # old names, for passes of other packages
    "ir": "graph",
    "runner": "graph",
}
"""For each room, those that it may import, with all imports counted, inside functions too. In the order in which they
build on each other.
"""


@dataclass(frozen=True)
class Import:
    """One imported name: its absolute module, as far as it is known, and whether it is imported with the file
    itself.
    """

    target: str
    line: int
    at_load: bool
    relative: bool


def module_name(path: Path, package: str, folder: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def sources() -> dict[str, Path]:
    """Every module of the three folders, by the name it has when installed."""
    found = {}
    for package, folder in PACKAGES.items():
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
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
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
    """Every import of a module of the three folders."""
    path = SOURCES[module]
    return list(imports(path.read_text(encoding="utf8"), module, path.name == "__init__.py"))


def room(module: str) -> str:
    """The room that a module is in."""
    path = SOURCES[module].relative_to(ROOT)
    folder = path.parent
    if len(folder.parts) == 1 and path.name != "__init__.py":
        folder = path.with_suffix("")
    name = folder.as_posix().removeprefix("qcompiler/")
    return "lowering/core" if name == "lowering" and path.name != "__init__.py" else name


def edges() -> dict[tuple[str, str], list[str]]:
    """Which room imports which, with every import as ``file:line``."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in SOURCES:
        for item in imports_of(module):
            if item.target in SOURCES and room(item.target) != room(module):
                found.setdefault((room(module), room(item.target)), []).append(
                    f"{SOURCES[module].relative_to(ROOT)}:{item.line}"
                )
    return found
