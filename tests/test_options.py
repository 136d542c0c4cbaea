"""Options are defined once: what the help, the docstring and the document say, and that each reaches its effect."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

import qcompiler
from docs import options as document
from qcompiler.cli import application, compile_command
from qcompiler.commands import compile as command
from qcompiler.errors import OptionError, PassError, suggestion
from qcompiler.graph.ir import Graph
from qcompiler.layer_rules import LayerRule
from qcompiler.options import GROUPS, CompileRequest, Options, flag_of, options_of, text_of_default
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.replace.snnk_bundle import SnnkBundle
from qcompiler.passes.weights.allocate_bits import DEFAULT_SHARE
from qcompiler.presets import pipeline_for
from tests.helpers.mixed_members import KINDS

OPTIONS = {entry.name: entry for kind in (Options, CompileRequest) for entry in options_of(kind)}
SMALL = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y) { a = Exp(x) y = Add(a, x) }'


@dataclass(frozen=True)
class Seen(Pass):
    """Keeps what passes are told."""

    name: ClassVar[str] = "seen"
    exact: ClassVar[bool] = True
    seeds: ClassVar[list[int]] = []

    def run(self, graph: Graph, ctx: Context) -> bool:
        self.seeds.append(ctx.seed)
        return False


@dataclass(frozen=True)
class Wrong(Pass):
    """Says that it is exact and is not."""

    name: ClassVar[str] = "wrong"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        graph.nodes[0].op = "Tanh"
        return True


PIPELINES: dict[str, tuple[dict[str, Any], Any]] = {
    "level": ({}, 3), "passes": ({}, "normalize"), "weights": ({}, "int4"), "widen": ({}, "off"),
    "size_budget": ({"weights": "auto"}, 0.25), "max_loss": ({"weights": "auto"}, 0.1),
    "latency_budget": ({"weights": "auto"}, 0.5),
    "latency_costs": ({"weights": "auto", "latency_budget": 0.5}, "report.json"),
    "avoid_saturation": ({}, False), "activations": ({}, "int16"), "bundle": ({}, "auto"),
    "bundle_error": ({"bundle": "auto"}, 0.3), "block": ({"weights": "int4"}, 64),
    "rules": ({}, (LayerRule("a", grid="int4"),)),
}
"""Options that change which passes run, or their options: what else is asked for, and another value."""


@pytest.mark.parametrize("name", PIPELINES)
def test_an_option_changes_the_passes(name: str) -> None:
    others, value = PIPELINES[name]
    plain, changed = Options(**others), dataclasses.replace(Options(**others), **{name: value})
    texts = [[str(pipeline_for(each, for_onnx=to)) for to in (True, False)] for each in (plain, changed)]
    assert texts[0] != texts[1]


def _seed() -> bool:
    Seen.seeds.clear()
    qcompiler.compile(onnx.parser.parse_model(SMALL), options=Options(passes="tests.test_options:Seen", seed=7))
    return Seen.seeds == [7]


def _verify() -> bool:
    wrong = Options(passes="tests.test_options:Wrong,normalize")
    qcompiler.compile(onnx.parser.parse_model(SMALL), options=wrong)
    with pytest.raises(PassError, match="wrong"):
        qcompiler.compile(onnx.parser.parse_model(SMALL), options=dataclasses.replace(wrong, verify=True))
    return True


def _dims() -> bool:
    compiled = qcompiler.compile(onnx.parser.parse_model(SMALL), options=Options(0, dims=("N=3",)))
    return list(compiled.graph.inputs[0].shape or ()) == [3, 4]


def _mixed() -> bool:
    member = KINDS["trees"](np.random.default_rng(0))
    plain, mixed = (
        qcompiler.compile(member.model, data=member.calibration, options=Options(0, mixed=allowed), for_onnx=False)
        for allowed in (False, True)
    )
    return plain.mixed is None and mixed.mixed is not None


def run(folder: Path, *arguments: object) -> Result:
    onnx.save(onnx.parser.parse_model(SMALL), folder / "model.onnx")
    given = [folder / "model.onnx", "-O", "0", *arguments]
    return CliRunner().invoke(application(compile_command), [str(argument) for argument in given])


def ran(folder: Path, *arguments: object) -> Result:
    result = run(folder, "-o", folder / "out.onnx", *arguments)
    assert result.exit_code == 0, result.output
    return result


def _form(folder: Path) -> bool:
    ran(folder, "--format", "integer")
    return "QuantizeLinear" not in {node.op_type for node in onnx.load(folder / "out.onnx").graph.node[1:-1]}


def _calib(folder: Path) -> bool:
    np.savez(folder / "feeds.npz", x=np.ones((5, 4), np.float32))
    given = ran(folder, "--calib", folder / "feeds.npz")
    return "--calib" not in given.stderr and "--calib" in ran(folder, "--force").stderr


def _outputs(folder: Path) -> bool:
    ran(folder, "-o", folder / "out.qprog")
    return (folder / "out.qprog").exists() and (folder / "out.onnx").exists()


def _c_dims(folder: Path) -> bool:
    refused = run(folder, "-o", folder / "net.c")
    ran(folder, "-o", folder / "net.c", "--c-dim", "N=3")
    return refused.exit_code == 2 and "NET_INPUT_0_SHAPE {3, 4}" in (folder / "net.h").read_text()


def _force(folder: Path) -> bool:
    ran(folder)
    return run(folder, "-o", folder / "out.onnx").exit_code == 2 and ran(folder, "--force").exit_code == 0


def _report(folder: Path) -> bool:
    ran(folder, "--report", folder / "report.json")
    return "y" in json.loads((folder / "report.json").read_text())["output_sqnr_db"]


def _recipe(folder: Path) -> bool:
    (folder / "recipe.toml").write_text("form = 'integer'")
    ran(folder, "--recipe", folder / "recipe.toml")
    return "QuantizeLinear" not in {node.op_type for node in onnx.load(folder / "out.onnx").graph.node[1:-1]}


def _save_recipe(folder: Path) -> bool:
    ran(folder, "--save-recipe", folder / "recipe.toml")
    return "level = 0" in (folder / "recipe.toml").read_text()


def _accuracy(folder: Path) -> bool:
    given = ["--accuracy", "tests.test_options:half", "--force"]
    ran(folder, *given, "--max-drop", "1")
    return run(folder, "-o", folder / "out.onnx", *given).exit_code == 2


def half(run: Callable[[Any], Any]) -> float:
    """A measure that is 1 for the float model of `SMALL` and less for any other."""
    x = np.linspace(-1, 1, 400, dtype=np.float32).reshape(-1, 4)
    return 1.0 if np.allclose(run({"x": x})["y"], np.exp(x) + x, atol=1e-6) else 0.5


EFFECTS: dict[str, Callable[[Path], bool]] = {
    "seed": lambda _: _seed(), "verify": lambda _: _verify(), "dims": lambda _: _dims(), "form": _form,
    "calib": _calib, "outputs": _outputs, "c_dims": _c_dims, "force": _force, "report": _report,
    "accuracy": _accuracy, "max_drop": _accuracy, "mixed": lambda _: _mixed(), "recipe": _recipe,
    "save_recipe": _save_recipe,
    "print_after": lambda folder: "# after fold-shapes" in ran(folder, "--print-after", "fold-shapes").stderr,
    "time_passes": lambda folder: re.search(r"\d s +fold-shapes", ran(folder, "--time-passes").stderr) is not None,
    "as_json": lambda folder: "figures" in json.loads(ran(folder, "--json").stdout),
}
"""The others: whether what they ask for happens."""


@pytest.mark.parametrize("name", EFFECTS)
def test_an_option_has_its_effect(name: str, tmp_path: Path) -> None:
    assert EFFECTS[name](tmp_path)


def test_no_option_is_without_an_effect_here() -> None:
    assert {*PIPELINES, *EFFECTS} == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_example_is_read_by_the_command_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text("level = 1")
    requests: list[CompileRequest] = []
    monkeypatch.setattr(command, "compile_and_write", lambda request, *_: requests.append(request))
    needed = ["model.onnx", *(() if name == "outputs" else ("-o", "out.onnx"))]
    for arguments in (needed, [*needed, *shlex.split(flag_of(OPTIONS[name]).example)]):
        result = CliRunner().invoke(application(compile_command), arguments)
        assert name == "outputs" or result.exit_code == 0, result.output
    holder = requests[-1].options if name in {entry.name for entry in options_of(Options)} else requests[-1]
    assert getattr(holder, name) != OPTIONS[name].default
    if name != "outputs":
        assert requests[0].options == Options()


def test_the_help_has_every_option_in_its_group_with_its_default_and_example() -> None:
    wide = {"COLUMNS": "300", "TERMINAL_WIDTH": "300"}
    result = CliRunner().invoke(application(compile_command), ["--help"], env=wide)
    panels = {}
    for panel in re.split(r"╭─ ", result.output)[1:]:
        lines = [line.strip("│ ") for line in panel.splitlines()[1:]]
        panels[panel.split(" ─")[0]] = " ".join(" ".join(lines).split())
    assert [name for name in panels if name in GROUPS] == list(GROUPS)
    for entry in OPTIONS.values():
        flag = flag_of(entry)
        text = panels[flag.group]
        for part in (*flag.names, flag.help, f"Example: {flag.example}"):
            assert part in text, (entry.name, part)
        assert entry.name == "outputs" or f"Default: {text_of_default(entry)}." in text, entry.name


def test_the_docstrings_say_what_the_help_says() -> None:
    for kind in (Options, CompileRequest):
        for entry in options_of(kind):
            assert f"    {entry.name}: {flag_of(entry).help}" in str(kind.__doc__)


def test_the_document_is_that_of_the_options() -> None:
    assert document.PAGE.read_text(encoding="utf8") == document.page(), "stale: make docs"


def test_defaults_that_passes_have_are_told_as_they_are() -> None:
    assert text_of_default(OPTIONS["bundle_error"]) == f"{SnnkBundle.error:g}"
    assert text_of_default(OPTIONS["size_budget"]).startswith(f"{DEFAULT_SHARE:.0%}")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"level": 4}, "-O 4: must be 0, 1, 2 or 3"),
        ({"activations": "unit8"}, "did you mean 'uint8'"),
        ({"weights": "imt4"}, "--weights imt4: unknown grid 'imt4' (did you mean 'int4'?)"),
        ({"weights": "int9"}, "--weights int9"),
        ({"form": "interger"}, "--format interger: must be qdq or integer (did you mean 'integer'?)"),
        ({"widen": "Auto"}, "did you mean 'auto'"),
        ({"widen": -1}, "--widen -1"),
        ({"weights": "auto", "size_budget": 1.5}, "--size-budget 1.5: must be a share"),
        ({"passes": "normlize"}, "did you mean 'normalize'"),
        ({"passes": "fold-scale(limt=3)"}, "has no option 'limt'"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_nearest_one(given: dict[str, Any], part: str) -> None:
    with pytest.raises(OptionError) as caught:
        pipeline_for(Options(**given), for_onnx=True)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["model.onnx", "--wieghts", "int8"], "no such option --wieghts (did you mean '--weights'?)"),
        (["model.onnx", "--no-avoid-saturaton"], "did you mean '--no-avoid-saturation'"),
        (["model.onnx", "-o"], "'-o' requires an argument"),
        (["model.onnx", "-o", "out.onnx", "--seed", "x"], "--seed"),
        (["model.onnx"], "-o"),
        ([], "model"),
    ],
)
def test_what_the_command_line_cannot_read_is_one_line(arguments: list[str], part: str) -> None:
    result = CliRunner().invoke(application(compile_command), arguments)
    assert result.exit_code == 2
    assert part in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_what_is_near_to_nothing_suggests_nothing() -> None:
    assert suggestion("zzz", ["uint8", "int8"]) == ""
    assert suggestion("int8", ["uint8", "int8"]) == ""
