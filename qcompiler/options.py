"""What `qcompile` and `qcompiler.compile` can be asked for, each option defined once.

A field of `Options` or of `CompileRequest` is one option: its default, its text, its group, what it may be, and how the
command line reads it. The command line (`qcompiler.cli`), the docstring of `Options` and ``docs/options.md`` are made
from these fields, and `qcompiler.presets` reads the values. To add an option, add a field here and use it there.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from qcompiler.errors import OptionError, suggestion
from qcompiler.layer_rules import LayerRule
from qcompiler.scores.score_drop import ScoreDrop

__all__ = [
    "ACTIVATION_GRIDS", "GROUPS", "CompileRequest", "Flag", "Form", "Options", "command_of", "flag_of", "options_of",
    "refusal", "text_of_default",
]  # fmt: skip

OUTPUT, CALIBRATION, EFFORT, WEIGHTS = "Output", "Calibration", "Effort", "Weights"
ACTIVATIONS, REPLACEMENT, REPORT = "Activations", "Replacement of blocks", "Report and checks"
GROUPS = (OUTPUT, CALIBRATION, EFFORT, WEIGHTS, ACTIVATIONS, REPLACEMENT, REPORT)
"""The groups of options, in the order in which people read them."""

ACTIVATION_GRIDS = ("uint8", "int8", "uint4", "power4", "int16")
"""Grids that the inputs of layers may have; `Options.activations` says which is which."""

BUDGETS = ("size_budget", "latency_budget", "max_loss", "latency_costs")
"""Options by which ``--weights auto`` chooses; `AllocateBits` has fields of the same names."""

Form = Literal["qdq", "integer"]
Kind = TypeVar("Kind", bound=type)


@dataclass(frozen=True)
class Flag:
    """How people write an option, and what they are told about it.

    Attributes:
        help: what it does, in one sentence.
        group: one of `GROUPS`.
        example: a whole example, as typed.
        names: on the command line; the first one is used in messages. Default: the field's name.
        kind: type of what the command line takes.
        metavar: what stands for the value in the help.
        unset: what happens without the option, where its default does not say so.
        choices: the only texts it may be.
        fits: whether a value is one that it may have.
        rule: what ``fits`` asks for, as the end of "must be …".
        read: the value from the text of the command line; ValueError where it is none.
    """

    help: str
    group: str
    example: str
    names: tuple[str, ...] = ()
    kind: Any = str
    metavar: str | None = None
    unset: str = ""
    choices: tuple[str, ...] = ()
    fits: Callable[[Any], bool] | None = None
    rule: str = ""
    read: Callable[[Any], Any] | None = None


def option(default: Any, text: str, group: str, example: str, /, **more: Any) -> Any:
    """A field that is an option, with its `Flag`; ``default`` may be ``dataclasses.MISSING``."""
    return field(default=default, metadata={"flag": Flag(text, group, example, **more)})


def options_of(kind: Any) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are options."""
    return [entry for entry in dataclasses.fields(kind) if "flag" in entry.metadata]


def flag_of(entry: dataclasses.Field[Any]) -> Flag:
    """The `Flag` of a field, with its names."""
    flag: Flag = entry.metadata["flag"]
    return flag if flag.names else dataclasses.replace(flag, names=(f"--{entry.name.replace('_', '-')}",))


def text_of_default(entry: dataclasses.Field[Any]) -> str:
    """The default for people; empty where there is nothing to say."""
    flag = flag_of(entry)
    if flag.unset or entry.default in (None, (), dataclasses.MISSING):
        return flag.unset
    if isinstance(entry.default, bool):
        return "on" if entry.default else "off"
    return str(entry.default)


def refusal(flag: Flag, value: object) -> OptionError:
    """The error for a value that an option may not have."""
    if flag.choices:
        many = "one of " + ", ".join(flag.choices)
        rule = " or ".join(flag.choices) if len(flag.choices) == 2 else many
        return OptionError(f"{flag.names[0]} {value}: must be {rule}{suggestion(str(value), flag.choices)}")
    shown = f"{value:g}" if isinstance(value, float) else value
    return OptionError(f"{flag.names[0]} {shown}: must be {flag.rule}{suggestion(str(value), ('auto', 'off'))}")


def command_of(request: CompileRequest) -> str:
    """What may be typed to get this request: the model and every option that differs from its default."""
    words = ["qcompile", str(request.model)]
    for holder in (request, request.options):
        for entry in options_of(holder):
            words += _words(flag_of(entry), getattr(holder, entry.name), entry.default)
    return shlex.join(words)


