"""The public face: `compile` and `load`."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from qcompiler import lowering
from qcompiler.c_output import write_c
from qcompiler.errors import DataError, ModelError, NoIntegerFormError, OptionError, UnsupportedError
from qcompiler.feeds.selection import count_feeds, feeds_to_judge, fold_of, spread_feeds, spread_places
from qcompiler.feeds.sources import Source, open_source, synthetic_source, without
from qcompiler.feeds.switches import fix_switches
from qcompiler.graph.ir import Feed, Graph, Stage, copy_of
from qcompiler.graph.runner import Runner, refuse_unknown_operators
from qcompiler.manager import Manager
from qcompiler.mixed.build import build_mixed
from qcompiler.mixed.container import MixedProgram
from qcompiler.mixed.joined import MixedSession, run
from qcompiler.mixed.told import tell
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import Form, Options
from qcompiler.pass_base import Context, Pass
from qcompiler.presets import pipeline_for
from qcompiler.records import Report
from qcompiler.report import measure
from qcompiler.report.column_groups import bounded_columns
from qcompiler.report.cures import find_cures
from qcompiler.report.folds import runs_of_folds
from qcompiler.report.honest import FEW_NUMBERS, Judge
from qcompiler.report.trials import is_lost, try_unseen
from qcompiler.runtime import Program, Session
from qcompiler.shapes.fixed import Sizes, check_sizes, fix_sizes, parse_sizes
from qcompiler.shapes.seen_types import complete_types, drop_wrong_shapes, separate_sizes

Model = str | os.PathLike[str] | onnx.ModelProto
NO_CURE = "wider ranges alone do not bring it back"
"""Said of an unseen input where the cure that was tried does not help."""

COLLAPSED_DB = 10.0
"""SQNR (dB) of an output below which the report warns."""


FOLDS, LEAST_IN_FOLDS = 4, 8
"""Parts of the fitted feeds that are left out of the ranges in turn where few numbers are held out, and the fewest
feeds for that.
"""

MOSTLY_FLOAT = 0.5
"""Share of integer multiply-accumulates below which the report begins with a warning."""


@dataclass
class Compiled:
    """A compiled model.

    Attributes:
        graph: as the pipeline left it, usually of stage QUANTIZED.
        stage: the stage it has.
        report: what happened.
        feeds: the feeds on which it was compared with the float model.
        float_graph: the graph as the last exact pass left it, for comparing layer by layer.
        pack: store few-valued constants of an ``.onnx`` file in fewer bits, at a newer opset: the options ask for grids
            of few levels, or the model came with such weights.
        switches: inputs that the program was made for one number of (`qcompiler.feeds.switches`), with that number.
        allow_mixed: a model that has no program of integers alone has a mixed one.
        judge: feeds with the float model's answers; None where the float model that counts is another.
    """

    graph: Graph
    stage: Stage
    report: Report
    feeds: Sequence[Feed] = field(default=(), repr=False)
    float_graph: Graph | None = field(default=None, repr=False)
    pack: bool = True
    switches: Mapping[str, int] = field(default_factory=dict)
    allow_mixed: bool = False
    judge: Judge | None = field(default=None, repr=False)

    @cached_property
    def integer_graph(self) -> Graph:
        """The graph of integer operators. Raises UnsupportedError, naming each node without an integer form."""
        return self.graph if self.stage == Stage.INTEGER else lowering.lower_graph(self.graph)

    @property
    def program(self) -> Program:
        """The program for the integer machine, of integers alone. Raises as `integer_graph` does."""
        if isinstance(self._attempt, NoIntegerFormError):
            raise self._attempt
        return self._attempt

    @cached_property
    def mixed(self) -> MixedProgram | None:
        """The program with float parts on onnxruntime, where there is none of integers alone and one is allowed.

        Raises:
            UnsupportedError: nothing of the model can be integer.
        """
        refusal = self._attempt
        if isinstance(refusal, Program) or not self.allow_mixed or self.stage == Stage.INTEGER:
            return None
        return build_mixed(self.graph, self.feeds[0], refusal, self.switches)

    @cached_property
    def _attempt(self) -> Program | NoIntegerFormError:
        """The program of integers alone, or why there is none."""
        try:
            return lowering.to_program(self.integer_graph, self.switches)
        except NoIntegerFormError as error:
            return error

    def _repr_html_(self) -> str:
        """What notebooks show: the report."""
        return self.report._repr_html_()

    def session(self) -> Session:
        """The integer machine, ready to run the program of integers alone. Raises as `program` does."""
        return Session(self.program)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        form: Form = "qdq",
        force: bool = False,
        dims: Mapping[str, int] | None = None,
    ) -> None:
        """Write ``.onnx``, ``.qprog`` or ``.c`` (and ``.h``), after running what is to be written.

        Args:
            path: of the file.
            form: what an ``.onnx`` holds.
            force: files may be replaced.
            dims: sizes of symbolic dimensions in a ``.c``.

        Raises:
            OptionError: the path is a folder, exists without ``force``, or has another suffix; a ``.c`` lacks a size.
            UnsupportedError: this form cannot express the model.
            ExportError: the result does not load or run.
        """
        target = check_output(path, force=force)
        if target.suffix == ".qprog":
            program = self.mixed or self.program
            run(program, self.feeds[0])
            program.save(target)
            return
        if target.suffix == ".c":
            self.session().run(dict(self.feeds[0]))
            write_c(self.program, target, dims)
            return
        result = self.graph if form == "qdq" else lowering.to_integer_onnx(self.integer_graph)
        export.save(result, target, reference_feed=self.feeds[0], force=force, pack=self.pack)


def load(model: Model) -> Graph:
    """The imported float graph of a model; ModelError in one line for what is none."""
    return load_graph(model)


def check_output(path: str | os.PathLike[str], *, force: bool) -> Path:
    """The path, if a result may be written there; OptionError otherwise."""
    target = Path(path)
    if not target.is_dir() and target.suffix not in (".onnx", ".qprog", ".c"):
        raise OptionError(
            f"-o {target}: must end in .onnx (for any runtime), .qprog (for the integer machine) "
            "or .c (for any C compiler)"
        )
    export.check_target(target, force=force, option="-o")
    if target.suffix == ".c":
        export.check_target(target.with_suffix(".h"), force=force, option="-o")
    return target


def compile(
    model: Model,
    *,
    data: str | os.PathLike[str] | Iterable[Feed] | None = None,
    options: Options | None = None,
    for_onnx: bool = True,
    on_pass: Callable[[Pass, Graph, bool], None] = lambda _pass, _graph, _changed: None,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
    on_data: Callable[[Source], Source] = lambda source: source,
) -> Compiled:
    """Compile a float model into an integer one.

    Args:
        model: path or ModelProto.
        data: calibration feeds: a path (``.npz``, folder), ``module:function``, or any iterable of dicts. None: made up
            from the graph.
        options: see `Options`.
        for_onnx: the result is for ``.onnx`` (apply ``avoid_saturation``); False for ``.qprog``.
        on_pass: called after each pass.
        on_step: called with (done, total) within passes that take long.
        on_data: may wrap the source, to show progress.

    Raises:
        QCompilerError: one of its kinds, with one line that names the culprit.
    """
    options = options or Options()
    exact, inexact, last = pipeline_for(options, for_onnx=for_onnx).parts()
    start = time.perf_counter()
    graph = load_graph(model)
    few_levels = (
        options.weights != "int8"
        or options.passes is not None
        or any(node.op == "DequantizeLinear" for node in graph.nodes)
    )
    refuse_unknown_operators(graph)
    sizes = parse_sizes(options.dims)
    original = copy_of(graph) if sizes else graph  # onnxruntime may refuse dead branches once sizes are fixed
    fix_sizes(graph, sizes)
    ctx = Context(seed=options.seed, on_step=on_step, dims={name: high for name, (_, high) in sizes.items()})
    ctx.report.figures["float_bytes"] = measure.weight_bytes(graph)
    source = synthetic_source(graph, ctx) if data is None else open_source(data, graph)
    source = on_data(source)
    judge = _set_apart(original, source, sizes, ctx)
    _learn_types(graph, judge, ctx)
    switches = {} if for_onnx else fix_switches(graph, source)
    for name, number in switches.items():
        ctx.warn(f"input '{name}' is {number} in every feed and chooses a branch: the program admits no other number")
    proof = judge.held[0][0] if options.verify else None
    stage = Manager(exact, proof, on_pass).run(graph, ctx)
    gc.collect()  # graphsurgeon's tensors and nodes hold each other, and so the float weights that the passes replaced
    normalized = copy_of(graph)  # tensors are copied, weights are shared
    ctx.reference = normalized
    stage = Manager(inexact, proof, on_pass).run(graph, ctx, stage)
    _state(graph, judge, ctx)
    stage = Manager(last, proof, on_pass).run(graph, ctx, stage)
    ctx.report.figures["seconds"] = time.perf_counter() - start
    result = Compiled(
        graph, stage, ctx.report, [feed for feed, _ in judge.held], normalized, few_levels, switches,
        options.mixed, judge if ctx.matched_pair is None else None,
    )  # fmt: skip
    if stage != Stage.INTEGER:
        _measure(result)
    return result


def _learn_types(graph: Graph, judge: Judge, ctx: Context) -> None:
    """Take from a run what the model says of its tensors wrongly, or not at all."""
    for name in separate_sizes(graph, [feed for feed, _ in judge.held]):
        ctx.warn(f"the model's size '{name}' is several sizes in one feed; each input has sizes of its own instead")
    for name in drop_wrong_shapes(graph, *judge.held[0]):
        ctx.warn(f"output '{name}' has other sizes than the model declares; what it declares of them is not used")
    complete_types(graph, judge.held[0][0])


def _set_apart(graph: Graph, source: Source, sizes: Sizes, ctx: Context) -> Judge:
    """Hold feeds out of ``ctx.data`` for the report, with the float model's answers to them and to some others."""
    places, most = feeds_to_judge(source, ctx.seed)
    fitted = without(source, places)
    held = spread_feeds(source, len(places), places) if places else spread_feeds(source, 1)
    for feed in held:
        check_sizes(graph, feed, sizes)
    reference = Runner(graph)
    answered = _answered(graph, reference, held, source)
    few = sum(min((value.size for value in values.values()), default=0) for _, values in answered) < FEW_NUMBERS
    others = [(feed, reference.run(feed)) for feed in spread_feeds(fitted, most if few else 0)]
    ctx.data, ctx.held = fitted, held if places else ()
    count = count_feeds(fitted)
    ctx.folds = FOLDS if few and places and count >= LEAST_IN_FOLDS and not source.made_up else 0
    folds = [fold_of(place, count, FOLDS) for place in spread_places(count, most)] if ctx.folds else []
    return Judge(answered, others, bounded_columns(graph), not places, folds)


