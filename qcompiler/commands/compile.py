"""`qcompile`: compile, run what was compiled, write it, and say what it cost."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qcompiler.api import Compiled, check_output, compile, describe_program, state_program, worst_layers
from qcompiler.commands.as_c import check_sizes_of_c, sizes_of_c, write_program_as_c
from qcompiler.commands.child_process import temporary_prefix
from qcompiler.commands.executors import executor_of
from qcompiler.commands.recipes import recipe_of
from qcompiler.commands.report_file import PAGE, check_report, write_text
from qcompiler.commands.size_search import Scored, Way, check_search, smallest
from qcompiler.errors import NoIntegerFormError, OptionError, suggestion
from qcompiler.feeds.sources import input_specs
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.export import check_target
from qcompiler.onnx_io.importer import load_graph
from qcompiler.options import CompileRequest, command_of
from qcompiler.page.grid_history import GridHistory
from qcompiler.page.network import NetworkView, look_at
from qcompiler.page.provenance import origin_of, sha256
from qcompiler.page.render import page
from qcompiler.pass_base import Pass
from qcompiler.presets import pipeline_for
from qcompiler.records import Report
from qcompiler.report.listing import listing
from qcompiler.report.terminal import show
from qcompiler.runtime import Session
from qcompiler.scores.metric import Metric, metric_named
from qcompiler.version import __version__


@dataclass(frozen=True)
class _Made:
    """Results that wait to be moved: each file in a folder of its own, since external data may come with it.

    Attributes:
        places: the files.
        report: of the first of them.
        network: for a report that is a page.
    """

    places: list[Path]
    report: Report
    network: NetworkView | None

    def sizes(self) -> list[int]:
        """Bytes of each file, with what belongs to it."""
        return [sum(part.stat().st_size for part in place.parent.iterdir()) for place in self.places]


def compile_and_write(request: CompileRequest, console: Console, errors: Console) -> None:
    """Compile for every output; nothing is written unless all of them ran. A ``.qprog`` is only written as ``.c``."""
    check_search(request)
    targets = _checked_targets(request)
    if request.model.suffix == ".qprog":
        write_program_as_c(request, targets)
        return
    check_sizes_of_c(request)
    typed = command_of(request)
    with ExitStack() as stack:
        if request.accuracy is None:
            made = _make(request, targets, stack, errors)
        else:
            request, made = _search(request, targets, stack, errors)
        report = made.report
        for place, target, size in zip(made.places, targets, made.sizes(), strict=True):
            report.file_bytes[target.name] = size
            for part in sorted(place.parent.iterdir()):
                part.replace(target.parent / part.name)
    if request.report is not None and made.network is not None:
        origin = origin_of(request.model, targets, typed)
        write_text(request.report, page(report, made.network, origin))
    elif request.report is not None:
        write_text(request.report, json.dumps(report.as_dict(), indent=1) + "\n")
    if request.save_recipe is not None:
        head = f"qcompiler {__version__}, {request.model.name} with SHA-256 {sha256(request.model)}"
        write_text(request.save_recipe, recipe_of(request, head))
    if request.as_json:
        print(json.dumps(report.as_dict(), indent=1))  # noqa: T201
    for warning in report.warnings:
        errors.print(f"warning: {warning}", highlight=False, soft_wrap=True, markup=False)
    show(report, console)
    if request.time_passes:
        for timing in report.timings:
            errors.print(f"{timing.seconds:9.3f} s  {timing.name}", highlight=False)


def _checked_targets(request: CompileRequest) -> list[Path]:
    """The outputs, where all files may be written."""
    targets = [check_output(path, force=request.force) for path in request.outputs]
    check_report(request.report, force=request.force)
    if request.save_recipe is not None:
        check_target(request.save_recipe, force=request.force, option="--save-recipe")
    if any(target.resolve() == request.model.resolve() for target in targets):
        raise OptionError(f"-o {request.model}: is the model itself; choose another path")
    return targets


def _make(request: CompileRequest, targets: list[Path], stack: ExitStack, errors: Console) -> _Made:
    """Compile; each result waits beside its target."""
    folders = [
        stack.enter_context(tempfile.TemporaryDirectory(dir=target.parent, prefix=temporary_prefix(os.getpid())))
        for target in targets
    ]
    places = [Path(folder) / target.name for folder, target in zip(folders, targets, strict=True)]
    return _Made(places, *_compile_all(request, places, errors))


def _search(
    request: CompileRequest, targets: list[Path], stack: ExitStack, errors: Console
) -> tuple[CompileRequest, _Made]:
    """The smallest results that keep the user's measure, with the request that makes them again."""
    graph = load_graph(request.model)
    metric = metric_named(str(request.accuracy), input_specs(graph))
    programs = [target.with_suffix(".qprog") for target in targets if target.suffix == ".c"]

    def attempt(way: Way) -> Scored[_Made]:
        # a .c has the bits of the program, which is made beside it to be run
        made = _make(replace(request, options=way.of(request.options)), [*targets, *programs], stack, errors)
        score = min(_score(metric, place) for place in made.places if place.suffix != ".c")
        wanted = replace(made, places=made.places[: len(targets)])
        return Scored(wanted, sum(wanted.sizes()), score)

    def tell(line: str) -> None:
        errors.print(line, highlight=False, soft_wrap=True, markup=False)

    score = metric.score(Runner(graph).run, "the float model")
    tell(f"float: {score:.6g}")
    found = smallest(request, score, attempt, tell)
    found.files.report.search = found.search
    return replace(request, options=found.way.of(request.options)), found.files


