"""What all pages are written with: templates, styles and scripts that lie in `assets/`, and how figures are written."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from qcompiler.records import OutputFigure
from qcompiler.report.decibels import SAME_DB
from qcompiler.report.terminal import size

__all__ = ["BAD_DB", "FAIR_DB", "written"]

BAD_DB, FAIR_DB = 10.0, 20.0
"""Below the first, an output has probably lost what it says; below the second, people should look at it."""
ASSETS = files("qcompiler.page") / "assets"


def written(template: str, **values: Any) -> str:
    """A template of `assets/` with values; a name that none has is an error."""
    made = Environment(
        loader=PackageLoader("qcompiler.page", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= _FILTERS
    return made.get_template(template).render(source=_source, **values)


def _source(name: str) -> str:
    """A script or style sheet as it stands; none holds what would end its element."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _db(value: float | None) -> str:
    return "" if value is None else "same" if value >= SAME_DB else f"{round(value, 1) + 0.0:.1f}"


def _tone(value: float | OutputFigure | None) -> str:
    """The style of a figure in dB."""
    number = value.sqnr_db if isinstance(value, OutputFigure) else value
    return "none" if number is None else "bad" if number < BAD_DB else "fair" if number < FAIR_DB else "good"


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.1 <= share < 0.995 else f"{min(100 * share, 99.9):.1f} %"


def _count(number: float) -> str:
    """``1.2 M``, as people read large counts."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def _micro(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else f"{nanoseconds / 1000:.1f} µs"


_FILTERS: dict[str, Callable[..., str]] = {
    "size": size, "db": _db, "percent": _percent, "tone": _tone, "count": _count, "micro": _micro,
}  # fmt: skip