def _answered(
    graph: Graph, reference: Runner, feeds: Sequence[Feed], source: Source
) -> list[tuple[Feed, measure.Values]]:
    """Feeds with the float model's outputs."""
    try:
        return [(feed, reference.run(feed)) for feed in feeds]
    except ModelError as error:
        if not source.made_up:
            raise
        symbols = dict.fromkeys(size for tensor in graph.inputs for size in tensor.shape or () if isinstance(size, str))
        hint = f", or sizes with --dim NAME=SIZE ({', '.join(symbols)})" if symbols else ""
        raise DataError(
            f"feeds cannot be made up for this model; give real ones with --calib{hint}: {error}"
        ) from error


def _state(graph: Graph, judge: Judge, ctx: Context) -> None:
    """Put into the report how far the outputs are from the float model's on feeds that nothing was fitted to."""
    report = ctx.report
    reference, judged = ctx.matched_pair or (ctx.reference or graph, graph)
    judge = judge if ctx.matched_pair is None else judge.on(Runner(reference).run)
    of_fold = runs_of_folds(judged, ctx.final_grids, ctx.fold_grids) if any(ctx.fold_grids.values()) else None
    report.outputs = judge.figures(Runner(judged).run, of_fold)
    report.output_sqnr_db = {each.output: each.sqnr_db for each in report.outputs if not each.columns}
    for each in (each for each in report.outputs if not each.columns and each.feeds < len(judge.held)):
        ctx.warn(
            f"output '{each.output}' has another size than the float model's on {len(judge.held) - each.feeds} of "
            f"{len(judge.held)} feeds held out, so values near a threshold fell on its other side; the figure is of "
            "the others"
        )
    report.trials = try_unseen(reference, judged, [feed for feed, _ in judge.held], report.output_sqnr_db)
    for trial in (trial for trial in report.trials if is_lost(trial)):
        then = (
            f"{trial.what}: output {trial.output} is {trial.sqnr_db:.1f} dB then, {trial.stated_db:.1f} dB on feeds "
            "held out"
        )
        ctx.warn(f"{then}; {trial.cure or NO_CURE}")
    if judge.seen and not getattr(ctx.data, "made_up", False):
        ctx.warn(
            "there is one calibration feed, so the figures are of the feed that the ranges come from; give several to "
            "hold some out: a folder of .npz files, or module:function"
        )
    collapsed = [each for each in report.outputs if each.sqnr_db < COLLAPSED_DB]
    cures = find_cures(graph, judge) if collapsed and not ctx.made_up else {}
    for each in collapsed:
        cure = cures.get(
            (each.output, each.columns), "no wider grid that was tried brings it back: see the worst layers"
        )
        what = f"output '{each.output}{each.columns}' is only {each.sqnr_db:.1f} dB above its quantization error"
        if ctx.made_up:
            ctx.warn(f"on made-up inputs, {what}; real ones may fare better: see what it gives on some of yours")
            continue
        ctx.warn(f"{what}, so its accuracy has probably collapsed: {cure}")


