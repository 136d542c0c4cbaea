"""Writes ``docs/architecture.md`` from the code: ``python -m docs.architecture`` (``make docs``). A test fails where
the page is stale.

The picture has the rooms of `docs/house.py` by floor, and of its arrows those that no other way of arrows replaces. The
way of a model names functions; what is said of each is the first paragraph of its docstring.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import networkx as nx

from docs.house import ALLOWED, ROOT, SOURCES, edges, room

PAGE = ROOT / "docs" / "architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
_BEGIN, _END = "<!-- made by `make docs` -->\n", "<!-- end -->"

FLOORS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("commands", ("cli", "commands", "qcompiler", "api", "page", "report")),
    ("old names", ("ir", "runner")),
    ("options, order of passes", ("options", "presets", "pipeline", "manager")),
    ("passes: exact", ("passes/normalize", "passes/expand", "passes/fuse", "passes/equalize")),
    ("passes: not exact", ("passes/replace", "passes/activations", "passes/weights", "passes/correct", "passes/lower")),
    (
        "what passes are made of",
        (
            "rewriting",
            "equivalence",
            "replacement",
            "weights",
            "activations",
            "calibration",
            "losses",
            "moments",
            "feeds",
            "scores",
        ),
    ),
    ("programs as C", ("c_output",)),
    ("lowering", ("mixed", "lowering", "lowering/rules", "lowering/to_machine", "lowering/to_onnx", "lowering/core")),
    ("graph and files", ("onnx_io", "pass_base", "shapes", "graph")),
    (
        "mathematics and data",
        (
            "solvers",
            "grids",
            "linear_algebra",
            "eigenvalues",
            "layer_rules",
            "records",
            "workers",
            "quiet",
            "version",
            "errors",
        ),
    ),
    (
        "the machine: a run",
        (
            "runtime",
            "runtime/bundle",
            "runtime/warm",
            "runtime/session",
            "runtime/run",
            "runtime/binding",
            "runtime/program",
        ),
    ),
    (
        "the machine: compiled code",
        ("runtime/machine", "runtime/kernels", "runtime/vector", "runtime/instructions", "runtime/cpu"),
    ),
    ("the machine: definitions", ("runtime/requant", "runtime/errors")),
)
"""Every room, by floor, top to bottom."""

WAY: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Reading the command",
        (
            "qcompiler.cli:compile_command",
            "qcompiler.options:Options",
            "qcompiler.commands.compile:compile_and_write",
            "qcompiler.api:compile",
        ),
    ),
    (
        "Reading the model and the feeds",
        ("qcompiler.onnx_io.importer:load_graph", "qcompiler.feeds.sources:open_source"),
    ),
    (
        "Which passes, in which order",
        ("qcompiler.presets:Preset.pipeline", "qcompiler.manager:Manager.run", "qcompiler.graph.verify:check"),
    ),
    (
        "Grids",
        ("qcompiler.graph.placement:place", "qcompiler.calibration.collect:observe", "qcompiler.graph.ir:QuantSpec"),
    ),
    (
        "Levels of the weights",
        (
            "qcompiler.calibration.gram:layer_inputs",
            "qcompiler.solvers.problem:LayerProblem",
            "qcompiler.solvers.base:Solver",
        ),
    ),
    ("Writing `.onnx`", ("qcompiler.onnx_io.packed_constants:packed", "qcompiler.onnx_io.export:save")),
    (
        "Lowering to integers",
        (
            "qcompiler.lowering:lower_graph",
            "qcompiler.lowering.engine:Lowering",
            "qcompiler.lowering.engine:Rule",
            "runtime.requant:requant",
            "qcompiler.lowering.overflow_proof:prove_accumulator",
        ),
    ),
    (
        "Writing `.qprog`",
        (
            "qcompiler.lowering:to_program",
            "qcompiler.lowering.to_machine.emitter:Emitter",
            "runtime.program.builder:ProgramBuilder",
            "runtime.program.file:write_contents",
        ),
    ),
    (
        "Writing `.c`",
        (
            "qcompiler.c_output.c_source:to_c",
            "qcompiler.c_output.c_calls:kernel_of",
            "qcompiler.c_output.fragments:definitions",
        ),
    ),
    (
        "From a feed to the answer",
        (
            "runtime.session:Session.run",
            "runtime.binding.bind:bind",
            "runtime.binding.memory_plan:place",
            "runtime.binding.packed_weights:pack_program",
            "runtime.run.arena:Arena",
            "runtime.run.machine_code:load",
            "runtime.machine.shared_run:run",
            "runtime.machine.interpreter:execute",
        ),
    ),
)
"""Steps from a file to an answer, with the functions and classes to read for each."""


def first_line(node: ast.AST) -> str:
    """First line of a docstring.

    Raises:
        ValueError: it has none.
    """
    text = ast.get_docstring(node) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) else None
    if not text:
        raise ValueError("no docstring")
    return " ".join(text.split("\n\n")[0].split())


def definition(place: str) -> tuple[Path, ast.AST]:
    """File and definition of ``module:name`` or ``module:Class.method``.

    Raises:
        ValueError: there is none.
    """
    module, _, name = place.partition(":")
    path = SOURCES[module if module.startswith("qcompiler") else f"qcompiler.{module}"]
    found: ast.AST = ast.parse(path.read_text(encoding="utf8"))
    for part in name.split("."):
        named = [
            node
            for node in getattr(found, "body", ())
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        ]
        if not named:
            raise ValueError(f"{place}: {path.relative_to(ROOT)} defines no {part}")
        found = named[0]
    return path, found


def picture() -> str:
    """The rooms and the arrows between them, as a Mermaid flowchart."""
    arrows = nx.transitive_reduction(nx.DiGraph(list(edges())))
    names = {name: f"r_{name.replace('/', '_')}" for name in ALLOWED}  # "graph" alone is a word of Mermaid's own
    lines = ["```mermaid", "flowchart TB"]
    for number, (title, rooms) in enumerate(FLOORS):
        lines.append(f'  subgraph f{number}["{title}"]')
        lines.extend(f'    {names[name]}["{name}"]' for name in rooms)
        lines.append("  end")
    lines.extend(f"  {names[one]} --> {names[other]}" for one, other in sorted(arrows.edges))
    return "\n".join([*lines, "```"])


def table() -> str:
    """Every room, what is in it, and what it imports."""
    fronts = {
        room(module): path for module, path in sorted(SOURCES.items(), key=lambda item: len(item[0]), reverse=True)
    }
    fronts |= {room(module): path for module, path in SOURCES.items() if path.name == "__init__.py"}
    fronts["lowering/core"] = SOURCES["qcompiler.lowering.engine"]
    lines = ["| room | what is in it | imports |", "|---|---|---|"]
    for name, others in reversed(ALLOWED.items()):
        path = fronts[name]
        said = first_line(ast.parse(path.read_text(encoding="utf8")))
        lines.append(f"| [`{name}`](../{path.relative_to(ROOT)}) | {said} | {', '.join(others.split())} |")
    return "\n".join(lines)


def way() -> str:
    """The way of a model, step by step."""
    lines = []
    for number, (title, places) in enumerate(WAY, 1):
        lines.append(f"{number}. **{title}**")
        for place in places:
            path, node = definition(place)
            lines.append(f"   - [`{place.replace(':', '.')}`](../{path.relative_to(ROOT)}): {first_line(node)}")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    return f"""# Architecture

Made from the code by `make docs`; do not edit. What the folders may import is `docs/house.py`,
held by `tests/test_layers.py`.

## The way of a model, from its file to an answer
{way()}

## The picture
An arrow says *imports*. Where one room reaches another by way of others,
no arrow of its own is drawn; the table below has all of them.

{picture()}

## The rooms
{table()}
"""


def floors() -> str:
    """The rooms by floor, as plain text."""
    width = max(len(title) for title, _ in FLOORS)
    return "\n".join(("```", *(f"{title:{width}}  {'  '.join(rooms)}" for title, rooms in FLOORS), "```", ""))


def contributing() -> str:
    """CONTRIBUTING.md with the rooms by floor as they are.

    Raises:
        ValueError: the file has lost the marks between which they are.
    """
    before, begin, rest = CONTRIBUTING.read_text(encoding="utf8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{CONTRIBUTING.name} lacks the marks {_BEGIN.strip()} and {_END}")
    return f"{before}{begin}{floors()}{end}{after}"


def main() -> None:
    """Write the page, and the rooms into CONTRIBUTING.md."""
    for path, text in ((PAGE, page()), (CONTRIBUTING, contributing())):
        path.write_text(text, encoding="utf8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
