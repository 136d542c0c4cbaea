"""Gives 16 bits to the tensors whose 8-bit grids disturb the output most.

The noise that each grid alone causes at the output is measured (`qcompiler.calibration.sensitivity`). Noises of small,
independent errors add up, so widening the largest first lowers the total fastest. Two kinds of tensors:

- between GEMMs (residual streams, inputs of LayerNorm, Softmax, tables): 16 bits cost next to nothing;
- into a GEMM or convolution: their multiply-accumulates count against a budget,
and they are widened only where the accumulator provably
  stays inside int32: ``sum|w| * 2^15 + |bias| < 2^31`` for every output channel.

``auto`` widens until the 8-bit noise left is ``enough_db`` below the signal, or below `SHARE` of what the int8 weights
cause (more would not show); the second kind only until it is ``gemm_db`` below the signal and below `GEMM_NOISE` of the
weights' noise, and for at most ``most`` of all multiply-accumulates; ``off`` widens nothing; a number is the largest
number of wide tensors. Large stored tables (embeddings) stay 8 bit: 16 would double them. Functions of a wide tensor
may need tables of 65,536 entries (`activations.table_bytes`): where feeds are made up, which justify no larger file,
these take at most `MADE_UP_SHARE` of the bytes of all constants.

An ``.onnx`` file of an opset before 21 has no 16-bit codes, and is not moved there for a little precision
(``keep_opset``): the loud tensors between layers lose their pair instead and are float, which is exact and which other
runtimes compute no slower; inputs of layers stay narrow. Only where the noise left would be above `POOR_DB` does it get
16 bits, and the newer opset with them.

A wide grid is int16 with zero point 0 over the same range; a probability (output of a Softmax) takes 2^-15.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...activations.int16 import gemm_slots, slot_fits, wide_spec, widen
from ...activations.pairs import is_older, remove_pair
from ...activations.table_bytes import table_bytes
from ...calibration.sensitivity import Pair, activation_units, find_pairs, measure_noise
from ...feeds.sources import feeds_of
from ...graph.ir import Constant, Graph, Node, names_in, producer, read_spec
from ...graph.layers import Layer, find_layers
from ...graph.macs import layer_macs
from ...graph.operators import RECURRENT
from ...pass_base import Context, Pass
from ...records import WidthChoice

SHARE = 0.03
"""8-bit activation noise relative to weight noise below which wider grids do not show."""

FAINT = 0.2
"""Share of an equal part of the allowed noise below which a tensor stays narrow."""

QUIET_DB = 50.0
"""8-bit noise (dB below the signal) that is never worth a wide tensor, even where their number is given."""

GEMM_NOISE = 0.3
"""With ``auto`` an input of a GEMM stays narrow where the 8-bit noise is below this part of the weights' noise: many
CPUs multiply 16 bits at half the rate.
"""

POOR_DB = 20.0
"""8-bit noise left in a file of its own opset from which on it is worth a newer one."""

LOOSE_DB = 30.0
"""8-bit noise that may stay where the tensors between layers cost no width."""

PAIRED = ("Conv", "ConvTranspose", *RECURRENT)
"""Layers that other runtimes compute on integers only where a pair follows."""

TABLE_SHARE, TABLE_SIZE = 0.01, 4096
"""A stored constant may become 16 bits up to this share of all stored elements, or up to this many."""

WORK = 8e11
"""Multiply-accumulates that measuring may cost: some tens of seconds of a core. As far as these reach, more feeds than
`ChooseWidths.feeds` are measured on, for few miss what a grid does to the others: widths of PP-OCR rec measured on 2, 4
and 8 of its lines left 19.6, 22.2 and 21.8 dB on other lines.
"""

MOST_FEEDS = 8
"""Feeds to measure on where models are small."""

MADE_UP_SHARE = 0.02
"""Bytes of the tables of functions of wide tensors on made-up feeds, relative to the elements of all constants."""


@dataclass(frozen=True)
class Unit:
    """Pairs on one grid.

    Attributes:
        pairs: the pairs.
        slots: (layer, input position) of every GEMM operand that reads one of them.
        noise: output noise relative to the signal.
        layers: by id of the layers in ``slots``, their part of the graph's multiply-accumulates.
    """

    pairs: Sequence[Pair]
    slots: Sequence[tuple[Node, int]]
    noise: float
    layers: Mapping[int, float]


@dataclass(frozen=True)
class ChooseWidths(Pass):
    """16-bit grids where 8 bits hurt the output.

    Attributes:
        widen: ``auto``, ``off``, or the largest number of wide tensors.
        feeds: calibration feeds to measure on, at least; see `WORK`.
        enough_db: with ``auto``, 8-bit noise so far below the signal may stay.
        gemm_db: the same of inputs of GEMMs.
        most: with ``auto``, the largest part of all multiply-accumulates that may have a 16-bit operand.
        keep_opset: with ``auto``, a model that came with an opset before that of 16-bit codes keeps it if it can.
    """

    name: ClassVar[str] = "choose-widths"
    widen: str | int = "auto"
    feeds: int = 2
    enough_db: float = 35.0
    gemm_db: float = 25.0
    most: float = 0.75
    keep_opset: bool = False

    def __post_init__(self) -> None:
        if not (self.widen in ("auto", "off") or (isinstance(self.widen, int) and self.widen >= 0)):
            raise ValueError(f"widen must be auto, off or a number of tensors, not {self.widen!r}")
        if self.feeds < 1:
            raise ValueError(f"feeds must be at least 1, not {self.feeds}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Widen the chosen grids; True when there was one."""
        grids = (
            []
            if self.widen in ("off", 0)
            else [unit for unit in activation_units(graph, find_pairs(graph)) if _is_narrow(unit)]
        )
        if not grids:
            return False
        data = feeds_of(graph, ctx)
        macs = layer_macs(graph, next(iter(data)))
        total = max(sum(count for _, count in macs), 1)
        shares = {id(node): count / total for node, count in macs}
        noise = measure_noise(graph, grids, data, max(self.feeds, min(MOST_FEEDS, int(WORK / total / len(grids)))))
        units = [_unit(pairs, power, shares) for pairs, power in zip(grids, noise.units, strict=True)]
        functions = MADE_UP_SHARE * _stored(graph) if ctx.made_up else float("inf")
        loose = self._loose(units) if self.keep_opset and self.widen == "auto" and is_older(graph) else None
        wide = self._choose(graph, units, self._targets(noise.weights), functions) if loose is None else set()
        for pair in (pair for unit in loose or () for pair in unit.pairs):
            remove_pair(graph, pair)
        for unit in units:
            bits = 16 if id(unit) in wide else 32 if any(unit is other for other in loose or ()) else 8
            level = float(-10 * np.log10(max(unit.noise, 1e-30)))
            ctx.report.widths += [WidthChoice(pair.name, bits, level, bool(unit.slots)) for pair in unit.pairs]
        return bool(wide or loose)

    def _loose(self, units: Sequence[Unit]) -> list[Unit] | None:
        """The units that lose their pairs so that a file needs no 16 bits; None where the noise left is too loud."""
        left, allowed, loose = sum(unit.noise for unit in units), _noise(LOOSE_DB), []
        for unit in sorted(units, key=_urgency):
            if left > allowed and unit.noise * len(units) > FAINT * allowed and _may_be_float(unit):
                loose.append(unit)
                left -= unit.noise
        return loose if left <= _noise(POOR_DB) else None

    def _targets(self, weights: float) -> dict[bool, float]:
        """8-bit noise that may stay before a tensor between GEMMs (False), or one into a GEMM (True), becomes wide."""
        if self.widen != "auto":
            return dict.fromkeys((False, True), max(SHARE * weights, _noise(QUIET_DB)))
        cheap = max(SHARE * weights, _noise(self.enough_db))
        return {False: cheap, True: max(cheap, min(GEMM_NOISE * weights, _noise(self.gemm_db)))}

    def _choose(self, graph: Graph, units: Sequence[Unit], targets: dict[bool, float], functions: float) -> set[int]:
        """Widen units one by one until the noise left meets the target of their kind, with at most ``functions`` bytes
        of tables; returns their ids.
        """
        layers = {id(layer.node): layer for layer in find_layers(graph)}
        budget = self.most if self.widen == "auto" else 1.0
        tensors = len(units) if self.widen == "auto" else int(self.widen)
        left, wide, taken = sum(unit.noise for unit in units), set[int](), names_in(graph)
        table = max(TABLE_SIZE, TABLE_SHARE * _stored(graph))
        loud = [
            unit
            for unit in units
            if unit.noise * len(units) > FAINT * targets[bool(unit.slots)] and _table_size(unit) <= table
        ]
        read = set[int]()  # layers that have a wide operand
        for unit in sorted(loud, key=_urgency):
            work = sum(share for node, share in unit.layers.items() if node not in read)
            if (
                left <= targets[bool(unit.slots)]
                or tensors < len(unit.pairs)
                or work > budget
                or not _provable(unit, layers)
            ):
                continue
            tables = table_bytes(graph, unit.pairs)
            if tables > functions:
                continue
            widen(unit.pairs, unit.slots, layers, taken)
            wide.add(id(unit))
            read |= unit.layers.keys()
            functions -= tables
            left, budget, tensors = left - unit.noise, budget - work, tensors - 1
        return wide