def _measure(result: Compiled) -> None:
    report, feeds = result.report, result.feeds
    total, integer, others = measure.macs(result.graph, feeds[0], {node.node for node in report.left_float})
    report.figures["macs"] = total
    report.figures["integer_mac_share"] = integer / total if total else None
    report.left_float = (
        [replace(node, share=others.get(node.node, 0) / total) for node in report.left_float]
        if total
        else report.left_float
    )
    if total and integer < MOSTLY_FLOAT * total:
        report.warnings.insert(0, _mostly_float(report, integer / total))
    report.figures["out_bytes"] = measure.weight_bytes(result.graph)
    report.figures["peak_memory_bytes"] = measure.peak_memory_bytes()


def _mostly_float(report: Report, share: float) -> str:
    worst = max(report.left_float, key=lambda node: node.share or 0.0, default=None)
    why = (
        f"; most of the rest is in '{worst.node}' ({worst.op}): {worst.reason}"
        if worst is not None and worst.share
        else ""
    )
    return f"only {100 * share:.0f} % of all multiply-accumulates are integer in the result{why}"


def describe_program(result: Compiled) -> None:
    """Add the figures of the integer program to the report, or the reason why there is none."""
    try:
        result.report.figures |= _memory(result)
    except UnsupportedError as error:
        result.report.warnings.append(f"no integer program of this .onnx (-o out.qprog compiles one apart): {error}")


