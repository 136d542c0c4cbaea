"""The report as data: plain records, JSON as they stand. `terminal.py` shows them to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

SHOWN = 10
"""Lines of a table in a notebook."""


@dataclass(frozen=True)
class Declined:
    """A place that a pass could have rewritten but did not."""

    pass_name: str
    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class FloatNode:
    """A node that stays float.

    Attributes:
        share: its part of all multiply-accumulates, None where not measured.
        is_island: it has an integer form, but stays among nodes that have none.
    """

    node: str
    op: str
    reason: str
    share: float | None = None
    is_island: bool = False


@dataclass(frozen=True)
class PassTiming:
    """One run of one pass."""

    name: str
    seconds: float
    changed: bool


@dataclass(frozen=True)
class WidthChoice:
    """A tensor's width in bits (32: float) with the output noise its 8-bit form alone causes (dB below the signal)."""

    tensor: str
    bits: int
    sqnr_db: float
    feeds_gemm: bool


@dataclass(frozen=True)
class Reconstruction:
    """A layer whose weights a solver put on a grid. Losses are the error of its outputs relative to their energy.

    Attributes:
        node: name of the layer's node.
        grid: name of its grid.
        solver: what chose the weights: the solver asked for, or ``nearest`` where its choice was no better on feeds it
            had not seen.
        fit_before, fit_after: loss of plain rounding and of the solver on the feeds it was fitted to.
        held_before, held_after: the same on feeds held out.
        kept: the solver's choice stands.
    """

    node: str
    grid: str
    solver: str
    fit_before: float
    fit_after: float
    held_before: float
    held_after: float
    kept: bool


@dataclass(frozen=True)
class GridChoice:
    """Grid of a layer's weights, with the relative error of its outputs on each grid that was tried."""

    node: str
    grid: str
    bits: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Tuning:
    """One run of a network-wide tuning pass: relative output error on held-out feeds, before and after.

    Attributes:
        pass_name: the pass.
        before, after: the error.
        kept: it came down, and the result stands.
    """

    pass_name: str
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class LayerBits:
    """The grid that the bit allocation chose for a layer.

    Attributes:
        node: name of the layer's node.
        grid: name of the grid.
        size: bytes of its weight in a file.
        loss: error of the outputs, relative to their energy, when the weight of this layer alone lies on that grid.
    """

    node: str
    grid: str
    size: int
    loss: float


@dataclass(frozen=True)
class Candidate:
    """An allocation that was evaluated: relative output error, predicted and measured on held-out feeds."""

    origin: str
    size: int
    predicted: float
    measured: float


@dataclass(frozen=True)
class LayerTime:
    """How long the product of a layer takes on the machine where it was measured.

    Attributes:
        node: name of the layer's node.
        nanoseconds: by kind of the weight (`qcompiler.weights.layer_time.KINDS`): codes of ``"2"`` and ``"4"`` bits,
            small levels ``"int2"`` to ``"int6"``, and ``"8"`` (also what is in blocks).
    """

    node: str
    nanoseconds: dict[str, int]


@dataclass(frozen=True)
class AllocatedTime:
    """Nanoseconds of the layers' products on the machine, added up.

    Attributes:
        budget: that they may take.
        full: with weights of 8 bits.
        chosen: with the grids that were chosen.
        layers: what was measured; the next compilation may be given it back.
    """

    budget: int
    full: int
    chosen: int
    layers: list[LayerTime]


@dataclass(frozen=True)
class Allocation:
    """What the bit allocation found.

    Attributes:
        budget: bytes that the weights may take; None: no size was asked for.
        full: bytes of the same weights at 8 bits.
        size: bytes of what was chosen.
        layers: the choice.
        candidates: what was really evaluated; the chosen one is the first.
        front: predicted trade of bytes against loss, sizes ascending, however long it takes.
        time: of the layers' products; None where no time was asked for.
        loss: what the losses are: ``mse`` or ``kl``.
    """

    budget: int | None
    full: int
    size: int
    layers: list[LayerBits]
    candidates: list[Candidate]
    front: list[tuple[int, float]]
    time: AllocatedTime | None = None
    loss: str = "mse"


@dataclass(frozen=True)
class RegionChange:
    """Tensors between layers whose channels were transformed together, the float function unchanged.

    Attributes:
        pass_name: the pass.
        tensor: name of the first of them, before.
        kind: ``diagonal``, ``shift`` or ``matrix``.
        channels: number of independent channels.
        noise_before, noise_after: noise of the outputs that the region's grids alone cause, relative to their energy,
            on feeds held out; None where it was not measured.
        ratio_before, ratio_after: largest over smallest range of a channel's weights (``equalize-channels``) or values.
        condition: condition number of a matrix.
    """

    pass_name: str
    tensor: str
    kind: str
    channels: int
    noise_before: float | None = None
    noise_after: float | None = None
    ratio_before: float | None = None
    ratio_after: float | None = None
    condition: float | None = None