def _score(metric: Metric, place: Path) -> float:
    """The user's measure of a result. An ``.onnx`` runs in arithmetic that is exact on every CPU."""
    run = executor_of(place).run if place.suffix == ".qprog" else Runner(onnx.load(place)).run
    return metric.score(run, place.name)


def _compile_all(
    request: CompileRequest, places: list[Path], errors: Console
) -> tuple[Report, NetworkView | None]:
    """Compile once for each kind of result and write the results; the report of the first, and its network where the
    report is a page.
    """
    report: Report | None = None
    network: NetworkView | None = None
    wants_page = request.report is not None and request.report.suffix == PAGE
    programs = [place for place in places if place.suffix == ".qprog"]
    as_qdq = {place: place.suffix == ".onnx" and request.options.form == "qdq" for place in places}
    for for_onnx in dict.fromkeys(as_qdq.values()):
        history = GridHistory() if wants_page and report is None else None
        compiled = _compile(request, errors, history, for_onnx=for_onnx)
        if report is None:
            if not programs:
                describe_program(compiled)
            worst_layers(compiled)
            report = compiled.report
        if programs and not for_onnx:
            _state_program(compiled, report, request)
        for place in places:
            if as_qdq[place] == for_onnx:
                compiled.save(place, form=request.options.form, dims=sizes_of_c(request))
        if history is not None:
            network = _network(compiled, history, timed=bool(programs))
        del compiled
        gc.collect()  # before the next one begins
    if report is None:
        raise OptionError("-o: name at least one file to write")
    return report, network


def _state_program(compiled: Compiled, report: Report, request: CompileRequest) -> None:
    try:
        state_program(compiled, report)
    except NoIntegerFormError as error:
        if request.options.mixed:
            raise
        hint = f"{error}; with --mixed such parts run on onnxruntime, beside the machine"
        raise NoIntegerFormError(hint, error.nodes) from None


def _network(compiled: Compiled, history: GridHistory, *, timed: bool) -> NetworkView:
    """What the page shows of the network. Times are taken where the machine runs the program anyway; what stays float
    for an ``.onnx`` file has none.
    """
    times: dict[str, int] | None = None
    if timed and compiled.mixed is None:
        with suppress(NoIntegerFormError), Session(compiled.program) as session:
            times = {}
            for _, node, spent in session.profile(dict(compiled.feeds[0])):
                times[node] = times.get(node, 0) + spent
    return look_at(compiled.graph, compiled.feeds, compiled.report, history, times)


def _compile(request: CompileRequest, errors: Console, history: GridHistory | None, *, for_onnx: bool) -> Compiled:
    def after(step: Pass, graph: Graph, changed: bool) -> None:
        advance(step.name)
        if history is not None and changed:
            history.look(step.name, graph)
        if request.print_after in ("all", step.name):
            errors.print(f"# after {step.name}{'' if changed else ' (unchanged)'}", highlight=False)
            for line in listing(graph):
                errors.print(line, highlight=False, markup=False, soft_wrap=True)

    pipeline = pipeline_for(request.options, for_onnx=for_onnx)
    names = {step.name for step in pipeline.passes}
    if request.print_after not in (None, "all", *names):
        raise OptionError(
            f"--print-after {request.print_after}: no such pass in this pipeline"
            f"{suggestion(str(request.print_after), names)}; it has: {', '.join(sorted(names))}"
        )
    with _progress(errors, len(pipeline.passes)) as advance:
        return compile(
            request.model,
            data=request.calib,
            options=request.options,
            for_onnx=for_onnx,
            on_pass=after,
            on_step=advance.within,
        )


class _Advance:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("importing", total=total)
        self._inner = progress.add_task("in this pass", total=None, visible=False)

    def __call__(self, name: str) -> None:
        """A pass is done."""
        self._progress.update(self._task, advance=1, description=f"after {name}")
        self._progress.update(self._inner, visible=False)

    def within(self, done: int, total: int) -> None:
        """So much of the running pass is done."""
        if done <= 1:
            self._progress.reset(self._inner, total=total)
        self._progress.update(self._inner, completed=done, visible=True)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[_Advance]:
    """A progress bar on a terminal, silence in a pipe."""
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Advance(progress, total)
