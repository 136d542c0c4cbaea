"""`qdiff`: two models on the same feeds: their outputs, their layers, where they part, and the worst feeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.commands.executors import Executor, OnnxExecutor, Values, executor_of
from qcompiler.commands.model_facts import facts_of, names_of
from qcompiler.commands.report_file import PAGE, check_report, write_text
from qcompiler.commands.run import feeds_for
from qcompiler.commands.worst_feeds import Answered, worst_feeds
from qcompiler.errors import ModelError, OptionError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.page.comparison_page import comparison_page
from qcompiler.page.provenance import origin_of, sha256
from qcompiler.records import OutputFigure
from qcompiler.report.column_groups import bounded_columns
from qcompiler.report.comparison import Comparison, EqualShare, SharedTensor, along, is_text, part
from qcompiler.report.honest import Judge
from qcompiler.report.measure import Sqnr
from qcompiler.report.terminal import decibels

DIFF_FEEDS = 32
"""Feeds whose outputs are compared; layers are compared on the first and on the worst of them."""
ROOM = 512 << 20
"""Bytes of feeds and answers from which no further feed is run."""


@dataclass(frozen=True)
class DiffRequest:
    """What `qdiff` was asked for.

    Attributes:
        first, second: the models; the first is the reference.
        feeds: where they come from; None: made up.
        count: how many layers are listed, worst first.
        report: a page or JSON to write.
        force: it may exist.
    """

    first: Path
    second: Path
    feeds: str | None
    count: int
    report: Path | None = None
    force: bool = False

    @property
    def command(self) -> str:
        """What may be typed to get this."""
        words = ["qdiff", str(self.first), str(self.second)]
        words += ["--feeds", self.feeds] if self.feeds is not None else []
        return shlex.join([*words, *(["--report", str(self.report)] if self.report is not None else [])])


def compare_and_write(request: DiffRequest) -> Comparison:
    """Compare two models and write the report, if one was asked for; where something is wrong, nothing is written."""
    check_report(request.report, force=request.force)
    paths = (request.first, request.second)
    sides = [executor_of(path, "onnxruntime" if path.suffix == ".onnx" else "machine") for path in paths]
    found = compare(sides[0], sides[1], request)
    if request.report is not None and request.report.suffix == PAGE:
        names = names_of(*paths)
        facts = [facts_of(*each) for each in zip(names, paths, sides, strict=True)]
        origin = origin_of(request.first, (), request.command)
        origin = replace(origin, hashes={name: sha256(path) for name, path in zip(names, paths, strict=True)})
        write_text(request.report, comparison_page(found, facts[0], facts[1], origin))
    elif request.report is not None:
        write_text(request.report, json.dumps(found.as_dict(request.count), indent=1) + "\n")
    return found


def compare(first: Executor, second: Executor, request: DiffRequest) -> Comparison:
    """Run both models on the feeds; ``first`` is the reference.

    Raises:
        OptionError: no feed.
        ModelError: no output can be compared, or a model cannot run a feed.
    """
    graphs = [side.inputs for side in (first, second) if isinstance(side, OnnxExecutor)]
    inputs = graphs[0] if graphs else first.inputs
    source = feeds_for(inputs, request.feeds)
    answered = _answered(first, second, source)
    alone = _alone(answered[0])
    answered = [_common(each) for each in answered]
    total = Sqnr()
    for each in answered:
        total.add(each.first, each.second)
    if not total.signal:
        raise ModelError(
            f"{request.second}: has no output of the same name and shape as {request.first}; nothing can be compared"
        )
    worst = worst_feeds(inputs, first, answered)
    given, farthest = answered[0].feed, worst[0].given
    traces = [side.trace(given) for side in (first, second)]
    on_worst = traces if farthest is given else [side.trace(farthest) for side in (first, second)]
    layers = _layers(graphs, traces, on_worst)
    return Comparison(
        len(answered), total.db(), _figures(answered, inputs), _equal(answered), alone, _uncompared(answered[0]),
        layers, part(layers), off_by_more_than_one(*traces), [each for each in worst if each.differs], source.made_up,
    )  # fmt: skip


def _answered(first: Executor, second: Executor, feeds: Iterable[Feed]) -> list[Answered]:
    """At most `DIFF_FEEDS` feeds with both answers, and no more than there is room for."""
    found: list[Answered] = []
    room = ROOM
    for feed in islice(feeds, DIFF_FEEDS):
        each = Answered(feed, first.run(feed), second.run(feed))
        found.append(each)
        room -= sum(array.nbytes for part in (each.feed, each.first, each.second) for array in part.values())
        if room <= 0:
            break
    if not found:
        raise OptionError("--feeds: holds no feed")
    return found


def _alone(each: Answered) -> tuple[list[str], list[str]]:
    """Names of the outputs that only one model has."""
    return [n for n in each.first if n not in each.second], [n for n in each.second if n not in each.first]


def _common(each: Answered) -> Answered:
    """Without the outputs that only one model has; maps from classes to numbers become numbers."""
    names = [name for name in each.first if name in each.second]
    sides = (each.first, each.second)
    return Answered(each.feed, *({name: _without_maps(side[name]) for name in names} for side in sides))


def _without_maps(value: NDArray[Any]) -> NDArray[Any]:
    """A sequence of maps of the same keys as numbers [maps, keys]; anything else as it is."""
    if value.dtype.kind != "O" or not value.size or not all(isinstance(each, dict) for each in value.flat):
        return value
    keys = [*value.flat[0]]
    if any(each.keys() != set(keys) for each in value.flat):
        return value
    return np.array([[each[key] for key in keys] for each in value.flat])


def _figures(answered: Sequence[Answered], inputs: Graph) -> list[OutputFigure]:
    held = [(each.feed, each.first) for each in answered]
    got = {id(each.feed): each.second for each in answered}
    return Judge(held, [], bounded_columns(inputs)).figures(lambda feed: got[id(feed)])


def _equal(answered: Sequence[Answered]) -> list[EqualShare]:
    """Integers, truths and texts are equal or not."""
    found = []
    for name, value in answered[0].first.items():
        if value.dtype.kind in "iub" or is_text(value):
            pairs = [(each.first[name], each.second[name]) for each in answered]
            equal = sum(int(np.sum(one == other)) for one, other in pairs if one.shape == other.shape)
            found.append(EqualShare(name, equal, sum(one.size for one, _ in pairs)))
    return found


def _uncompared(each: Answered) -> list[str]:
    return [name for name, value in each.first.items() if value.dtype.kind not in "fiub" and not is_text(value)]


def _layers(graphs: Sequence[Graph], traces: Sequence[Values], on_worst: Sequence[Values]) -> list[SharedTensor]:
    """The tensors of both; none where these are but the outputs."""
    first, worst = _of_layers(traces), _of_layers(on_worst)
    if not graphs:
        return [SharedTensor(name, "", "", "", first.get(name), worst.get(name), worst.get(name)) for name in first]
    found, ends = along(graphs[0], first, worst, *graphs[1:]), {str(tensor.name) for tensor in graphs[0].outputs}
    return found if any(each.tensor not in ends for each in found) else []


def _of_layers(traces: Sequence[Values]) -> dict[str, float]:
    layers = Sqnr()
    layers.add(*(_floats(trace) for trace in traces))
    return layers.db()


def _floats(values: Values) -> Values:
    return {name: value for name, value in values.items() if np.issubdtype(value.dtype, np.floating)}


def off_by_more_than_one(first: Values, second: Values) -> dict[str, float]:
    """For each tensor of 8- or 16-bit codes on both sides: the share of elements that differ by more than one step."""
    shares = {}
    for name, codes in first.items():
        other = second.get(name)
        if (
            other is None
            or other.dtype != codes.dtype
            or other.shape != codes.shape
            or codes.dtype.kind not in "iu"
            or codes.dtype.itemsize > 2
        ):
            continue
        steps = np.abs(codes.astype(np.int64) - other.astype(np.int64))
        shares[name] = float((steps > 1).mean()) if steps.size else 0.0
    return shares


def summary(found: Comparison, count: int) -> dict[str, Any]:
    """What people read of it, by name."""
    lines: dict[str, Any] = {"feeds": found.feeds_text, "outputs": _outputs(found)}
    if found.layers:
        at, meaning = found.parts_at, found.parting.meaning if found.parting else "part first at"
        lines[meaning] = "nowhere: no tensor differs" if at is None else place_text(at)
        if found.falls_at not in (None, at):
            lines["steepest fall at"] = place_text(found.falls_at)
        lines["worst layers"] = {name: decibels(value) for name, value in found.lowest_layers(count).items()}
    if found.codes:
        lines["code tensors"] = len(found.codes)
        lines["codes off by more than one"] = {
            name: f"{100 * share:.2g} %" for name, share in found.lowest_codes(count).items()
        }
    if not found.layers and not found.codes:
        lines["layers"] = "the two share no inner tensor"
    if found.worst:
        lines["worst feeds"] = {each.name: decibels(each.lowest_db) for each in found.worst}
    return lines


def _outputs(found: Comparison) -> dict[str, str]:
    lines = {name: decibels(value) for name, value in found.outputs_sqnr_db.items()}
    lines |= {f"{each.output}{each.columns}": decibels(each.sqnr_db) for each in found.outputs if each.columns}
    lines |= {each.output: f"{each.equal} of {each.elements} equal" for each in found.equal}
    return lines | dict.fromkeys(found.uncompared, "not compared: neither numbers nor texts")


def place_text(at: SharedTensor) -> str:
    """A tensor with what writes it, and its error beside that of what it reads."""
    writer = f", written by {at.written_by}" if at.written_by else ""
    return f"{at.tensor}{writer}: {decibels(at.shown_db or 0.0)}, reads {decibels(at.reads_db)}"
