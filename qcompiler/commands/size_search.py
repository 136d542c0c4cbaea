"""The search for the smallest files that keep a measure of the user's own (`qcompile --accuracy`).

Ways to store the weights are ordered by their bytes. Weights of 8 bits are tried first: what they lose is not for want
of bytes. Below them the order is halved by each trial, since fewer bytes seldom score better. A trial compiles and
writes all files that were asked for; of those that keep the measure the smallest stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from qcompiler.errors import OptionError, QCompilerError, UnsupportedError
from qcompiler.options import CompileRequest, Options
from qcompiler.records import SizeSearch, SizeTrial
from qcompiler.scores.score_drop import ScoreDrop

__all__ = ["WAYS", "Found", "Scored", "Way", "check_search", "smallest", "ways"]

DEFAULT_DROP = ScoreDrop(1.0, is_share=True)
WHEN_8_BITS_FAIL = 2
"""Further ways that are tried where weights of 8 bits do not keep the measure: few samples make it a matter of luck."""

Files = TypeVar("Files")


@dataclass(frozen=True)
class Way:
    """One way to store the weights: a grid for all of them, or by layer within a share of the bytes at 8 bits."""

    weights: str
    share: float | None = None

    def of(self, options: Options) -> Options:
        """The options with these weights."""
        return replace(options, weights=self.weights, size_budget=self.share)

    def __str__(self) -> str:
        budget = "" if self.share is None else f" --size-budget {self.share:.0%}"
        return f"--weights {self.weights}{budget}"


WAYS = (
    Way("kmeans2"), Way("auto", 0.3), Way("kmeans3"), Way("auto", 0.4), Way("int4"), Way("auto", 0.5),
    Way("auto", 0.6), Way("auto", 0.7), Way("auto", 0.8), Way("int8"),
)  # fmt: skip
"""By the bytes that they take, ascending."""


@dataclass(frozen=True)
class Scored(Generic[Files]):
    """What a trial made: its files, their bytes, and the lowest score among them."""

    files: Files
    size: int
    score: float


@dataclass(frozen=True)
class Found(Generic[Files]):
    """How the search ended.

    Attributes:
        way: that stands.
        files: what its trial made.
        search: for the report.
    """

    way: Way
    files: Files
    search: SizeSearch


def check_search(request: CompileRequest) -> None:
    """Refuse options that a search contradicts. Raises OptionError."""
    if request.accuracy is None:
        if request.max_drop is not None:
            raise OptionError(f"--max-drop {request.max_drop}: is what --accuracy may lose; give that, too")
        return
    options, what = request.options, f"--accuracy {request.accuracy}"
    if options.passes is not None:
        raise OptionError(f"{what}: --passes says what is done; leave out one of the two")
    if options.weights != "int8":
        raise OptionError(f"{what}: chooses the grid of the weights; leave out --weights {options.weights}")
    if request.model.suffix == ".qprog":
        raise OptionError(f"{what}: the weights of a .qprog stay as they are; give the float model")


def ways(options: Options) -> tuple[Way, ...]:
    """The ways that these options admit, by their bytes, ascending."""
    uniform = options.level == 0 or any(rule.grid for rule in options.rules)
    return tuple(way for way in WAYS if way.share is None) if uniform else WAYS


class _Trials(Generic[Files]):
    """Makes trials, keeps them, and of their files those that stand so far."""

    def __init__(self, attempt: Callable[[Way], Scored[Files]], least: float, tell: Callable[[str], None]) -> None:
        self._attempt, self._least, self._tell = attempt, least, tell
        self.made: list[tuple[Way, SizeTrial]] = []
        self.best: tuple[Way, Scored[Files]] | None = None

    def keeps(self, way: Way) -> bool:
        """Make a trial. An error of the first one is that of the model; later ones may ask for too few bytes."""
        try:
            scored = self._attempt(way)
        except (OptionError, UnsupportedError) as error:
            if not self.made:
                raise
            self._add(way, SizeTrial(str(way), None, 0, False, reason=str(error)))
            return False
        keeps = scored.score >= self._least
        if keeps and (self.best is None or scored.size < self.best[1].size):
            self.best = way, scored
        self._add(way, SizeTrial(str(way), scored.score, scored.size, keeps))
        return keeps

    def _add(self, way: Way, trial: SizeTrial) -> None:
        self.made.append((way, trial))
        self._tell(f"trial {len(self.made)}: {_line(trial, self._least)}")


def _line(trial: SizeTrial, least: float) -> str:
    """What people are told of a trial."""
    if trial.score is None:
        return f"{trial.options}: not possible: {trial.reason}"
    verdict = "keeps" if trial.keeps else "loses"
    return f"{trial.options}: {trial.score:.6g}, at least {least:.6g}: {verdict} it, {trial.size / 1000:,.1f} kB"


def smallest(
    request: CompileRequest, score: float, attempt: Callable[[Way], Scored[Files]], tell: Callable[[str], None]
) -> Found[Files]:
    """The smallest files that keep the measure.

    Args:
        request: what is asked for, with ``accuracy``.
        score: of the float model.
        attempt: compiles and scores.
        tell: gets a line for each trial.

    Raises:
        QCompilerError: no trial keeps the measure; the message names the nearest. Or one of ``attempt``.
    """
    drop = request.max_drop or DEFAULT_DROP
    trials, order = _Trials(attempt, drop.least(score), tell), ways(request.options)
    low, high = -1, len(order) - 1  # what is at ``low`` does not keep the measure, what is at ``high`` does
    end = max(high - WHEN_8_BITS_FAIL, 0)
    while not trials.keeps(order[high]):
        if high == end:
            raise QCompilerError(_nothing_keeps(request, score, drop, [trial for _, trial in trials.made]))
        high -= 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if trials.keeps(order[middle]) else (middle, high)
    assert trials.best is not None, "the first loop ends with a trial that keeps the measure"
    way, scored = trials.best
    made = [replace(trial, chosen=one == way) for one, trial in trials.made]
    return Found(way, scored.files, SizeSearch(str(request.accuracy), str(drop), score, drop.least(score), made))


def _nothing_keeps(request: CompileRequest, score: float, drop: ScoreDrop, made: list[SizeTrial]) -> str:
    nearest = max((trial for trial in made if trial.score is not None), key=lambda trial: trial.score or 0.0)
    widths = "" if request.options.activations == "int16" else ", or activations of 16 bits (--activations int16)"
    effort = "" if request.options.level == 3 else ", more effort (-O 3)"
    return (
        f"--accuracy {request.accuracy}: none of {len(made)} trials keeps {drop.least(score):.6g} ({score:.6g} in "
        f"float, --max-drop {drop}); the nearest is {nearest.options} with {nearest.score:.6g}. Nothing was written; "
        f"allow a larger --max-drop{effort}{widths}"
    )
