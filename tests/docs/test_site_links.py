"""Links of the site: what is in the repository is found there, and what is outside docs/ comes along."""

from __future__ import annotations

import re

import pytest

from docs.site_links import BESIDES, ROOT, home, linked, place, rewritten

PAGES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("README.md", "index.md"),
        ("docs/report.md", "report.md"),
        ("docs/tutorials/index.md", "tutorials/index.md"),
        ("docs/report.png", "report.png"),
        ("examples/edge", "examples/edge/README.md"),
        ("examples/c/cortex_m", "examples/c/README.md"),
        ("qcompiler/cli.py", "qcompiler/cli.py.txt"),
    ],
)
def test_places(path: str, uri: str) -> None:
    assert place(path) == uri


@pytest.mark.parametrize(
    ("source", "text", "there"),
    [
        ("index.md", "[a](docs/report.md#b)", "[a](report.md#b)"),
        ("report.md", "[a](../README.md)", "[a](index.md)"),
        ("tutorials/decoder.md", "[a](../embedding.md#runs)", "[a](../embedding.md#runs)"),
        ("api/compiler.md", "[a](../../examples/edge/README.md)", "[a](../examples/edge/README.md)"),
        ("architecture.md", "[a](../qcompiler/cli.py)", "[a](qcompiler/cli.py.txt)"),
        ("report.md", "[a](https://js.cytoscape.org) [b](#how)", "[a](https://js.cytoscape.org) [b](#how)"),
    ],
)
def test_links_of_pages(source: str, text: str, there: str) -> None:
    assert rewritten(text, source) == there


def test_all_that_pages_lead_to_is_there() -> None:
    found = linked(PAGES)
    assert found["index.md"] == "README.md"
    assert found[BESIDES] == BESIDES
    assert [path for path in found.values() if not (ROOT / path).is_file()] == []
    outside = [path for path in found.values() if path.endswith(".md")]
    assert {"CONTRIBUTING.md", "examples/edge/README.md"} <= set(outside)


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf8").partition("\nnav:")[2]
    named = {home(page) for page in re.findall(r"\S+\.md", navigation)}
    assert [page for page in PAGES if page not in named] == []
