"""Recipes: what is read, what is refused, and that a saved one gives the same bytes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command
from qcompiler.commands.recipes import read_recipe, recipe_of
from qcompiler.errors import OptionError
from qcompiler.layer_rules import LayerRule
from qcompiler.options import CompileRequest, Options
from tests.helpers.page_models import FEEDS, small_model

RULES = (LayerRule("Gemm*", grid="int4"), LayerRule(op="Relu", int16=True), LayerRule("Conv_[cd]", "Conv", skip=True))


def run(folder: Path, *arguments: object) -> Result:
    onnx.save(small_model(), folder / "model.onnx")
    np.savez(folder / "feeds.npz", image=np.concatenate([feed["image"] for feed in FEEDS]))
    given = [folder / "model.onnx", "-o", folder / "out.onnx", "--force", *arguments]
    return CliRunner().invoke(application(compile_command), [str(argument) for argument in given])


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(3, weights="int4", block=64, dims=("N=1", "M=1..4"), widen=3, seed=7, avoid_saturation=False),
        Options(weights="auto", size_budget=0.4, max_loss=0.01), Options(1, activations="int16", rules=RULES),
        Options(passes="normalize,fold-scale(limit=3)", verify=True),
    ],
)  # fmt: skip
def test_what_is_written_is_read_back(tmp_path, options):
    request = CompileRequest(Path("m.onnx"), options, [Path("o.onnx")], calib='a "b" \\ é.npz')
    (tmp_path / "r.toml").write_text(recipe_of(request, "from a test"), encoding="utf-8")
    told = read_recipe(tmp_path / "r.toml")
    assert told.pop("calib") == request.calib
    assert Options(**told) == options


def test_rules_read_as_they_are_written():
    for rule in RULES:
        assert LayerRule.read(str(rule)) == rule
    assert LayerRule.read("name=a.*, bits=4") == LayerRule("a.*", grid="int4")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("weights = ", "is no TOML"),
        ("wieghts = 'int8'", "no option 'wieghts' (did you mean 'weights'?)"),
        ("level = '2'", "level = '2' is of the wrong type"),
        ("level = true", "is of the wrong type"),
        ("size_budget = 'x'", "must be a share"),
        ("rules = 3", "rules must be tables"),
        ("[[rules]]\nnam = 'a'\nskip = true", "no key 'nam' (did you mean 'name'?)"),
        ("[[rules]]\nname = 'a'", "says nothing"),
        ("[[rules]]\nskip = true\nbits = 4", "has neither grid nor int16"),
        ("[[rules]]\nskip = 'yes'", "skip must be of type bool"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, part):
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        read_recipe(tmp_path / "r.toml")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value).partition("is no TOML")[0]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"weights": "auto", "rules": (LayerRule("a", grid="int4"),)}, "--weights auto chooses the grids"),
        ({"rules": (LayerRule("a", grid="imt4"),)}, "did you mean 'int4'"),
        ({"passes": "normalize", "rules": (LayerRule("a", skip=True),)}, "--passes says what is done"),
    ],
)
def test_rules_and_options_that_contradict_are_refused(given, part):
    with pytest.raises(OptionError, match=part):
        Options(**given)


def test_a_saved_recipe_gives_the_same_bytes_and_what_is_typed_goes_before(tmp_path):
    first = run(tmp_path, "--calib", tmp_path / "feeds.npz", "-O", "1", "--rule", "op=Gemm,bits=4",
                "--no-avoid-saturation", "--save-recipe", tmp_path / "r.toml")  # fmt: skip
    assert first.exit_code == 0, first.output
    made = (tmp_path / "out.onnx").read_bytes()
    told = tomllib.loads((tmp_path / "r.toml").read_text(encoding="utf-8"))
    assert (told["level"], told["avoid_saturation"], told["seed"]) == (1, False, 0)
    assert told["rules"] == [{"name": "*", "op": "Gemm", "grid": "int4"}]
    assert run(tmp_path, "--recipe", tmp_path / "r.toml").exit_code == 0
    assert (tmp_path / "out.onnx").read_bytes() == made
    again = run(tmp_path, "--recipe", tmp_path / "r.toml", "--seed", "3", "--save-recipe", tmp_path / "s.toml")
    assert again.exit_code == 0, again.output
    assert tomllib.loads((tmp_path / "s.toml").read_text(encoding="utf-8"))["seed"] == 3


def test_a_pattern_that_matches_nothing_is_one_line_and_writes_nothing(tmp_path):
    for rule, part in (("name=Conv_x,skip", "did you mean 'Conv_"), ("op=Gem,skip", "did you mean 'Gemm'")):
        result = run(tmp_path, "--rule", rule, "--calib", tmp_path / "feeds.npz", "-O", "0")
        assert result.exit_code == 2
        assert part in result.stderr
        assert not (tmp_path / "out.onnx").exists()
