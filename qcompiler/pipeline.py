"""THE order of passes: one tuple a preset, and the text form of a pipeline."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import takewhile
from typing import Any, get_args, get_type_hints

from qcompiler.errors import OptionError, suggestion
from qcompiler.graph.ir import Stage
from qcompiler.pass_base import Pass
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.follow_rules import FollowRules
from qcompiler.passes.activations.keep_fills import KeepFills
from qcompiler.passes.activations.log_codes import LogCodes
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.activations.settle_ranges import SettleRanges
from qcompiler.passes.activations.sign_activations import SignActivations
from qcompiler.passes.activations.split_fills import SplitFills
from qcompiler.passes.activations.turn_positions import TurnPositions
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.correct.correct_bias import CorrectBias
from qcompiler.passes.correct.match_batchnorm import MatchBatchnorm, UnmatchBatchnorm
from qcompiler.passes.correct.polish import Polish
from qcompiler.passes.correct.tune_statistics import TuneStatistics
from qcompiler.passes.equalize.absorb_biases import AbsorbBiases
from qcompiler.passes.equalize.affine import Affine
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from qcompiler.passes.equalize.preshift import Preshift
from qcompiler.passes.equalize.rotate import Rotate
from qcompiler.passes.equalize.rotate_inputs import RotateInputs
from qcompiler.passes.equalize.scale_inputs import ScaleInputs
from qcompiler.passes.equalize.scale_salient import ScaleSalient
from qcompiler.passes.equalize.shift_channels import ShiftChannels
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from qcompiler.passes.expand.expand_operators import ExpandOperators
from qcompiler.passes.expand.flatten_volumes import FlattenVolumes
from qcompiler.passes.fuse.fuse_gelu import FuseGelu
from qcompiler.passes.fuse.fuse_hard_swish import FuseHardSwish
from qcompiler.passes.fuse.fuse_layer_norm import FuseLayerNorm
from qcompiler.passes.fuse.fuse_matmul_bias import FuseMatMulBias
from qcompiler.passes.fuse.fuse_pad import FusePad
from qcompiler.passes.fuse.fuse_sigmoid import FuseSigmoid
from qcompiler.passes.fuse.fuse_softmax import FuseSoftmax
from qcompiler.passes.lower import Lower
from qcompiler.passes.normalize.clamp_attention_mask import ClampAttentionMask
from qcompiler.passes.normalize.fold_batchnorm import FoldBatchNorm
from qcompiler.passes.normalize.fold_constants import FoldConstants
from qcompiler.passes.normalize.fold_scale import FoldScale
from qcompiler.passes.normalize.fold_scale_forward import FoldScaleForward
from qcompiler.passes.normalize.fold_shapes import FoldShapes
from qcompiler.passes.normalize.inline_if import InlineIf
from qcompiler.passes.normalize.masked_mean import MaskedMean
from qcompiler.passes.normalize.plain_gemm import PlainGemm
from qcompiler.passes.normalize.remove_identity import RemoveIdentity
from qcompiler.passes.normalize.select_branches import SelectBranches
from qcompiler.passes.normalize.split_sum import SplitSum
from qcompiler.passes.replace.low_rank import LowRank
from qcompiler.passes.replace.snnk_bundle import SnnkBundle
from qcompiler.passes.weights.allocate_bits import AllocateBits
from qcompiler.passes.weights.avoid_saturation import AvoidSaturation
from qcompiler.passes.weights.choose_grid import ChooseGrid
from qcompiler.passes.weights.fuse_split import FuseSplit
from qcompiler.passes.weights.nupes import Nupes
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.round_tables import RoundTables
from qcompiler.passes.weights.round_weights import RoundWeights
from qcompiler.passes.weights.split_layers import SplitLayers
from qcompiler.passes.weights.store_codes import StoreCodes

ENTRY_POINTS = "qcompiler.passes"
"""Entry-point group in which other packages offer their passes by name."""

BUILT_IN: tuple[type[Pass], ...] = (
    AbsorbBiases,
    Affine,
    AllocateBits,
    AvoidSaturation,
    ChooseGrid,
    ChooseWidths,
    ClampAttentionMask,
    CorrectBias,
    EqualizeChannels,
    ExpandOperators,
    FlattenVolumes,
    FoldBatchNorm,
    FoldConstants,
    FoldScale,
    FoldScaleForward,
    FoldShapes,
    FollowRules,
    FuseGelu,
    FuseHardSwish,
    FuseLayerNorm,
    FuseMatMulBias,
    FusePad,
    FuseSigmoid,
    FuseSoftmax,
    FuseSplit,
    InlineIf,
    SelectBranches,
    KeepFills,
    LogCodes,
    LowRank,
    Lower,
    MaskedMean,
    MatchBatchnorm,
    NarrowActivations,
    Nupes,
    PlainGemm,
    Polish,
    Preshift,
    QuantizeActivations,
    QuantizeWeights,
    ReconstructLayers,
    RemoveIdentity,
    Rotate,
    RotateInputs,
    RoundTables,
    RoundWeights,
    ScaleInputs,
    ScaleSalient,
    SettleRanges,
    ShiftChannels,
    SignActivations,
    SmoothActivations,
    SnnkBundle,
    SplitFills,
    SplitLayers,
    SplitSum,
    StoreCodes,
    TuneStatistics,
    TurnPositions,
    UnmatchBatchnorm,
    WidenActivations,
)

NORMALIZE: tuple[Pass, ...] = (
    FoldConstants(),
    RemoveIdentity(),
    FuseSoftmax(),
    ExpandOperators(),
    FoldShapes(),
    InlineIf(),
    ExpandOperators(),
    FoldShapes(),
    FoldConstants(),
    RemoveIdentity(),
    FuseLayerNorm(),
    FuseSigmoid(),
    FuseGelu(),
    FuseHardSwish(),
    FusePad(),
    FoldBatchNorm(),
    FlattenVolumes(),
    FoldScale(),
    FoldScaleForward(),
    SplitSum(),
    MaskedMean(),
    ClampAttentionMask(),
    PlainGemm(),
    FuseMatMulBias(),
)


def _for_machine(step: Pass) -> tuple[Pass, ...]:
    """A program has no jumps, and fewer operators than onnxruntime."""
    if isinstance(step, ExpandOperators):
        return (ExpandOperators(machine=True),)
    return (step, SelectBranches()) if isinstance(step, InlineIf) else (step,)


MACHINE_NORMALIZE = tuple(part for step in NORMALIZE for part in _for_machine(step))
"""The same for a program."""

ROUND_TO_NEAREST: tuple[Pass, ...] = (QuantizeActivations(), QuantizeWeights(), StoreCodes())

GROUPS: dict[str, tuple[Pass, ...]] = {"normalize": NORMALIZE, "quantize": ROUND_TO_NEAREST}
"""Names that stand for several passes in a pipeline text."""

_ITEM = re.compile(r"\s*(?P<name>[\w.:-]+)\s*(?:\((?P<options>[^()]*(?:\([^()]*\)[^()]*)*)\))?\s*(?:,|$)")


@dataclass(frozen=True)
class Pipeline:
    """An ordered sequence of passes."""

    passes: tuple[Pass, ...]

    @staticmethod
    def parse(text: str) -> Pipeline:
        """Read a text such as ``normalize,fold-scale(limit=3),my_pkg.my_mod:MyPass``.

        Raises:
            OptionError: syntax, an unknown pass, or an option the pass does not have.
        """
        return Pipeline(tuple(_parse(text)))

    def __str__(self) -> str:
        return ",".join(_text(step) for step in self.passes)

    def parts(self) -> tuple[list[Pass], list[Pass], list[Pass]]:
        """The exact passes in front, those behind them, and the last ones, before which the graph is measured.

        The last ones let ranges take in the feeds that it was measured on (`settle-ranges`) and write the codes that
        follow from them.
        """
        exact = list(takewhile(lambda step: step.exact, self.passes))
        others = list(self.passes[len(exact):])
        end = next((index for index, step in enumerate(others) if step.ensures != Stage.FLOAT), len(others))
        settled = any(isinstance(step, SettleRanges) for step in others)
        return exact, others[:end], [*(() if settled else (SettleRanges(),)), *others[end:]]

    @property
    def reaches(self) -> Stage:
        """Stage of a graph behind the last pass."""
        return self.passes[-1].ensures if self.passes else Stage.FLOAT


def find_pass(name: str) -> type[Pass]:
    """The pass class of a kebab-case name or a dotted path ``package.module:Class``."""
    if ":" in name:
        return _import_pass(name)
    built_in = {step.name: step for step in BUILT_IN}
    offered = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in built_in and name in offered:
        raise OptionError(
            f"pass '{name}' is built in, and '{offered[name].value}' offers another of that name; use "
            "the dotted path for yours"
        )
    if name in built_in:
        return built_in[name]
    if name in offered:
        return _import_pass(offered[name].value)
    known = sorted({*built_in, *offered, *GROUPS})
    raise OptionError(
        f"unknown pass '{name}'{suggestion(name, known)}; known: {', '.join(known)}; or package.module:Class"
    )


def _import_pass(path: str) -> type[Pass]:
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"pass '{path}' cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise OptionError(f"'{path}' is not a subclass of qcompiler.Pass")
    return found


def _parse(text: str) -> Iterator[Pass]:
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            raise OptionError(
                f"--passes: cannot read '{text[position:]}'; write name(option=value),name,package.module:Class"
            )
        position = match.end()
        name, options = match["name"], match["options"]
        if name in GROUPS and not options:
            yield from GROUPS[name]
        else:
            yield build_pass(find_pass(name), _options(name, options or ""))


def _options(name: str, text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError as error:
        raise OptionError(f"pass '{name}': cannot read its options '({text})'; write (option=value, …)") from error
    if not isinstance(call, ast.Call) or call.args:
        raise OptionError(f"pass '{name}': every option needs its name: (option=value, …)")
    return {keyword.arg or "**": _value(name, keyword.value) for keyword in call.keywords}


def _value(name: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id not in ("True", "False", "None"):
        return node.id  # a bare word is a string
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise OptionError(
            f"pass '{name}': option value '{ast.unparse(node)}' is neither a literal nor a bare word"
        ) from error


def build_pass(kind: type[Pass], options: dict[str, Any]) -> Pass:
    """An instance of ``kind``; OptionError for an option it does not have or a value of another type."""
    hints = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    for key, value in options.items():
        if key not in fields:
            raise OptionError(
                f"pass '{kind.name}' has no option '{key}'{suggestion(key, fields)}; it has: "
                f"{', '.join(sorted(fields)) or 'none'}"
            )
        if not _fits(value, hints[key]):
            raise OptionError(f"pass '{kind.name}': option '{key}' must be {_hint_text(hints[key])}, not {value!r}")
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise OptionError(f"pass '{kind.name}': {error}") from error


def _hint_text(hint: Any) -> str:
    """A type as people read it: ``int``, ``str | int``, ``'fast' or 'slow'``."""
    if str(hint).startswith("typing.Literal"):
        return " or ".join(repr(choice) for choice in get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _fits(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(hint, type):
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    arguments = get_args(hint)
    if str(hint).startswith("typing.Literal"):
        return value in arguments
    return not arguments or any(_fits(value, argument) for argument in arguments if isinstance(argument, type))


def _text(step: Pass) -> str:
    changed = {
        field.name: getattr(step, field.name)
        for field in dataclasses.fields(step)
        if getattr(step, field.name) != field.default
    }
    options = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    return f"{step.name}({options})" if options else step.name
