"""Writes the page of a comparison: two models side by side, where they part, and the worst feeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qcompiler.page.provenance import Origin
from qcompiler.page.samples import Sample, sample
from qcompiler.page.templates import BAD_DB, FAIR_DB, written
from qcompiler.report.comparison import CLEAN_DB, PARTED_DB, Comparison, WorstFeed
from qcompiler.report.decibels import SAME_DB
from qcompiler.report.terminal import decibels

__all__ = ["ModelFacts", "comparison_page"]

MOST_TENSORS, MOST_IMAGES = 24, 2
"""Inputs of a feed that are shown, and how many of these may be pictures; as many outputs."""


@dataclass(frozen=True)
class ModelFacts:
    """What is said of one of the models.

    Attributes:
        name: of its file.
        facts: by what they are about, in their order.
    """

    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class _Shown:
    """A worst feed as it is shown: its inputs, and its outputs of both models."""

    found: WorstFeed
    inputs: list[Sample]
    outputs: list[Sample]
    left_out: int


def comparison_page(found: Comparison, first: ModelFacts, second: ModelFacts, origin: Origin) -> str:
    """The page of one comparison; ``first`` is the reference."""
    shown = [_shown(each) for each in found.worst]
    waves = [each.wave for feed in shown for each in (*feed.inputs, *feed.outputs) if each.wave]
    return written(
        "diff.html",
        found=found,
        first=first,
        second=second,
        facts=list(dict.fromkeys((*first.facts, *second.facts))),
        origin=origin,
        verdict=_verdict(found),
        places=_places(found),
        worst=shown,
        clean=CLEAN_DB,
        parted=PARTED_DB,
        data={"layers": _line(found), "waves": waves, "names": [first.name, second.name]},
    )


def _shown(feed: WorstFeed) -> _Shown:
    outputs = sorted(feed.first, key=lambda name: feed.sqnr_db.get(name, SAME_DB))
    inputs, shown = [*feed.given][:MOST_TENSORS], outputs[:MOST_TENSORS]
    left_out = len(feed.given) - len(inputs) + len(outputs) - len(shown)
    return _Shown(
        feed,
        [sample(name, [feed.given[name]], pictures=at < MOST_IMAGES) for at, name in enumerate(inputs)],
        [
            sample(name, [feed.first[name], feed.second[name]], pictures=at < MOST_IMAGES)
            for at, name in enumerate(shown)
        ],
        left_out,
    )


def _verdict(found: Comparison) -> tuple[str, str]:
    """How it is to be shown, and one sentence."""
    named = {f"{each.output}{each.columns}": each.sqnr_db for each in found.outputs}
    figures = {name: value for name, value in named.items() if value < SAME_DB}
    unequal = [each for each in found.equal if each.equal < each.elements]
    if not figures and unequal:
        worst = min(unequal, key=lambda each: each.equal / each.elements)
        return "fair", f"Of '{worst.output}', {worst.equal} of {worst.elements} elements are equal."
    if not figures and found.uncompared:
        return "fair", f"No output that was compared differs; {', '.join(found.uncompared)} could not be."
    if not figures:
        return "good", "No output differs."
    name = min(figures, key=figures.__getitem__)
    tone = "bad" if figures[name] < BAD_DB else "fair" if figures[name] < FAIR_DB else "good"
    word = {"bad": "Far apart", "fair": "Apart", "good": "Close"}[tone]
    at, parting = found.parts_at, found.parting
    where = "" if at is None or parting is None else f" They {parting.meaning} {at.tensor}."
    return tone, f"{word}. The worst output is {name}: {decibels(figures[name])} above the difference.{where}"


def _places(found: Comparison) -> list[tuple[str, Any]]:
    """Where they part, by what is meant by that; None: nowhere."""
    if found.parting is None:
        return []
    at = found.parting
    rows = (
        ("first that differs at all", at.difference),
        (f"first below {PARTED_DB:.0f} dB, an error of 10 %", at.below),
        (f"steepest fall below {CLEAN_DB:.0f} dB from what is read to what is written", at.fall),
    )
    return [(what, None if place is None else found.layers[place]) for what, place in rows]


def _line(found: Comparison) -> dict[str, Any]:
    """What the plot along the layers needs."""
    return {
        "names": [each.tensor for each in found.layers],
        "first": [each.sqnr_db for each in found.layers],
        "worst": [each.worst_db for each in found.layers],
        "at": None if found.parting is None else found.parting.place,
    }
