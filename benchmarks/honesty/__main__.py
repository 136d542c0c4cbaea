"""How honest the report is: what it states of an output beside what fresh feeds say of the file.

    python -m benchmarks.honesty [KIND…] [--members 30] [--form onnx program] [--json FILE]

Members of each kind are drawn at random (the generators are those of the tests: `tests/helpers`); each is compiled with
its calibration feeds at the default effort. A figure is stated for each float output, and for each group of its columns
that differ in size. Beside it stands the same figure of the final graph on fresh feeds: those of the member's trial
where they are of the kind that calibration shows, else a third of the calibration feeds, which the compiler does not
get. Above `ENOUGH_DB` both count as that. With ``--json`` results are kept as they come, and a run that was broken off
goes on where it stopped.

The table says, for each kind and form, how many figures are within `NEAR_DB` of the fresh one, the most that one was
too high and too low, and how far they are off on average.
"""

from __future__ import annotations

import argparse
import functools
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qcompiler
from qcompiler.errors import QCompilerError
from qcompiler.graph.runner import Runner
from qcompiler.report.decibels import decibels
from tests.helpers import border_members, decade_members, decoder_members, exact_members, few_members, filled_members
from tests.helpers.exact_members import Feed, Member

ENOUGH_DB = 60.0
NEAR_DB, HIGH_DB = 2.0, 6.0
FORMS = ("onnx", "program")

Array = NDArray[Any]


@dataclass(frozen=True)
class Figure:
    """One figure of a member.

    Attributes:
        kind, seed, form: of the member.
        part: output and columns.
        stated: in the report, dB.
        fresh: on fresh feeds, dB.
        error: why there is none; else empty.
    """

    kind: str
    seed: int
    form: str
    part: str
    stated: float
    fresh: float
    error: str = ""

    @property
    def off(self) -> float:
        """dB by which the stated figure is too high."""
        return min(self.stated, ENOUGH_DB) - min(self.fresh, ENOUGH_DB)


def _one_of(makers: Sequence[Callable[[np.random.Generator], Member]], rng: np.random.Generator) -> Member:
    return makers[int(rng.integers(len(makers)))](rng)


def _ways(make: Callable[[np.random.Generator, str], Member], ways: Sequence[str]) -> list[Any]:
    return [functools.partial(_in_way, make, way) for way in ways]


def _in_way(make: Callable[[np.random.Generator, str], Member], way: str, rng: np.random.Generator) -> Member:
    return make(rng, way)


def _exact(*names: str) -> list[Any]:
    return [each for name in names for each in _ways(*exact_members.KINDS[name])]


ALIKE: dict[str, list[Any]] = {
    "logarithms": [decade_members.log_spectrum, decade_members.log_of_power, decade_members.by_size],
    "detectors": [border_members.detector],
    "columns": [border_members.columns],
    "scalers": [border_members.scaled],
    "uint8 images": [border_members.bytes_of_pictures],
    "one-row feeds": _ways(few_members.regressor, few_members.TAILS),
}
"""Kinds whose trials show what calibration shows."""

UNLIKE: dict[str, list[Any]] = {
    "masks": _exact("attention", "mean"),
    "decoders": [*_ways(decoder_members.decoder, decoder_members.WAYS), *_exact("rotary", "sinusoid")],
    "fills": [
        *_exact("actions", "pooling"), *_ways(filled_members.joined, filled_members.JOINED),
        *_ways(filled_members.padded, filled_members.PADDED),
    ],
}  # fmt: skip
"""Kinds whose trials are of another kind than the calibration: padded, longer, later."""

KINDS = ALIKE | UNLIKE
THIRD = 3


def feeds_of(kind: str, member: Member) -> tuple[list[Feed], list[Feed]]:
    """Calibration feeds, and fresh ones."""
    if kind in ALIKE:
        return member.calibration, member.trial
    fresh = member.calibration[1::THIRD]
    return [feed for index, feed in enumerate(member.calibration) if index % THIRD != 1], fresh


