"""The figures of an output on feeds that nothing was fitted to, with their spread.

A figure is the energy of the float answers over that of the error. The energy of the error is that of the feeds held
out. Where these hold few numbers it is uncertain by itself; then the feeds that were fitted to count, too, as long as
those held out err by no more than they do but for chance: by `CHANCE` standard errors of a mean over as many fitted
feeds as there are held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed
from qcompiler.records import OutputFigure
from qcompiler.report.column_groups import Columns, find_columns
from qcompiler.report.decibels import decibels

__all__ = ["FEW_NUMBERS", "Judge"]

FEW_NUMBERS = 4096
"""Output elements from which held-out feeds alone give the figure."""

CHANCE = 2.0

Array = NDArray[Any]
Values = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Judge:
    """Feeds with the float model's answers.

    Attributes:
        held: feeds held out, with the answers; those that ranges were taken from where there is only one feed.
        fitted: some of the others.
        bounded: see `column_grids.bounded_columns`.
        seen: ``held`` was fitted to, for there are no others.
    """

    held: Sequence[tuple[Feed, Values]]
    fitted: Sequence[tuple[Feed, Values]]
    bounded: Mapping[str, Mapping[int, Sequence[range]]]
    seen: bool = False

    def on(self, run: Callable[[Feed], Values]) -> Judge:
        """The same feeds with the answers of another model."""
        held, fitted = ([(feed, run(feed)) for feed, _ in feeds] for feeds in (self.held, self.fitted))
        return replace(self, held=held, fitted=fitted)

    def figures(self, run: Callable[[Feed], Values]) -> list[OutputFigure]:
        """A figure for each float output, and for each group of its columns."""
        got = [run(feed) for feed, _ in self.held]
        first = self.held[0][1] if self.held else {}
        names = [name for name, value in first.items() if value.dtype.kind == "f"]
        few = [name for name in names if sum(values[name].size for _, values in self.held) < FEW_NUMBERS]
        others = [run(feed) for feed, _ in self.fitted] if few else []
        found = []
        for name in names:
            pairs = [(values[name], answer[name]) for (_, values), answer in zip(self.held, got, strict=True)]
            fitted = [(values[name], answer[name]) for (_, values), answer in zip(self.fitted, others, strict=False)]
            groups = (None, *find_columns([real for real, _ in (*pairs, *fitted)], self.bounded.get(name)))
            found += [_figure(name, columns, pairs, fitted if name in few else []) for columns in groups]
        return found


def _figure(
    name: str, columns: Columns | None, held: Sequence[tuple[Array, Array]], fitted: Sequence[tuple[Array, Array]]
) -> OutputFigure:
    here, there = ([_energies(*pair, columns) for pair in pairs] for pairs in (held, fitted))
    every = np.array([*here, *there]).reshape(-1, 3)
    each = [decibels(signal, noise) for signal, noise, _ in here]
    signal = float(every[:, 0].sum() / max(every[:, 2].sum(), 1))
    return OutputFigure(
        name,
        "" if columns is None else str(columns),
        decibels(signal, _noise(here, there)),
        min(each),
        max(each),
        len(here),
    )


def _energies(real: Array, got: Array, columns: Columns | None) -> tuple[float, float, int]:
    """Energy of the answers and of the error, and of how many numbers; infinite error where shapes differ."""
    if real.shape != got.shape:
        return 0.0, np.inf, 1
    exact, other = (np.asarray(part if columns is None else columns.of(part), np.float64) for part in (real, got))
    finite = np.isfinite(exact)
    exact, other = np.where(finite, exact, 0.0), np.where(finite, other, 0.0)
    return float(np.square(exact).sum()), float(np.square(exact - other).sum()), exact.size


def _noise(held: Sequence[tuple[float, float, int]], fitted: Sequence[tuple[float, float, int]]) -> float:
    """Mean squared error of a number."""
    alone = _mean(held)
    if len(fitted) < 2:
        return alone
    spread = np.std([noise / max(count, 1) for _, noise, count in fitted], ddof=1) / np.sqrt(len(held))
    return _mean([*held, *fitted]) if alone <= _mean(fitted) + CHANCE * spread else alone


def _mean(energies: Sequence[tuple[float, float, int]]) -> float:
    return sum(noise for _, noise, _ in energies) / max(sum(count for _, _, count in energies), 1)
