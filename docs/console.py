"""Commands in the documents, and what they print: ``python -m docs.console PAGE`` writes them anew.

A block of the kind ``console`` holds commands behind ``$ `` and lines of what they print; ``…`` stands for lines left
out. `compare` holds a page to what is printed now: the same lines with the same names and counts; sizes, shares and
decibels near, as sums of floats differ from one CPU to the next; times and memory as they come.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = ("LICENSE", "docs", "examples", "models")
"""What of the repository commands read."""
LEFT_OUT = "…"
DECIBELS, SHARE, SIZE = 3.0, 0.03, 0.05
"""How far a figure may be from the one in the page: dB; a share between 0 and 1; bytes, as a share of them."""
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)")
_LINES = re.compile(r"```console\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A command with the lines that a page shows of what it prints; ``place`` is where these begin in the page."""

    command: str
    shown: list[str]
    place: int


def steps(page: str) -> Iterator[Step]:
    """The commands of a page, in their order; one that ends in a backslash goes on in the next line."""
    for block in _LINES.finditer(page):
        place = block.start(1)
        parts = re.split(r"^\$ ", block.group(1), flags=re.MULTILINE)
        for part in parts[1:]:
            place = page.index(part, place)
            head = re.match(r"(?:.*\\\n)*.*\n?", part)
            command = head.group() if head else part
            yield Step(re.sub(r"\\\n\s*", "", command).strip(), part[len(command) :].splitlines(), place + len(command))


def prepare(folder: Path) -> None:
    """Make a folder in which commands can run as they do in a checkout, and write."""
    for name in NEEDED:
        (folder / name).symlink_to(ROOT / name)


def run(command: str, folder: Path) -> list[str]:
    """The lines that a command prints; CalledProcessError, with its words, where it fails."""
    tools = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "110", "NO_COLOR": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    expected = 2 if done.stdout.startswith("error: ") else 0
    if done.returncode != expected:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
    return [line.rstrip() for line in done.stdout.splitlines()]


def now(shown: list[str], printed: list[str]) -> list[str]:
    """The lines of a page as they are printed now.

    Raises:
        ValueError: a line is printed no more, or not in this place.
    """
    found: list[str] = []
    at, anywhere = 0, False
    for line in shown:
        if line.strip() == LEFT_OUT:
            found.append(line)
            anywhere = True
            continue
        places = range(at, len(printed) if anywhere else min(at + 1, len(printed)))
        place = next((each for each in places if _words(printed[each]) == _words(line)), None)
        if place is None:
            rest = "\n".join(printed[at:])
            raise ValueError(f"not printed: {line}\nbut:\n{rest}")
        found.append(printed[place])
        at, anywhere = place + 1, False
    if at < len(printed) and not anywhere:
        raise ValueError("more is printed than the page shows:\n" + "\n".join(printed[at:]))
    return found


def _words(line: str) -> str:
    return " ".join(_NUMBER.sub("#", line).split())


def compare(shown: str, printed: str) -> list[str]:
    """Figures of a line that are no longer those of the page, each with what it should be."""
    wrong = []
    for first, second in zip(_NUMBER.finditer(shown), _NUMBER.finditer(printed), strict=True):
        before, after = (float(each.group().replace(",", "")) for each in (first, second))
        unit = re.match(r"\s?\S*", shown[first.end() :])
        if abs(before - after) > _room(unit.group().strip() if unit else "", before, shown[: first.start()]):
            wrong.append(f"{first.group()} in '{shown}': now {second.group()}")
    return wrong


def _room(unit: str, value: float, before: str) -> float:
    """How far a figure with this unit may move."""
    if unit.startswith(("s", "ms", "MB")) or "machine" in before or "[" in before or "(" in before or "ms" in before:
        return float("inf")
    if unit.startswith("dB"):
        return DECIBELS
    if unit.startswith(("kB", "->")) or "kB" in before:
        return SIZE * abs(value)
    if unit.startswith("%"):
        return 100 * SHARE
    return SHARE if value <= 1 else 0.0


def main(*pages: str) -> None:
    """Run pages in a folder of their own and write what is printed now into them."""
    import tempfile

    for path in map(Path, pages):
        text = path.read_text(encoding="utf8")
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name))
            found = [(step, now(step.shown, run(step.command, Path(name)))) for step in steps(text)]
        for step, lines in reversed(found):
            old = "".join(f"{line}\n" for line in step.shown)
            text = text[: step.place] + "".join(f"{line}\n" for line in lines) + text[step.place + len(old) :]
        path.write_text(text, encoding="utf8")


if __name__ == "__main__":
    main(*sys.argv[1:])
