from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import pytest

from qcompiler import pipeline
from qcompiler.errors import OptionError
from qcompiler.graph.ir import Graph
from qcompiler.options import Options
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.pipeline import BUILT_IN, GROUPS, MACHINE_NORMALIZE, Pipeline
from qcompiler.presets import Preset


@dataclass(frozen=True)
class Sample(Pass):
    name: ClassVar[str] = "sample"
    limit: int = 3
    ratio: float = 0.5
    mode: Literal["fast", "slow"] = "fast"
    strict: bool = False
    widen: str | int = "auto"

    def run(self, graph: Graph, ctx: Context) -> bool:
        return False


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BUILT_IN", (*BUILT_IN, Sample))


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sample", Sample()),
        (" sample ( limit = 7 ) ", Sample(limit=7)),
        ("sample(ratio=2, mode=slow)", Sample(ratio=2, mode="slow")),
        ("sample(mode='slow', strict=True)", Sample(mode="slow", strict=True)),
        ("sample(widen=4)", Sample(widen=4)),
        ("tests.test_pipeline:Sample(limit=1)", Sample(limit=1)),
    ],
)
def test_text_to_pass(text: str, expected: Pass) -> None:
    found = Pipeline.parse(text).passes
    assert len(found) == 1
    assert type(found[0]).name == "sample"
    assert vars(found[0]) == vars(expected)


@pytest.mark.usefixtures("sample")
def test_text_survives_a_round_trip() -> None:
    text = "sample(limit=7, mode='slow'),sample"
    assert str(Pipeline.parse(text)) == text
    assert Pipeline.parse(str(Pipeline.parse(text))) == Pipeline.parse(text)


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "unknown pass 'nonsense'"),
        ("sample(depth=1)", "has no option 'depth'; it has: limit, mode, ratio, strict, widen"),
        ("sample(limit=x)", "option 'limit' must be int, not 'x'"),
        ("sample(limit=True)", "option 'limit' must be int"),
        ("sample(mode=medium)", "option 'mode' must be 'fast' or 'slow', not 'medium'"),
        ("sample(3)", "every option needs its name"),
        ("sample(limit=f())", "neither a literal nor a bare word"),
        ("sample)", "cannot read"),
        ("no_such_module:Thing", "cannot be imported"),
        ("pathlib:Path", "is not a subclass of qcompiler.Pass"),
    ],
)
def test_bad_text_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Pipeline.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_unique_and_kebab_case() -> None:
    names = [step.name for step in BUILT_IN]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and "_" not in name for name in names)


def test_groups_and_presets_hold_only_built_in_passes_in_a_legal_order() -> None:
    choices = [
        (level, grid) for level in range(4) for grid in ("int8", "int4", "nf4", "auto") if (level, grid) != (0, "auto")
    ]
    presets = [
        Preset(Options(level, weights=grid), for_onnx=to).pipeline().passes
        for level, grid in choices
        for to in (True, False)
    ]
    for passes in (*GROUPS.values(), *presets):
        assert all(type(step) in BUILT_IN for step in passes)
        assert all(later.requires == earlier.ensures for earlier, later in pairwise(passes))


@pytest.mark.parametrize("level", range(4))
def test_blocks_are_bundled_behind_the_exact_passes_and_only_when_asked_for(level: int) -> None:
    names = [
        step.name for step in Preset(Options(level, bundle="auto", bundle_error=0.05), for_onnx=False).pipeline().passes
    ]
    assert names.index("snnk-bundle") == len(MACHINE_NORMALIZE)
    assert {
        step.name: step
        for step in Preset(Options(level, bundle="auto", bundle_error=0.05), for_onnx=False).pipeline().passes
    }["snnk-bundle"].error == 0.05
    assert "snnk-bundle" not in [step.name for step in Preset(Options(level), for_onnx=False).pipeline().passes]


def test_a_budget_reaches_the_pass_that_chooses_grids() -> None:
    budgets = {"size_budget": 0.25, "latency_budget": 0.8, "latency_costs": "report.json"}
    steps = {
        step.name: step for step in Preset(Options(2, weights="auto", **budgets), for_onnx=False).pipeline().passes
    }
    assert {name: getattr(steps["allocate-bits"], name) for name in budgets} == budgets
    grids = []
    for share in (0.2, 0.4, 0.5, 0.7, None):
        preset = Preset(Options(2, weights="auto", size_budget=share), for_onnx=False)
        grids.append(next((step.grid for step in preset.pipeline().passes if step.name == "round-tables"), None))
    assert grids == ["kmeans2", "kmeans3", "kmeans4", None, "kmeans4"]
    assert "round-tables" not in {
        step.name for step in Preset(Options(2, weights="auto", max_loss=0.1), for_onnx=False).pipeline().passes
    }
    with pytest.raises(OptionError, match="--max-loss"):
        Preset(Options(2, weights="auto", size_budget=0.25, max_loss=0.01), for_onnx=False).pipeline()
    assert list(steps).index("allocate-bits") < list(steps).index("reconstruct-layers")
    with pytest.raises(OptionError, match="-O1"):
        Preset(Options(0, weights="auto"), for_onnx=False)


def test_a_solver_chooses_8_bit_levels_where_no_other_pass_needs_their_scales() -> None:
    def solver(level: int, *, for_onnx: bool, **options: bool) -> str | None:
        return next(
            (
                step.solver
                for step in Preset(Options(level, **options), for_onnx).pipeline().passes
                if step.name == "reconstruct-layers"
            ),
            None,
        )

    assert [solver(level, for_onnx=False) for level in range(4)] == [None, None, "gptq", "gptq"]
    assert solver(2, for_onnx=True) is None
    assert solver(2, for_onnx=True, avoid_saturation=False) == "gptq"


@pytest.mark.parametrize(("level", "weights", "inputs"), [
    (1, "nf4", "float"), (2, "nf4", "mixed"), (3, "auto", "mixed"), (2, "int8", "float"),
])  # fmt: skip
def test_convolutions_of_few_bits_are_fitted_to_what_the_layers_before_give(
    level: int, weights: str, inputs: str
) -> None:
    steps = [
        step
        for step in Preset(Options(level, weights=weights), for_onnx=False).pipeline().passes
        if isinstance(step, ReconstructLayers)
    ]
    assert [step.inputs for step in steps] == [inputs]


def test_embeddings_and_recurrent_weights_take_the_grid_of_the_layers() -> None:
    steps = {step.name: step for step in Preset(Options(1, weights="nf4"), for_onnx=True).pipeline().passes}
    assert {steps[name].grid for name in ("round-tables", "reconstruct-layers", "round-weights")} == {"nf4"}
    assert not {"round-tables", "reconstruct-layers", "round-weights"} & {
        step.name for step in Preset(Options(1), for_onnx=True).pipeline().passes
    }


def test_blocks_are_for_layers_not_for_tables_and_power4_has_a_curve() -> None:
    preset = Preset(Options(2, weights="int4", block=64, activations="power4"), for_onnx=True)
    grids = {step.name: getattr(step, "grid", None) for step in preset.pipeline().passes}
    assert (grids["reconstruct-layers"], grids["round-weights"], grids["round-tables"]) == (
        "int4/64",
        "int4/64",
        "int4",
    )
    assert NarrowActivations(curve="power") in preset.pipeline().passes
    assert any(step.name == "rotate-inputs" for step in preset.pipeline().passes)
