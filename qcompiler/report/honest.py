"""The figures of an output on feeds that nothing was fitted to, with their spread.

A figure is the energy of the float answers over that of the error. The energy of the error is that of the feeds held
out. Where these hold few numbers it is uncertain by itself; then the feeds that were fitted to count, too: those of
each fold with the ranges that the others give (k-fold cross-validation; Stone 1974). The feed that reaches farthest of
all is beyond the ranges of all others once, and its error alone says little of how often such feeds come: it counts as
at most `FARTHEST` times the second largest. Weights and biases were fitted to the feeds of all folds nevertheless, so
these err less than feeds held out, which are few: the mean error of either counts half. Where there are too few feeds
for folds, those that were fitted to count as they are, as long as those held out err by no more than they do but for
chance: by `CHANCE` standard errors of a mean over as many fitted feeds as there are held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed
from qcompiler.records import OutputFigure
from qcompiler.report.column_groups import Columns, find_columns
from qcompiler.report.decibels import decibels

__all__ = ["FEW_NUMBERS", "Judge", "Values"]

FEW_NUMBERS = 4096
"""Output elements from which held-out feeds alone give the figure."""

CHANCE, FARTHEST = 2.0, 3.0

Array = NDArray[Any]
Values = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Judge:
    """Feeds with the float model's answers.

    Attributes:
        held: feeds held out, with the answers; those that ranges were taken from where there is only one feed.
        fitted: some of the others.
        folds: the fold of each of ``fitted``; empty: they are judged as the held-out ones are.
        bounded: see `column_grids.bounded_columns`.
        seen: ``held`` was fitted to, for there are no others.
    """

    held: Sequence[tuple[Feed, Values]]
    fitted: Sequence[tuple[Feed, Values]]
    bounded: Mapping[str, Mapping[int, Sequence[range]]]
    seen: bool = False
    folds: Sequence[int] = ()

    def on(self, run: Callable[[Feed], Values]) -> Judge:
        """The same feeds with the answers of another model."""
        held, fitted = ([(feed, run(feed)) for feed, _ in feeds] for feeds in (self.held, self.fitted))
        return replace(self, held=held, fitted=fitted)

    def figures(
        self, run: Callable[[Feed], Values], of_fold: Callable[[int], Callable[[Feed], Values]] | None = None
    ) -> list[OutputFigure]:
        """A figure for each float output, and for each group of its columns.

        ``of_fold``: what runs a feed with the ranges that the feeds of all other folds give.
        """
        got = [run(feed) for feed, _ in self.held]
        first = self.held[0][1] if self.held else {}
        names = [name for name, value in first.items() if value.dtype.kind == "f"]
        few = [name for name in names if sum(values[name].size for _, values in self.held) < FEW_NUMBERS]
        folded = of_fold is not None and bool(self.folds)
        others = self._others(run, of_fold) if few else []
        found = []
        for name in names:
            pairs = [(values[name], answer[name]) for (_, values), answer in zip(self.held, got, strict=True)]
            fitted = [(values[name], answer[name]) for (_, values), answer in zip(self.fitted, others, strict=False)]
            pairs, fitted = _of_one_shape(pairs), _of_one_shape(fitted)
            groups = (None, *find_columns([real for real, _ in (*pairs, *fitted)], self.bounded.get(name)))
            found += [_figure(name, columns, pairs, fitted if name in few else [], folded=folded) for columns in groups]
        return found

    def _others(
        self, run: Callable[[Feed], Values], of_fold: Callable[[int], Callable[[Feed], Values]] | None
    ) -> list[Values]:
        """Answers to the fitted feeds; one model of a fold exists at a time."""
        if of_fold is None or not self.folds:
            return [run(feed) for feed, _ in self.fitted]
        found: list[Values] = []
        for fold, places in groupby(range(len(self.fitted)), key=self.folds.__getitem__):
            run_left_out = of_fold(fold)
            found += [run_left_out(self.fitted[place][0]) for place in places]
        return found


def _figure(
    name: str, columns: Columns | None, held: Sequence[tuple[Array, Array]], fitted: Sequence[tuple[Array, Array]],
    *, folded: bool,
) -> OutputFigure:  # fmt: skip
    here, there = ([_energies(*pair, columns) for pair in pairs] for pairs in (held, fitted))
    every = np.array([*here, *there]).reshape(-1, 3)
    each = [decibels(signal, noise) for signal, noise, _ in here]
    signal = float(every[:, 0].sum() / max(every[:, 2].sum(), 1))
    return OutputFigure(
        name,
        "" if columns is None else str(columns),
        decibels(signal, _pooled(here, there) if folded and there else _noise(here, there)),
        min(each),
        max(each),
        len(here),
    )


def _of_one_shape(pairs: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    """Those whose numbers can be compared: how many a detector finds may differ; all where none can be."""
    return [pair for pair in pairs if pair[0].shape == pair[1].shape] or pairs


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
    noises = [noise / max(count, 1) for _, noise, count in fitted]
    if not np.isfinite([alone, *noises]).all():
        return _mean([*held, *fitted])
    spread = np.std(noises, ddof=1) / np.sqrt(len(held))
    return _mean([*held, *fitted]) if alone <= _mean(fitted) + CHANCE * spread else alone


def _pooled(held: Sequence[tuple[float, float, int]], fitted: Sequence[tuple[float, float, int]]) -> float:
    """The same over feeds none of which the ranges were taken from: those held out count as much as all others."""
    apart = sorted((noise / max(count, 1) for _, noise, count in (*held, *fitted)), reverse=True)
    most = FARTHEST * apart[1] if np.isfinite(apart[0]) else np.inf
    return sum(
        _mean([(signal, min(noise, most * max(count, 1)), count) for signal, noise, count in part])
        for part in (held, fitted)
    ) / 2  # fmt: skip


def _mean(energies: Sequence[tuple[float, float, int]]) -> float:
    return sum(noise for _, noise, _ in energies) / max(sum(count for _, _, count in energies), 1)
