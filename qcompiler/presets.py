"""The pipelines of ``-O0`` to ``-O3``: which passes run, for what the user asked for.

0 rounds to nearest; 1 chooses widths and scales and corrects biases; 2 lets a solver choose the levels of weights; 3
rescales activations channel by channel where that helps, measures on more feeds, widens whatever limits the accuracy
and lets the solver look further.

The machine takes 16 bits at next to no cost, so a program gets more of them than an ``.onnx`` file, whose products may
also be made exact for any CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qcompiler.errors import OptionError
from qcompiler.graph.placement import Zones
from qcompiler.pass_base import Pass
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.keep_fills import KeepFills
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.activations.quantize_activations import QuantizeActivations, Wide
from qcompiler.passes.activations.sign_activations import SignActivations
from qcompiler.passes.activations.split_fills import SplitFills
from qcompiler.passes.activations.turn_positions import TurnPositions
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.correct.correct_bias import CorrectBias
from qcompiler.passes.equalize.rotate_inputs import RotateInputs
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from qcompiler.passes.replace.snnk_bundle import SnnkBundle
from qcompiler.passes.weights.allocate_bits import DEFAULT_SHARE, AllocateBits
from qcompiler.passes.weights.avoid_saturation import AvoidSaturation
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.round_tables import RoundTables
from qcompiler.passes.weights.round_weights import RoundWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.pipeline import NORMALIZE, Pipeline, build_pass

ONNX_ENOUGH_DB = 25.0
"""8-bit noise that may stay in an ``.onnx`` file: other runtimes have no integer kernels for 16 bits, so each wide
tensor costs time there.
"""

ACTIVATIONS = ("uint8", "int8", "uint4", "power4", "int16")
"""Types of activations: what layers multiply has 4 bits with ``uint4`` and, on a curve, ``power4``; with ``int16`` all
have 16 where they fit.
"""

LEVEL_SOLVERS = {0: "nearest", 1: "clip", 2: "gptq", 3: "beam"}
"""What chooses the levels of weights below 8 bits at each effort."""

IN_TURN_FROM = 2
"""Effort from which convolutions of few bits are fitted one after the other, to what the layers before really give."""

LONGEST_ROW = 1200
"""At 8 bits, layers with a longer reduction (K) are rounded to nearest: GPTQ gains little there."""

MOMENTS_MB = 32
"""Gram matrices held at once at 8 bits, in megabytes."""

TABLE_BITS = 4
"""Widest weight (bits) at which a table with per-row scales is still stored bit-packed."""

BUNDLE_ERROR = SnnkBundle.error
"""Default of --bundle-error: squared relative error allowed per replaced block and at the outputs."""

Passes = tuple[Pass, ...]


@dataclass(frozen=True)
class Preset:
    """What the user asked for.

    Attributes:
        level: effort, 0 to 3.
        for_onnx: the result is an ``.onnx`` file, not a program of the machine.
        weights: a grid for all layers; ``auto`` chooses one for each under ``size_budget``, ``latency_budget`` or
            ``max_loss`` (see `AllocateBits`).
        block: weights along K that share one scale: 32, 64 or 128; 0: one scale per output channel.
        activations: one of `ACTIVATIONS`; with 4 bits inputs of layers are rotated where that pays (from level 1 on).
        widen: see `ChooseWidths`.
        avoid_saturation: make the products of an ``.onnx`` file exact on any CPU.
        size_budget: see `AllocateBits`.
        max_loss: see `AllocateBits`.
        latency_budget, latency_costs: see `AllocateBits`.
        bundle_error: replace blocks of layers by cheaper ones that err by no more (see `SnnkBundle`); None replaces
            none.

    Raises:
        OptionError: two wishes contradict each other, or one is unknown.
    """

    level: int
    for_onnx: bool
    weights: str = "int8"
    activations: str = "uint8"
    widen: str | int = "auto"
    avoid_saturation: bool = True
    size_budget: float | None = None
    max_loss: float | None = None
    bundle_error: float | None = None
    block: int = 0
    latency_budget: float | None = None
    latency_costs: str | None = None

    def __post_init__(self) -> None:
        if self.block and self.weights in ("auto", "int8"):
            raise OptionError(
                f"--block {self.block}: blocks need a grid of at most 4 bits; give it with --weights "
                f"int4 or nf4, not {self.weights}"
            )
        if self.activations not in ACTIVATIONS:
            raise OptionError(f"--activations {self.activations}: must be one of {', '.join(ACTIVATIONS)}")
        if self.activations == "int16" and self.level > 0 and self.widen != "auto":
            raise OptionError(f"--activations int16: all activations are wide; leave out --widen {self.widen}")
        if self.level == 0 and self.weights == "auto":
            raise OptionError("--weights auto: choosing grids needs -O1 or more")

    def pipeline(self) -> Pipeline:
        """The passes in their order."""
        return Pipeline((
            *NORMALIZE, *self._replacements(), *self._equivalences(), *self._tables(), *self._grids_of_activations(),
            QuantizeWeights(),
            *self._widths(), *self._levels(), *self._corrections(), StoreCodes(),
        ))  # fmt: skip

    @property
    def _few_bits(self) -> bool:
        return self.weights != "int8"

    @property
    def _exact_pairs(self) -> bool:
        return self.for_onnx and self.avoid_saturation

    @property
    def _narrow(self) -> bool:
        return self.activations in ("uint4", "power4")

    @property
    def _grid(self) -> str:
        return f"{self.weights}/{self.block}" if self.block else self.weights

    def _grids_of_activations(self) -> Passes:
        """An ``.onnx`` file computes with positions and fills as the model does; the machine has forms of its own for
        both.
        """
        machine = () if self.for_onnx else (SplitFills(), TurnPositions(), KeepFills())
        wide: Wide = "between layers" if self.for_onnx else "anything"
        zones: Zones = "float" if self.for_onnx else "border"
        return (*machine, QuantizeActivations(leave_exact=self.for_onnx, zones=zones, wide=wide if self.level > 0 and self.widen != "off" else "nothing"))

    def _replacements(self) -> Passes:
        return () if self.bundle_error is None else (SnnkBundle(error=self.bundle_error),)

    def _equivalences(self) -> Passes:
        smooth = (SmoothActivations(),) if self.level == 3 else ()
        rotate = (RotateInputs(bits=4 if self._few_bits else 8),) if self._narrow and self.level > 0 else ()
        return (*smooth, *rotate)

    def _tables(self) -> Passes:
        if self.weights == "auto":
            return self._tables_of_share()
        return (RoundTables(grid=self.weights.partition("/")[0]),) if self._few_bits else ()

    def _tables_of_share(self) -> Passes:
        """Embeddings, which `AllocateBits` does not count, have about the share of their 8 bits that the layers'
        weights may have.
        """
        unlimited = self.size_budget is None and (self.max_loss is not None or self.latency_budget is not None)
        bits = 8 if unlimited else max(int(8 * (DEFAULT_SHARE if self.size_budget is None else self.size_budget)), 2)
        return (RoundTables(grid=f"kmeans{bits}"),) if bits <= TABLE_BITS else ()

    def _widths(self) -> Passes:
        if self.activations == "int16":
            return (WidenActivations(),)
        enough = ONNX_ENOUGH_DB if self.for_onnx else ChooseWidths.enough_db
        chosen = ChooseWidths(widen=self.widen, enough_db=enough)
        if self.level == 3:
            chosen = replace(chosen, feeds=8, gemm_db=enough, most=1.0)
        narrow = (
            (NarrowActivations(curve="power" if self.activations == "power4" else "uniform"),) if self._narrow else ()
        )
        return (chosen, *narrow) if self.level > 0 else narrow

    def _levels(self) -> Passes:
        """What puts weights on their grid."""
        exact = {"exact_pairs": True} if self._exact_pairs else {}
        inputs = "mixed" if self.level >= IN_TURN_FROM else "float"
        solver: dict[str, Any] = {"solver": LEVEL_SOLVERS[self.level], "inputs": inputs, **exact}
        if self.weights == "auto":
            names = ("size_budget", "latency_budget", "max_loss", "latency_costs")
            budgets = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
            return (
                build_pass(AllocateBits, {**budgets, **exact}),
                ReconstructLayers(grid="int8", **solver),
                RoundWeights(grid="int8"),
            )
        if self._few_bits:
            return (ReconstructLayers(grid=self._grid, **solver), RoundWeights(grid=self._grid))
        if self._exact_pairs:
            return (AvoidSaturation(),)  # a solver would undo the scales that make products exact
        return (
            (ReconstructLayers(grid="int8", solver="gptq", longest=LONGEST_ROW, memory=MOMENTS_MB),)
            if self.level > 1
            else ()
        )

    def _corrections(self) -> Passes:
        bias = (CorrectBias(),) if self.level > 0 else ()
        signs = (SignActivations(exact_pairs=self._exact_pairs),) if self.activations == "int8" else ()
        return (*bias, *signs)
