"""Replacements of blocks of layers: what they save, what they cost, and whether their gate holds.

    python -m benchmarks.replacements own --data FOLDER            dense layers on digits and texts, trained in seconds
    python -m benchmarks.replacements front minilm --zoo FOLDER    size against score, at equal bytes
    python -m benchmarks.replacements gate --count 500             random networks: do budgets hold on fresh data?
    python -m benchmarks.replacements zoo minilm effnet --zoo FOLDER  the same on real ones

``--json FILE`` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.replacements import front
from benchmarks.replacements import gate as replacement_gate
from benchmarks.replacements import own as replacement_own
from benchmarks.tools.arguments import add_models
from qcompiler.errors import QCompilerError

Row = dict[str, Any]
"""One line of a table: figures by the name of their column."""


def main() -> int:
    """Measure what was asked for; 2 when a model cannot be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replacements", description="Replacements of blocks of layers."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    own = commands.add_parser("own", help="networks trained here")
    own.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="where the data sets are, or will be fetched to"
    )
    gate = commands.add_parser("gate", help="random networks")
    gate.add_argument("--count", type=int, default=500, metavar="N", help="how many")
    for name, text in (("front", "size against score of a real network"), ("zoo", "the gate on real networks")):
        add_models(commands.add_parser(name, help=text))
    for command in commands.choices.values():
        command.add_argument("--json", type=Path, metavar="FILE", help="keep the figures here")
    chosen = parser.parse_args()
    measure: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
        "own": replacement_own.rows, "front": front.rows, "gate": replacement_gate.rows,
        "zoo": replacement_gate.zoo_rows,
    }  # fmt: skip
    found: list[Row] = []
    try:
        for row in measure[chosen.command](chosen):
            print(", ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr, flush=True)
            found.append(row)
            if chosen.json:
                chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    except QCompilerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 160).print(table(found))
    return 0


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = Table(*columns)
    for row in rows:
        shown.add_row(*(str(row.get(key, "")) for key in columns))
    return shown


if __name__ == "__main__":
    sys.exit(main())