def _memory(result: Compiled) -> dict[str, int]:
    memory = Session(result.program).memory_for(result.feeds[0])
    return {"arena_bytes": memory.arena, "constants_bytes": memory.constants}


def state_program(result: Compiled, report: Report) -> None:
    """Add what kind of program will be written, and its figures, to a report: that of ``result`` or of another form.

    The outputs of a mixed program are measured on the held-out feeds by running it, and the lower figures count.

    Raises:
        UnsupportedError: there is none, or none of integers alone where no other is allowed.
    """
    if result.mixed is None:
        report.program = "integer"
        report.figures |= _memory(result)
        return
    session, own = MixedSession(result.mixed), report is result.report
    tell(result.mixed, report, is_its_own=own)
    report.figures |= session.memory(result.feeds[0])
    if own and result.judge is not None:
        measured = replace(result.judge, fitted=(), folds=()).figures(session.run)
        known = {(each.output, each.columns): each for each in measured}
        both = [(each, known.get((each.output, each.columns), each)) for each in report.outputs]
        report.outputs = [min(pair, key=lambda each: each.sqnr_db) for pair in both]
        report.output_sqnr_db = {each.output: each.sqnr_db for each in report.outputs if not each.columns}


def worst_layers(result: Compiled) -> None:
    """Add the SQNR of every layer against the float model to the report."""
    if result.float_graph is not None and result.stage != Stage.INTEGER:
        result.report.layers = measure.layer_errors(result.float_graph, result.graph, result.feeds[0])


__all__: list[Any] = [
    "Compiled", "Options", "check_output", "compile", "describe_program", "load", "state_program", "worst_layers",
]  # fmt: skip