def measured(kind: str, seed: int, form: str) -> list[Figure]:
    """The figures of one member."""
    member = _one_of(KINDS[kind], np.random.default_rng([seed, zlib.crc32(kind.encode())]))
    calibration, fresh = feeds_of(kind, member)
    try:
        compiled = qcompiler.compile(member.model, data=calibration, for_onnx=form == "onnx")
    except QCompilerError as error:
        return [Figure(kind, seed, form, "", 0.0, 0.0, str(error)[:200])]
    real, got = Runner(member.model), Runner(compiled.graph)
    answers = [(real.run(feed), got.run(feed)) for feed in fresh]
    found = []
    for each in compiled.report.outputs:
        pairs = [(part_of(a[each.output], each.columns), part_of(b[each.output], each.columns)) for a, b in answers]
        if all(part is not None for pair in pairs for part in pair):
            part = f"{each.output}{each.columns}"
            found.append(Figure(kind, seed, form, part, each.sqnr_db, ratio(pairs)))
    return found


def part_of(values: Array, columns: str) -> Array | None:
    """The columns ``[:, 4:14]`` or ``[:, 0,3]`` of an output; None for those that are not written out."""
    if not columns:
        return values
    *before, last = columns.strip("[]").split(", ")
    if "…" in last:
        return None
    first, _, end = last.partition(":")
    places = list(range(int(first), int(end))) if end else [int(each) for each in last.split(",")]
    return np.take(values, places, axis=len(before))


def ratio(pairs: Sequence[tuple[Any, Any]]) -> float:
    """dB over all feeds, of what is finite in the float model."""
    signal = noise = 0.0
    for real, got in pairs:
        exact, finite = np.asarray(real, np.float64), np.isfinite(real)
        signal += float(np.square(exact[finite]).sum())
        noise += float(np.square(exact[finite] - np.asarray(got, np.float64)[finite]).sum())
    return decibels(signal, noise)


def table(figures: Sequence[Figure]) -> str:
    """Markdown, a row for each kind and form."""
    rows = [
        "| kind | form | members | figures | within 2 dB | most too high | most too low | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, form in dict.fromkeys((each.kind, each.form) for each in figures):
        mine = [each for each in figures if (each.kind, each.form) == (kind, form) and not each.error]
        off = np.array([each.off for each in mine])
        members = len({each.seed for each in mine})
        near = f"{100 * float(np.mean(np.abs(off) <= NEAR_DB)):.0f} %" if mine else "-"
        high, low = (max(float(off.max()), 0.0), max(-float(off.min()), 0.0)) if mine else (0.0, 0.0)
        ends = f"{high:.1f} dB | {low:.1f} dB | {off.mean():+.1f} dB" if mine else "- | - | -"
        rows.append(f"| {kind} | {form} | {members} | {len(mine)} | {near} | {ends} |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (all)")
    parser.add_argument("--members", type=int, default=30, help="members of each kind (30)")
    parser.add_argument("--form", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep results here, and do not measure again these")
    chosen = parser.parse_args()
    unknown = [kind for kind in chosen.kinds if kind not in KINDS]
    if unknown:
        parser.error(f"KIND {unknown[0]}: is none of {', '.join(KINDS)}")
    kept = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.exists() else []
    figures = [Figure(**each) for each in kept]
    known = {(each.kind, each.seed, each.form) for each in figures}
    wanted = [
        (kind, seed, form) for kind in chosen.kinds or KINDS for seed in range(chosen.members) for form in chosen.form
    ]
    for key in (key for key in wanted if key not in known):
        figures += measured(*key)
        if chosen.json:
            chosen.json.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n")
    asked = [each for each in figures if (each.kind, each.seed, each.form) in set(wanted)]
    print(table(asked))
    for each in sorted((each for each in asked if abs(each.off) > NEAR_DB), key=lambda each: -abs(each.off))[:20]:
        member = f"{each.kind} {each.seed} {each.form} {each.part}"
        print(f"{member}: stated {each.stated:.1f} dB, fresh {each.fresh:.1f} dB")
    for each in (each for each in asked if each.error):
        print(f"{each.kind} {each.seed} {each.form}: {each.error}")


if __name__ == "__main__":
    main()
