"""The tutorials: their commands run as they stand and print what the pages say; their code is that of the scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.console import ROOT, compare, now, prepare, run, steps

PAGES = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.stem != "index")
SCRIPTS = ROOT / "examples" / "tutorials"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    prepare(tmp_path)
    commands = list(steps(page.read_text(encoding="utf8")))
    assert {step.command.split()[0] for step in commands} >= {"python", "qcompile", "qdiff", "qrun"}
    wrong = []
    for step in commands:
        lines = now(step.shown, run(step.command, tmp_path))
        wrong += [error for pair in zip(step.shown, lines, strict=True) for error in compare(*pair)]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_code_is_that_of_the_script(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    script = (SCRIPTS / f"{page.stem.replace('-', '_')}.py").read_text(encoding="utf8")
    quoted = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert quoted
    assert [code for code in quoted if code.strip() not in script] == []


def test_every_script_has_its_page() -> None:
    scripts = {path.stem.replace("_", "-") for path in SCRIPTS.glob("*.py")} - {"shared"}
    assert {page.stem for page in PAGES} == scripts
    overview = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf8")
    assert [page.name for page in PAGES if f"]({page.name})" not in overview] == []
