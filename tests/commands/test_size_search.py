"""The search for the smallest files that keep a measure."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from qcompiler.cli import application, compile_command
from qcompiler.commands.size_search import WAYS, Scored, Way, check_search, smallest, ways
from qcompiler.errors import DataError, OptionError, QCompilerError
from qcompiler.layer_rules import LayerRule
from qcompiler.options import CompileRequest, Options
from qcompiler.scores.score_drop import ScoreDrop
from tests.helpers.page_models import small_model

SMALL = Path("model.onnx")


def asked(options: Options | None = None, drop: str | None = "0.1", model: Path = SMALL) -> CompileRequest:
    limit = None if drop is None else ScoreDrop.read(drop)
    return CompileRequest(model, options or Options(), [Path("o.onnx")], accuracy="m:f", max_drop=limit)


@given(level=st.sampled_from([0, 2]), kept=st.integers(0, len(WAYS)))
def test_of_ordered_scores_the_smallest_that_keeps_is_found_in_few_trials(level: int, kept: int) -> None:
    order, lines = ways(Options(level)), []
    first = min(kept, len(order) - 1)  # ways from here on keep the measure

    def attempt(way: Way) -> Scored[str]:
        place = order.index(way)
        return Scored(f"files {place}", 100 + place, 1.0 if place >= first else 0.5)

    found = smallest(asked(Options(level)), 1.0, attempt, lines.append)
    assert (found.way, found.files) == (order[first], f"files {first}")
    assert len(lines) == len(found.search.trials) <= 1 + (len(order) - 1).bit_length()
    assert [trial.options for trial in found.search.trials if trial.chosen] == [str(order[first])]


@given(
    scores=st.lists(st.sampled_from([0.5, 1.0, None]), min_size=len(WAYS), max_size=len(WAYS)),
    sizes=st.permutations(WAYS),
)
def test_whatever_the_scores_what_stands_keeps_the_measure_and_is_the_smallest_tried(scores, sizes) -> None:
    def attempt(way: Way) -> Scored[Way]:
        score = scores[WAYS.index(way)]
        if score is None:
            raise OptionError("too few bytes")
        return Scored(way, 1 + sizes.index(way), score)

    if scores[-1] is None:
        with pytest.raises(OptionError, match="too few bytes"):
            smallest(asked(), 1.0, attempt, lambda _: None)
        return
    if 1.0 not in scores[-3:]:
        with pytest.raises(QCompilerError, match=r"none of 3 trials keeps 0.9 .*nearest is --weights int8 with 0.5"):
            smallest(asked(), 1.0, attempt, lambda _: None)
        return
    found = smallest(asked(), 1.0, attempt, lambda _: None)
    kept = [trial for trial in found.search.trials if trial.keeps]
    (chosen,) = (trial for trial in found.search.trials if trial.chosen)
    assert chosen.options == str(found.way) == str(found.files)
    assert chosen.size == min(trial.size for trial in kept)
    assert all(trial.score == 1.0 for trial in kept)


def test_an_error_of_the_measure_ends_the_search() -> None:
    def attempt(way: Way) -> Scored[str]:
        raise DataError("the measure failed")

    with pytest.raises(DataError, match="the measure failed"):
        smallest(asked(), 1.0, attempt, lambda _: None)


@pytest.mark.parametrize(
    ("request_", "part"),
    [
        (asked(Options(weights="int4")), "leave out --weights int4"),
        (asked(Options(weights="auto", size_budget=0.5)), "leave out --weights auto"),
        (asked(Options(passes="normalize")), "--passes says what is done"),
        (asked(model=Path("a.qprog")), "give the float model"),
        (CompileRequest(SMALL, Options(), [], max_drop=ScoreDrop(1, True)), "--max-drop 1%: is what"),
    ],
)
def test_contradictions_are_refused(request_: CompileRequest, part: str) -> None:
    with pytest.raises(OptionError, match=part):
        check_search(request_)


def test_where_grids_cannot_be_chosen_by_layer_all_layers_have_one() -> None:
    for options in (Options(0), Options(rules=(LayerRule("a", grid="int4"),))):
        assert {way.share for way in ways(options)} == {None}
        assert all(way.of(options).weights == way.weights for way in ways(options))


def compiled(folder: Path, body: str, *options: str) -> Result:
    """`qcompile` of a small model, measured by a function of this body that may use ``run``, ``x`` and ``seen``."""
    onnx.save(small_model(), folder / "model.onnx")
    module = f"measure_{folder.name}"
    (given_input,) = small_model().graph.input
    shape = [dim.dim_value or 2 for dim in given_input.type.tensor_type.shape.dim]
    (folder / f"{module}.py").write_text(
        "import numpy as np\nseen = []\n"
        f"x = {{{given_input.name!r}: np.random.default_rng(0).normal(size={shape}).astype(np.float32)}}\n"
        f"def score(run):\n    {body}\n"
    )
    arguments = ["model.onnx", "-O", "0", "--accuracy", f"{module}:score", *options]
    return CliRunner().invoke(application(compile_command), arguments)


FIRST = "y = next(iter(run(x).values())); seen.append(y); return "


def test_results_report_page_and_recipe_are_those_of_the_chosen_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = ["-o", "out.onnx", "-o", "out.qprog", "-o", "out.c", "--c-dim", "N=2"]
    body = FIRST + "-float(np.square(y - seen[0]).sum() / np.square(seen[0]).sum())"
    told = ["--max-drop", "0.05", "--report", "r.json", "--save-recipe", "r.toml"]
    result = compiled(tmp_path, body, *files, *told)
    assert result.exit_code == 0, result.output
    search = json.loads(Path("r.json").read_text())["search"]
    assert search["score"] == 0.0
    assert search["least"] == pytest.approx(-0.05)
    (chosen,) = (trial for trial in search["trials"] if trial["chosen"])
    assert result.stderr.count("trial ") == len(search["trials"])
    assert chosen["size"] == sum(Path(file).stat().st_size for file in (*files[1:6:2], "out.h"))
    assert chosen["options"] == f"--weights {tomllib.loads(Path('r.toml').read_text())['weights']}"
    again = compiled(tmp_path, body, "-o", "out.onnx", "--force", *told[:2], "--report", "r.html")
    assert again.exit_code == 0, again.output
    page = Path("r.html").read_text(encoding="utf-8")
    assert all(trial["options"] in page for trial in search["trials"])
    assert "<strong>chosen: </strong>" in page


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (FIRST + "1.0 if len(seen) == 1 else 0.25", "the nearest is --weights int8 with 0.25"),
        (FIRST + "{}[len(seen)]", "on the float model: KeyError: 1"),
        (FIRST + "1.0 if len(seen) == 1 else None", "on out.onnx: returned an object of type NoneType"),
    ],
)
def test_where_nothing_keeps_it_or_it_fails_nothing_is_written(
    body: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = compiled(tmp_path, body, "-o", "out.onnx", "--report", "r.html", "--save-recipe", "r.toml")
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert part in line
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".py", "")] == ["model.onnx"]
    assert not list(tmp_path.glob(".qcompile*"))