@dataclass(frozen=True)
class Replaced:
    """A block for which a cheaper one was sought. Errors are squared and relative to the variance of its outputs.

    Attributes:
        pass_name: the pass.
        region: names of the block's first and last layer.
        form: what was found, such as ``96 neurons by pursuit + skip``.
        kept: it stands in the block's place.
        reason: why not.
        macs_before, macs_after: multiply-accumulates of one row (a token, a pixel).
        bytes_before, bytes_after: of the weights at 8 bits and the biases.
        error: of the block's outputs against the float model's, on feeds held out; None where it was not tried.
        bound: what the error is below with some certainty (two standard errors).
        loss_before, loss_after: error of the network's outputs relative to their energy, on feeds held out.
        milliseconds_before, milliseconds_after: of the block alone at 8 bits on the machine; None where that was not
            measured.
    """

    pass_name: str
    region: str
    form: str
    kept: bool
    reason: str
    macs_before: int
    macs_after: int
    bytes_before: int
    bytes_after: int
    error: float | None
    bound: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    milliseconds_before: float | None = None
    milliseconds_after: float | None = None


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the float one, in dB."""

    node: str
    op: str
    sqnr_db: float


@dataclass(frozen=True)
class OutputFigure:
    """How far an output, or columns of it, is from the float model's on feeds that nothing was fitted to, in dB.

    Attributes:
        output: its name.
        columns: which of its columns, as NumPy writes them; empty: all.
        sqnr_db: over all feeds together.
        lowest_db, highest_db: of a single feed.
        feeds: how many feeds it was measured on.
    """

    output: str
    columns: str
    sqnr_db: float
    lowest_db: float
    highest_db: float
    feeds: int


@dataclass(frozen=True)
class Trial:
    """What became of an input unlike those of the calibration, beside the float model.

    Attributes:
        what: how the input differs.
        output: the output that suffered most, with its columns.
        sqnr_db: of that.
        stated_db: of the same on held-out feeds.
        cure: what was tried and brought it back; empty where nothing is needed, or nothing did.
    """

    what: str
    output: str
    sqnr_db: float
    stated_db: float
    cure: str = ""


@dataclass(frozen=True)
class SizeTrial:
    """What one way to store the weights gave in the user's own measure.

    Attributes:
        options: the options that were tried, as typed.
        score: the lowest of all files that were asked for; None where these options cannot compile the model.
        size: bytes of all files together.
        keeps: the score is not below the least one.
        chosen: it is what was written.
        reason: why there is no score.
    """

    options: str
    score: float | None
    size: int
    keeps: bool
    chosen: bool = False
    reason: str = ""


@dataclass(frozen=True)
class SizeSearch:
    """The search for the smallest file that keeps the user's own measure, higher being better.

    Attributes:
        function: that measures, as typed.
        drop: what might be lost, as typed.
        score: of the float model.
        least: that a result had to reach.
        trials: in the order in which they were made.
    """

    function: str
    drop: str
    score: float
    least: float
    trials: list[SizeTrial]


@dataclass
class Report:
    """Everything one compilation wants to tell. All figures are measured, None where they were not.

    Attributes:
        program: what the ``.qprog`` is: ``integer`` from input to output, or ``mixed``; None where none was asked for.
        outside: nodes of a mixed program that run on onnxruntime.
    """

    program: str | None = None
    outside: list[FloatNode] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    left_float: list[FloatNode] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timings: list[PassTiming] = field(default_factory=list)
    widths: list[WidthChoice] = field(default_factory=list)
    layers: list[LayerError] = field(default_factory=list)
    reconstructions: list[Reconstruction] = field(default_factory=list)
    regions: list[RegionChange] = field(default_factory=list)
    tunings: list[Tuning] = field(default_factory=list)
    replacements: list[Replaced] = field(default_factory=list)
    allocation: Allocation | None = None
    grids: list[GridChoice] = field(default_factory=list)
    search: SizeSearch | None = None
    output_sqnr_db: dict[str, float] = field(default_factory=dict)
    outputs: list[OutputFigure] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    figures: dict[str, float | int | str | None] = field(default_factory=dict)
    file_bytes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, ready for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """What notebooks show: warnings, outputs, worst layers and what stayed float."""
        worst = sorted(self.layers, key=lambda each: each.sqnr_db)[:SHOWN]
        tables = {
            "outputs, single feeds": [
                (f"{each.output}{each.columns}", _db(each.sqnr_db), f"{_db(each.lowest_db)} to {_db(each.highest_db)}")
                for each in self.outputs
            ],
            "worst layers": [(each.node, each.op, _db(each.sqnr_db)) for each in worst],
            "stays float": [(each.node, each.op, each.reason) for each in self.left_float[:SHOWN]],
        }
        told = "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings)
        return told + "".join(_table(title, rows) for title, rows in tables.items() if rows)


def _db(value: float) -> str:
    return f"{value:.1f} dB"


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    return f"<table><caption>{title}</caption>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
