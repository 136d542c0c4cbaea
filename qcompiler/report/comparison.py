"""What a comparison of two models found, and where along the layers they part.

The error of a tensor holds that of all before it, so the worst tensor is seldom the one to blame. Three places say
more: the first that differs at all; the first below `PARTED_DB`; and the steepest fall, from what a node reads to what
it writes. Errors below that of `CLEAN_DB` count as that: to fall from no error to a small one is what rounding does.

An error that nothing behind it shows does no harm: what a Clip cuts off, scores of -10000 that a mask hides from a
Softmax. So the latter two judge a tensor by the better of its own figure and the worst one of those that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, Node, subgraphs
from qcompiler.records import OutputFigure
from qcompiler.report.decibels import SAME_DB

__all__ = [
    "CLEAN_DB",
    "PARTED_DB",
    "Comparison",
    "EqualShare",
    "Parting",
    "SharedTensor",
    "WorstFeed",
    "along",
    "is_text",
    "part",
]

PARTED_DB = 20.0
"""Error of 10 %: below it two tensors are not the same any more."""
CLEAN_DB = 40.0
"""Error of 1 %."""
LEAST_FALL_DB = 1.0
"""A smaller fall is none: errors grow along the layers by themselves."""

Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SharedTensor:
    """A float tensor that both models compute.

    Attributes:
        tensor: its name.
        node, op: what writes it, in the first of the models that has nodes.
        other_op: the operator that writes it in the other one, where that is another.
        sqnr_db: on the first feed; None where that gives the two other shapes.
        worst_db: on the worst feed; None as well.
        shown_db: the same, but no lower than the lowest of the tensors that read it show.
        reads_db: the lowest ``shown_db`` among the tensors that it is computed from.
    """

    tensor: str
    node: str
    op: str
    other_op: str
    sqnr_db: float | None
    worst_db: float | None
    shown_db: float | None
    reads_db: float = SAME_DB

    @property
    def written_by(self) -> str:
        """``node (Operator)``, with both operators where they differ."""
        ops = " / ".join(op for op in (self.op, self.other_op) if op)
        return f"{self.node} ({ops})".lstrip() if ops else self.node

    @property
    def fall_db(self) -> float:
        """How much further apart it is than what it reads."""
        return 0.0 if self.shown_db is None else min(self.reads_db, CLEAN_DB) - min(self.shown_db, CLEAN_DB)


@dataclass(frozen=True)
class Parting:
    """Where two models part, as places in the list of shared tensors.

    Attributes:
        difference: the first that differs.
        below: the first below `PARTED_DB`; None where there is none.
        fall: the steepest fall; None where none is of `LEAST_FALL_DB`.
    """

    difference: int
    below: int | None
    fall: int | None

    @property
    def place(self) -> int:
        """Where they part first: below `PARTED_DB`, else at the steepest fall, else at the first difference."""
        return next(each for each in (self.below, self.fall, self.difference) if each is not None)

    @property
    def meaning(self) -> str:
        """What `place` is; what is named follows."""
        if self.below is not None:
            return "part first at"
        return "differ first at" if self.fall is None else "fall apart most at"


@dataclass(frozen=True)
class EqualShare:
    """An output that is not of a float type: how many of its elements are equal, over all feeds."""

    output: str
    equal: int
    elements: int


@dataclass(frozen=True, eq=False)
class WorstFeed:
    """A feed on which the models are far apart.

    Attributes:
        feed: its place among the feeds, from 0.
        row: along the first axis of that feed, where its rows do not depend on each other; None: all of it.
        sqnr_db: by output.
        given: the inputs.
        first, second: the outputs of either model.
    """

    feed: int
    row: int | None
    sqnr_db: dict[str, float]
    given: Feed = field(repr=False)
    first: Values = field(repr=False)
    second: Values = field(repr=False)

    @property
    def lowest_db(self) -> float:
        """Of its outputs."""
        return min(self.sqnr_db.values(), default=SAME_DB)

    @property
    def differs(self) -> bool:
        """True where an output does."""
        return self.lowest_db < SAME_DB

    @property
    def name(self) -> str:
        """``feed 3, row 7``."""
        return f"feed {self.feed}" if self.row is None else f"feed {self.feed}, row {self.row}"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same feeds.

    Attributes:
        feeds: how many.
        outputs_sqnr_db: of every output of numbers, over all feeds.
        outputs: of every float output and group of columns, with their spread over feeds.
        equal: of every other output.
        alone: outputs of one model only, by its place.
        uncompared: outputs that are neither numbers nor texts.
        layers: tensors of both, in the order in which they are computed.
        parting: where they part; None where they do not, or share no tensor.
        codes: share of the codes that differ by more than one step, by code tensor of both, in their order.
        worst: feeds, worst first.
        made_up: the feeds are not the user's.
    """

    feeds: int
    outputs_sqnr_db: dict[str, float]
    outputs: list[OutputFigure]
    equal: list[EqualShare]
    alone: tuple[list[str], list[str]]
    uncompared: list[str]
    layers: list[SharedTensor]
    parting: Parting | None
    codes: dict[str, float]
    worst: list[WorstFeed]
    made_up: bool = False

    @property
    def feeds_text(self) -> str:
        """How many feeds, and whose."""
        return f"{self.feeds}, made up from the model" if self.made_up else str(self.feeds)

    @property
    def parts_at(self) -> SharedTensor | None:
        """The tensor where they part first."""
        return None if self.parting is None else self.layers[self.parting.place]

    @property
    def falls_at(self) -> SharedTensor | None:
        """The tensor of the steepest fall."""
        return None if self.parting is None or self.parting.fall is None else self.layers[self.parting.fall]

    @property
    def codes_part_at(self) -> str | None:
        """The first code tensor with codes that differ by more than one step."""
        return next((name for name, share in self.codes.items() if share), None)

    def lowest_layers(self, count: int) -> dict[str, float]:
        """The worst tensors on the first feed."""
        known = {each.tensor: each.sqnr_db for each in self.layers if each.sqnr_db is not None}
        return dict(sorted(known.items(), key=lambda item: (item[1], item[0]))[:count])

    def lowest_codes(self, count: int) -> dict[str, float]:
        """The code tensors that differ most."""
        return dict(sorted(self.codes.items(), key=lambda item: (-item[1], item[0]))[:count])

    def as_dict(self, count: int) -> dict[str, Any]:
        """Ready for JSON, with the ``count`` worst layers."""
        found: dict[str, Any] = {
            "feeds": self.feeds,
            "feeds_made_up": self.made_up,
            "outputs_sqnr_db": _rounded(self.outputs_sqnr_db, 2),
            "outputs": [asdict(each) for each in self.outputs],
            "equal_outputs": [asdict(each) for each in self.equal],
            "outputs_of_one_model": [*self.alone],
            "outputs_not_compared": self.uncompared,
        }
        if self.layers:
            found["worst_layers_sqnr_db"] = _rounded(self.lowest_layers(count), 2)
            found["parts_at"] = None if self.parts_at is None else asdict(self.parts_at)
            found["falls_at"] = None if self.falls_at is None else asdict(self.falls_at)
            found["layers"] = [asdict(each) for each in self.layers]
        if self.codes:
            found["code_tensors"] = len(self.codes)
            found["share_of_codes_off_by_more_than_one"] = _rounded(self.lowest_codes(count), 6)
            found["codes_part_at"] = self.codes_part_at
        found["worst_feeds"] = [{"feed": each.feed, "row": each.row, "sqnr_db": each.sqnr_db} for each in self.worst]
        return found