def _words(flag: Flag, value: Any, default: Any) -> list[str]:
    if value == default or value is None:
        return []
    if isinstance(value, bool):
        return [flag.names[0] if value else f"--no-{flag.names[0].removeprefix('--')}"]
    each = value if isinstance(value, tuple | list) else (value,)
    return [word for one in each for word in (flag.names[0], str(one))]


def check_values(options: Any) -> None:
    """Check every option of a dataclass by itself; OptionError names the first one that is wrong."""
    for entry in options_of(options):
        flag, value = flag_of(entry), getattr(options, entry.name)
        if value is None:
            continue
        if (flag.choices and value not in flag.choices) or (flag.fits is not None and not flag.fits(value)):
            raise refusal(flag, value)


def described(kind: Kind) -> Kind:
    """The dataclass with what its options say of themselves as the ``Attributes:`` of its docstring."""
    lines = []
    for entry in options_of(kind):
        default = text_of_default(entry)
        lines.append(f"    {entry.name}: {flag_of(entry).help}{f' Default: {default}.' if default else ''}")
    kind.__doc__ = "\n".join((kind.__doc__ or "", "", "Attributes:", *lines, ""))
    return kind


def _share(text: str) -> float:
    """``50%`` or ``0.5``."""
    return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)


def _auto_off_or_number(text: str) -> str | int:
    """``auto``, ``off`` or a number."""
    return text if text in ("auto", "off") else int(text)


def _is_share(value: float) -> bool:
    return 0 < value <= 1


