"""The pipelines of ``-O0`` to ``-O3``: which passes run, for what the user asked for.

0 rounds to nearest; 1 chooses widths and scales and corrects biases; 2 lets a solver choose the levels of weights; 3
rescales activations channel by channel where that helps, measures on more feeds, widens whatever limits the accuracy
and lets the solver look further.

The machine takes 16 bits at next to no cost, so a program gets more of them than an ``.onnx`` file, whose products may
also be made exact for any CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from qcompiler.errors import OptionError
from qcompiler.graph.placement import Zones
from qcompiler.options import BUDGETS, Options
from qcompiler.pass_base import Pass
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.follow_rules import FollowRules
from qcompiler.passes.activations.keep_fills import KeepFills
from qcompiler.passes.activations.log_codes import LogCodes
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.activations.quantize_activations import QuantizeActivations, WideInputs
from qcompiler.passes.activations.sign_activations import SignActivations
from qcompiler.passes.activations.split_fills import SplitFills
from qcompiler.passes.activations.turn_positions import TurnPositions
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.correct.correct_bias import CorrectBias
from qcompiler.passes.correct.match_batchnorm import MatchBatchnorm, UnmatchBatchnorm
from qcompiler.passes.equalize.rotate_inputs import RotateInputs
from qcompiler.passes.equalize.scale_inputs import ScaleInputs
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from qcompiler.passes.replace.snnk_bundle import SnnkBundle
from qcompiler.passes.weights.allocate_bits import DEFAULT_SHARE, AllocateBits
from qcompiler.passes.weights.avoid_saturation import AvoidSaturation
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.round_tables import RoundTables
from qcompiler.passes.weights.round_weights import RoundWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.pipeline import MACHINE_NORMALIZE, NORMALIZE, Pipeline, build_pass

ONNX_ENOUGH_DB = 25.0
"""8-bit noise that may stay in an ``.onnx`` file: other runtimes have no integer kernels for 16 bits, so each wide
tensor costs time there.
"""

LEVEL_SOLVERS = {0: "nearest", 1: "clip", 2: "gptq", 3: "beam"}
"""Solver of weights below 8 bits, by effort."""

IN_TURN_FROM = 2
"""Effort from which convolutions of few bits are solved in graph order, on what the quantized layers before them give.
"""

LONGEST_ROW = 1200
"""At 8 bits, layers with a longer reduction (K) are rounded to nearest: GPTQ gains little there."""

MOMENTS_MB = 32
"""Gram matrices held at once at 8 bits, in megabytes."""

TABLE_BITS = 4
"""Widest weight (bits) at which a table with per-row scales is still stored bit-packed."""

Passes = tuple[Pass, ...]


@dataclass(frozen=True)
class Preset:
    """The passes of an effort.

    Attributes:
        options: what the user asked for.
        for_onnx: the result is an ``.onnx`` file, not a program of the machine.
    """

    options: Options
    for_onnx: bool

    def pipeline(self) -> Pipeline:
        """The passes in their order."""
        return Pipeline((
            *(NORMALIZE if self.for_onnx else MACHINE_NORMALIZE), *self._replacements(), *self._equivalences(),
            *self._tables(), MatchBatchnorm(), *self._grids_of_activations(), QuantizeWeights(),
            *self._widths(), *self._rules(), *self._levels(), *self._corrections(), UnmatchBatchnorm(), StoreCodes(),
        ))  # fmt: skip

    @property
    def _few_bits(self) -> bool:
        return self.options.weights != "int8"

    @property
    def _exact_pairs(self) -> bool:
        return self.for_onnx and self.options.avoid_saturation

    @property
    def _narrow(self) -> bool:
        return self.options.activations in ("uint4", "power4")

    @property
    def _grid(self) -> str:
        return f"{self.options.weights}/{self.options.block}" if self.options.block else self.options.weights

    def _grids_of_activations(self) -> Passes:
        """An ``.onnx`` file computes with positions and fills as the model does; the machine has forms of its own for
        both.
        """
        logarithms = () if self.options.widen == "off" else (LogCodes(),)
        machine: Passes = () if self.for_onnx else (SplitFills(), TurnPositions(), KeepFills(), *logarithms)
        wide: WideInputs = "between layers" if self.for_onnx else "anything"
        zones: Zones = "float" if self.for_onnx else "border"
        if self.options.level == 0 or self.options.widen == "off":
            wide = "nothing"
        return (*machine, QuantizeActivations(leave_exact=self.for_onnx, zones=zones, wide=wide))

    def _replacements(self) -> Passes:
        if self.options.bundle == "off":
            return ()
        error = self.options.bundle_error
        return (SnnkBundle() if error is None else SnnkBundle(error=error),)

    def _equivalences(self) -> Passes:
        smooth = (SmoothActivations(),) if self.options.level == 3 else ()
        rotate = (RotateInputs(bits=4 if self._few_bits else 8),) if self._narrow and self.options.level > 0 else ()
        return (ScaleInputs(), *smooth, *rotate)

    def _tables(self) -> Passes:
        if self.options.weights == "auto":
            return self._tables_of_share()
        return (RoundTables(grid=self.options.weights.partition("/")[0]),) if self._few_bits else ()

    def _tables_of_share(self) -> Passes:
        """Embeddings, which `AllocateBits` does not count, take about the share of 8 bits that the layers may have."""
        size, loss, time = self.options.size_budget, self.options.max_loss, self.options.latency_budget
        unlimited = size is None and (loss is not None or time is not None)
        bits = 8 if unlimited else max(int(8 * (DEFAULT_SHARE if size is None else size)), 2)
        return (RoundTables(grid=f"kmeans{bits}"),) if bits <= TABLE_BITS else ()

    def _widths(self) -> Passes:
        if self.options.activations == "int16":
            return (WidenActivations(),)
        enough = ONNX_ENOUGH_DB if self.for_onnx else ChooseWidths.enough_db
        chosen = ChooseWidths(widen=self.options.widen, enough_db=enough, keep_opset=self.for_onnx)
        if self.options.level == 3:
            chosen = replace(chosen, feeds=8, gemm_db=enough, most=1.0)
        curve: Literal["power", "uniform"] = "power" if self.options.activations == "power4" else "uniform"
        narrow = (NarrowActivations(curve=curve),) if self._narrow else ()
        return (chosen, *narrow) if self.options.level > 0 else narrow

    def _rules(self) -> Passes:
        skipping = next((rule for rule in self.options.rules if rule.skip), None)
        if skipping is not None and not self.for_onnx:
            raise OptionError(
                f"--rule {skipping}: integer results compute nothing in float; skip is for .onnx with --format qdq"
            )
        return (FollowRules(rules=self.options.rules),) if self.options.rules else ()

    def _levels(self) -> Passes:
        """What puts weights on their grid."""
        exact = {"exact_pairs": True} if self._exact_pairs else {}
        inputs = "mixed" if self.options.level >= IN_TURN_FROM else "float"
        solver: dict[str, Any] = {"solver": LEVEL_SOLVERS[self.options.level], "inputs": inputs, **exact}
        if self.options.weights == "auto":
            budgets = {name: getattr(self.options, name) for name in BUDGETS if getattr(self.options, name) is not None}
            return (
                build_pass(AllocateBits, {**budgets, **exact}),
                ReconstructLayers(grid="int8", **solver),
                RoundWeights(grid="int8"),
            )
        if self._few_bits or any(rule.grid for rule in self.options.rules):
            return (ReconstructLayers(grid=self._grid, **solver), RoundWeights(grid=self._grid))
        if self._exact_pairs:
            return (AvoidSaturation(),)  # a solver would undo the scales that make products exact
        return (
            (ReconstructLayers(grid="int8", solver="gptq", longest=LONGEST_ROW, memory=MOMENTS_MB, gated=True),)
            if self.options.level > 1
            else ()
        )

    def _corrections(self) -> Passes:
        bias = (CorrectBias(),) if self.options.level > 0 else ()
        signs = (SignActivations(exact_pairs=self._exact_pairs),) if self.options.activations == "int8" else ()
        return (*bias, *signs)


def pipeline_for(options: Options, *, for_onnx: bool) -> Pipeline:
    """The passes that the options ask for: their own pipeline text, or the preset of their effort."""
    return Preset(options, for_onnx).pipeline() if options.passes is None else Pipeline.parse(options.passes)