def is_text(array: NDArray[Any]) -> bool:
    """True for strings."""
    return array.dtype.kind in "US" or (array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat))


def _rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}


def along(
    graph: Graph, first: Mapping[str, float], worst: Mapping[str, float], other: Graph | None = None
) -> list[SharedTensor]:
    """The shared tensors that depend on an input, in the order of the nodes.

    Args:
        graph: sorted, of one of the models.
        first: decibels by tensor, on the first feed.
        worst: on the worst one.
        other: the graph of the other model, where it has one.
    """
    writers = {tensor.name: str(node.op) for node in (other.nodes if other else ()) for tensor in node.outputs}
    before = _shared_before(graph, first.keys() | worst.keys())
    shown = _shown(before, worst, {str(tensor.name) for tensor in graph.outputs})
    found = []
    for node in graph.nodes:
        for name in (str(tensor.name) for tensor in node.outputs):
            if name in before:
                op = writers.get(name, "")
                reads = min((shown[each] for each in before[name] if each in shown), default=SAME_DB)
                figures = first.get(name), worst.get(name), shown.get(name)
                found.append(SharedTensor(name, str(node.name), str(node.op), op * (op != node.op), *figures, reads))
    return found


def _shared_before(graph: Graph, shared: Collection[str]) -> dict[str, frozenset[str]]:
    """For each shared tensor that depends on an input, those that it is computed from without another in between."""
    reach: dict[str, frozenset[str]] = {str(tensor.name): frozenset() for tensor in graph.inputs}
    found = {}
    for node in graph.nodes:
        read = [reach[name] for name in _read(node) if name in reach]
        if not read:
            continue  # constants are no layer
        before = frozenset[str]().union(*read)
        for name in (str(tensor.name) for tensor in node.outputs):
            reach[name] = before
            if name in shared:
                found[name], reach[name] = before, frozenset((name,))
    return found


def _read(node: Node) -> Iterator[str]:
    """Names of what a node reads, inside its bodies too."""
    yield from (str(tensor.name) for tensor in node.inputs)
    for body in subgraphs(node):
        for inner in body.nodes:
            yield from _read(inner)


def _shown(
    before: Mapping[str, frozenset[str]], worst: Mapping[str, float], outputs: Collection[str]
) -> dict[str, float]:
    """What the tensors behind each show of its error; all of it at an output."""
    behind: dict[str, float] = {}
    for name, sources in before.items():
        for source in sources:
            behind[source] = min(behind.get(source, SAME_DB), worst.get(name, -SAME_DB))
    return {
        name: worst[name] if name in outputs else max(worst[name], behind.get(name, -SAME_DB))
        for name in before if name in worst
    }  # fmt: skip


def part(layers: Sequence[SharedTensor]) -> Parting | None:
    """Where two models part; None where no tensor differs."""
    difference = _first(at for at, each in enumerate(layers) if each.worst_db is not None and each.worst_db < SAME_DB)
    if difference is None:
        return None
    below = _first(at for at, each in enumerate(layers) if each.shown_db is not None and each.shown_db < PARTED_DB)
    fall, steepest = max((each.fall_db, -at) for at, each in enumerate(layers))
    return Parting(difference, below, -steepest if fall >= LEAST_FALL_DB else None)


def _first(places: Iterable[int]) -> int | None:
    return next(iter(places), None)