def _may_be_float(unit: Unit) -> bool:
    """True for what no layer reads, what is not stored, and what no layer writes that asks for a pair."""
    sources = [pair.quantize.inputs[0] for pair in unit.pairs]
    return not unit.slots and all(
        not isinstance(tensor, Constant) and not _is_paired(producer(tensor)) for tensor in sources
    )


def _is_paired(node: Node | None) -> bool:
    """True for a layer of `PAIRED`, seen through its bias and activation."""
    while node is not None and node.op in ("Relu", "Clip", "Add"):
        node = producer(node.inputs[0])
    return node is not None and node.op in PAIRED


def _is_narrow(unit: Sequence[Pair]) -> bool:
    spec = read_spec(unit[0].quantize)
    return spec is not None and spec.dtype == np.uint8 and spec.axis is None


def _noise(decibels: float) -> float:
    """Noise-to-signal ratio at this many dB."""
    return float(10 ** (-decibels / 10))


def _unit(pairs: Sequence[Pair], noise: float, shares: Mapping[int, float]) -> Unit:
    slots = gemm_slots([pair.dequantize.outputs[0] for pair in pairs])
    return Unit(pairs, slots, noise, {id(node): shares.get(id(node), 0.0) for node, _ in slots})


def _stored(graph: Graph) -> int:
    """Elements of all constants."""
    constants = {id(tensor): tensor for node in graph.nodes for tensor in node.inputs if isinstance(tensor, Constant)}
    return sum(int(np.prod(tensor.shape)) for tensor in constants.values())


def _table_size(unit: Unit) -> int:
    """Elements of the largest stored constant on the grid (an embedding), which 16 bits would make twice as large."""
    sources = [pair.quantize.inputs[0] for pair in unit.pairs]
    return max((int(np.prod(tensor.shape)) for tensor in sources if isinstance(tensor, Constant)), default=0)


def _urgency(unit: Unit) -> tuple[bool, float]:
    """Tensors between GEMMs first, then by noise for the work they cost."""
    return bool(unit.slots), -unit.noise / max(sum(unit.layers.values()), 1e-6)


def _provable(unit: Unit, layers: dict[int, Layer]) -> bool:
    spec = read_spec(unit.pairs[0].quantize)
    if spec is None:
        return False
    scale = float(wide_spec(spec, producer(unit.pairs[0].quantize.inputs[0])).scale)
    return all(slot_fits(node, slot, layers, scale) for node, slot in unit.slots)
