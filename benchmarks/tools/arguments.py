"""What the benchmarks of models have in common: which models, and where the larger ones are."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from models.small import SMALL_TASKS
from models.task import Task
from models.zoo import TASKS, zoo_task


def models_parser(name: str, description: str, also: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks.<name> MODEL … [--zoo FOLDER]``; ``also`` are further models."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    add_models(parser, also)
    return parser


def add_models(parser: argparse.ArgumentParser, also: Iterable[str] = ()) -> None:
    """The arguments ``MODEL … [--zoo FOLDER]``."""
    known = (*SMALL_TASKS, *TASKS, *also)
    parser.add_argument("models", nargs="+", metavar="MODEL", choices=known, help=", ".join(known))
    parser.add_argument(
        "--zoo",
        type=Path,
        metavar="FOLDER",
        help="where the larger models are; python -m models.zoo FOLDER builds them",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; one line and exit status 2 where a larger model is asked for and no folder named."""
    chosen = parser.parse_args()
    if any(name in TASKS for name in getattr(chosen, "models", ())) and chosen.zoo is None:
        parser.error(f"--zoo FOLDER is needed for {', '.join(TASKS)}")
    return chosen


def task_of(name: str, zoo: Path | None) -> Task:
    """The task of a small or a larger model."""
    return SMALL_TASKS[name]() if name in SMALL_TASKS else zoo_task(name, zoo or Path())