@described
@dataclass(frozen=True)
class Options:
    """How to compile.

    Raises:
        OptionError: a value is none that its option may have, or two options contradict each other.
    """

    level: int = option(
        2, "Effort: 0 rounds to nearest, 3 searches.", EFFORT, "-O 1", names=("-O",), kind=int, metavar="0…3",
        fits=range(4).__contains__, rule="0, 1, 2 or 3",
    )  # fmt: skip
    passes: str | None = option(
        None, "A pipeline of passes instead of the preset of -O.", EFFORT,
        "--passes 'normalize,my_pkg.mod:MyPass(x=1),quantize'", metavar="PASSES", unset="the preset",
    )  # fmt: skip
    form: Form = option(  # noqa: RUF009 - a field
        "qdq", "What .onnx holds: qdq (QuantizeLinear and DequantizeLinear around float operators, fast everywhere) "
        "or integer (integer arithmetic alone).", OUTPUT, "--format integer", names=("--format",), metavar="FORM",
        choices=("qdq", "integer"),
    )  # fmt: skip
    weights: str = option(
        "int8", "Grid of the weights: int8, int4, nf4, kmeans4, power4, int3, …; auto chooses one for each layer, by "
        "budget.", WEIGHTS, "--weights int4", metavar="GRID",
    )  # fmt: skip
    size_budget: float | None = option(
        None, "With --weights auto: bytes of the layers' weights, as a share of those at 8 bits.", WEIGHTS,
        "--weights auto --size-budget 40%", metavar="SHARE", unset="50%, or none beside another budget",
        fits=_is_share, rule="a share of the 8-bit size, such as 50% or 0.5", read=_share,
    )  # fmt: skip
    max_loss: float | None = option(
        None, "With --weights auto, instead of a size: the smallest weights whose output error, relative to the "
        "energy of the outputs, is at most this.", WEIGHTS, "--weights auto --max-loss 0.01", kind=float,
        metavar="ERROR", unset="no limit",
    )  # fmt: skip
    widen: str | int = option(
        "auto", "Activations on 16-bit grids: those that need it (auto), none (off), or at most this many.",
        ACTIVATIONS, "--widen off", metavar="COUNT", read=_auto_off_or_number,
        fits=lambda value: value in ("auto", "off") or (isinstance(value, int) and value >= 0),
        rule="auto, off, or a number of tensors",
    )  # fmt: skip
    avoid_saturation: bool = option(
        True, "Keep the weights of .onnx within what CPUs without VNNI multiply exactly: their int8 products saturate.",
        WEIGHTS, "--no-avoid-saturation", kind=bool,
    )  # fmt: skip
    seed: int = option(0, "Seed of every random choice.", EFFORT, "--seed 1", kind=int, metavar="NUMBER")
    verify: bool = option(
        False, "Prove with onnxruntime, on one feed, that every exact pass leaves the outputs as they are.", REPORT,
        "--verify", names=("--verify",), kind=bool,
    )  # fmt: skip
    activations: str = option(
        "uint8", "Grid of the activations: uint8; int8 (the same codes, moved by 128); int16 (where accumulators hold "
        "it); uint4 and power4 (4 bits for the inputs of layers, the second on a power curve).", ACTIVATIONS,
        "--activations int16", metavar="TYPE", choices=ACTIVATION_GRIDS,
    )  # fmt: skip
    bundle: str = option(
        "off", "Replace blocks of layers by cheaper ones fitted in closed form (auto), or not (off).", REPLACEMENT,
        "--bundle auto", metavar="WHEN", choices=("auto", "off"),
    )  # fmt: skip
    bundle_error: float | None = option(
        None, "With --bundle auto: squared relative error allowed in each replaced block and at the outputs.",
        REPLACEMENT, "--bundle auto --bundle-error 0.05", kind=float, metavar="ERROR", unset="0.02",
        fits=_is_share, rule="above 0 and at most 1",
    )  # fmt: skip
    block: int = option(
        0, "With weights of at most 4 bits: weights along K (input channels times taps) that share one scale: 32, 64 "
        "or 128.", WEIGHTS, "--weights int4 --block 64", kind=int, metavar="SIZE",
        unset="0, one scale per output channel",
    )  # fmt: skip
    latency_budget: float | None = option(
        None, "With --weights auto: time of the layers on the integer machine, measured here, as a share of that at 8 "
        "bits.", WEIGHTS, "--weights auto --latency-budget 80%", metavar="SHARE", unset="no limit",
        fits=_is_share, rule="a share of the 8-bit time, such as 50% or 0.5", read=_share,
    )  # fmt: skip
    latency_costs: str | None = option(
        None, "With --latency-budget: take the times from this report and measure none.", WEIGHTS,
        "--weights auto --latency-budget 80% --latency-costs report.json", metavar="FILE", unset="measured",
    )  # fmt: skip
    dims: tuple[str, ...] = option(
        (), "Size of a symbolic dimension, or its range; may be given several times.", CALIBRATION,
        "--dim batch=1 --dim length=1..512", names=("--dim",), kind=list[str], metavar="NAME=SIZE",
        unset="as in the model", read=tuple,
    )  # fmt: skip
    rules: tuple[LayerRule, ...] = option(
        (), "What is to be done with single nodes, by the pattern of their name or by operator: skip (stays float), "
        "grid=… or bits=… for their weights, int16 for what they read; may be given several times.", WEIGHTS,
        "--rule 'name=encoder.0.*,bits=4' --rule op=Softmax,skip", names=("--rule",), kind=list[str],
        metavar="KEY=VALUE,…", unset="the same for all", read=lambda texts: tuple(map(LayerRule.read, texts)),
    )  # fmt: skip
    mixed: bool = option(
        False, "Where some operators have no integer form, write a .qprog whose float parts run on onnxruntime, beside "
        "the machine, instead of refusing it.", OUTPUT, "--mixed", names=("--mixed",), kind=bool,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_values(self)
        self._check_rules()
        self._check_bundle()
        if self.passes is None:
            self._check_weights()
            self._check_activations()
        else:
            self._check_passes()

    def _check_rules(self) -> None:
        if self.rules and self.passes is not None:
            raise OptionError(f"--rule {self.rules[0]}: --passes says what is done; write follow-rules(…) into it")
        for rule in (rule for rule in self.rules if rule.grid):
            if self.weights == "auto":
                raise OptionError(f"--rule {rule}: --weights auto chooses the grids; leave out one of the two")
            from qcompiler.grids.named import grid_named  # as below

            try:
                grid_named(rule.grid)
            except OptionError as error:
                raise OptionError(f"--rule {rule}: {error}") from error

    def _check_weights(self) -> None:
        if self.block and self.weights in ("auto", "int8"):
            raise OptionError(
                f"--block {self.block}: blocks need a grid of at most 4 bits; give it with --weights int4 or nf4, "
                f"not {self.weights}"
            )
        if self.weights == "auto":
            if self.level == 0:
                raise OptionError("--weights auto: choosing grids needs -O1 or more")
            return
        if any(getattr(self, name) is not None for name in BUDGETS):
            raise OptionError(
                f"--weights {self.weights}: a budget of size, time or loss chooses among grids; give it with "
                "--weights auto"
            )
        from qcompiler.grids.named import grid_named  # numpy, which the command line does not need for its help

        try:
            grid_named(f"{self.weights}/{self.block}" if self.block else self.weights)
        except OptionError as error:
            raise OptionError(f"--weights {self.weights}: {error}") from error

    def _check_activations(self) -> None:
        if self.activations == "int16" and self.level > 0 and self.widen != "auto":
            raise OptionError(f"--activations int16: all activations are wide; leave out --widen {self.widen}")

    def _check_passes(self) -> None:
        """A pipeline of one's own says all of it; an option beside it would be without effect."""
        instead = {
            "block": f"write reconstruct-layers(grid='int4/{self.block}') into it",
            "activations": "put narrow-, widen- or sign-activations into it",
            "bundle": "write snnk-bundle(error=0.02) into it",
            "weights": f"write reconstruct-layers(grid={self.weights}) or allocate-bits into it",
            "widen": f"write choose-widths(widen={self.widen}) into it",
            **{name: f"write allocate-bits({name}=…) into it" for name in BUDGETS},
        }
        entries = {entry.name: entry for entry in options_of(Options)}
        for name, advice in instead.items():
            value = getattr(self, name)
            if value != entries[name].default:
                flag = flag_of(entries[name])
                raise OptionError(f"{flag.names[0]} {value}: --passes says what is done; {advice}")

    def _check_bundle(self) -> None:
        if self.bundle == "off" and self.bundle_error is not None:
            raise OptionError(f"--bundle-error {self.bundle_error:g}: is the budget of --bundle auto; give that, too")


@described
@dataclass(frozen=True)
class CompileRequest:
    """One call of `qcompile`: a float model (``model``), its ``options``, and what the command alone has."""

    model: Path
    options: Options
    outputs: Sequence[Path] = option(
        dataclasses.MISSING, "Result: .onnx for any runtime, .qprog for the integer machine, .c (and .h) for "
        "any C compiler; may be given several times.",
        OUTPUT, "-o out.onnx -o out.qprog", names=("-o", "--output"), kind=list[Path], metavar="FILE",
    )  # fmt: skip
    c_dims: tuple[str, ...] = option(
        (), "Size of a symbolic dimension in the .c, where all sizes are fixed (feeds may have others); may be given "
        "several times.", OUTPUT, "-o model.c --c-dim batch=1", names=("--c-dim",), kind=list[str],
        metavar="NAME=SIZE", unset="none", read=tuple,
    )  # fmt: skip
    force: bool = option(
        False, "Replace existing outputs.", OUTPUT, "--force", names=("--force",), kind=bool,
    )  # fmt: skip
    calib: str | None = option(
        None, "Calibration feeds: a .npz, a folder of .npz or .npy, or module:function.", CALIBRATION,
        "--calib feeds.npz", metavar="FEEDS", unset="made up from the model",
    )  # fmt: skip
    accuracy: str | None = option(
        None, "Find the smallest weights that keep a measure of your own: module:function, called with run(feeds) -> "
        "outputs and returning a number, higher is better.", WEIGHTS,
        "--accuracy my_pkg.my_mod:score --max-drop 0.5%", metavar="FUNCTION", unset="no search",
    )  # fmt: skip
    max_drop: ScoreDrop | None = option(  # noqa: RUF009 - a field
        None, "With --accuracy: what the number may lose, as a share of the float model's or in its own unit.", WEIGHTS,
        "--accuracy my_pkg.my_mod:score --max-drop 0.01", metavar="DROP", unset="1%", read=ScoreDrop.read,
        rule="a share such as 0.5%, or a number such as 0.01, not negative",
    )  # fmt: skip
    report: Path | None = option(  # noqa: RUF009 - a field
        None, "Also write the report: .html, a page with the network, histograms and plots, or .json.", REPORT,
        "--report report.html", kind=Path, metavar="FILE", unset="none is written",
    )  # fmt: skip
    recipe: Path | None = option(  # noqa: RUF009 - a field
        None, "Take options and rules from this TOML file; what is typed besides goes before.", EFFORT,
        "--recipe recipe.toml", kind=Path, metavar="FILE", unset="none",
    )  # fmt: skip
    save_recipe: Path | None = option(  # noqa: RUF009 - a field
        None, "Write all options that were used, defaults too, to this recipe.", REPORT, "--save-recipe recipe.toml",
        kind=Path, metavar="FILE", unset="none is written",
    )  # fmt: skip
    print_after: str | None = option(
        None, "List the graph after this pass, or after each (all).", REPORT, "--print-after fold-batchnorm",
        metavar="PASS", unset="no list",
    )  # fmt: skip
    time_passes: bool = option(
        False, "Print how long each pass took.", REPORT, "--time-passes", names=("--time-passes",), kind=bool,
    )  # fmt: skip
    as_json: bool = option(
        False, "Print JSON for machines instead of a table.", REPORT, "--json", names=("--json",), kind=bool,
    )  # fmt: skip
