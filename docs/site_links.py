"""Hooks of the site (mkdocs.yml): links that lead out of docs/ work there, too.

README.md is the first page. What a page links to outside docs/ becomes a part of the site: a Markdown file as a page,
any other as text beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
FIRST = "README.md"
BESIDES = "CHANGELOG.md"
"""A page to which no other leads."""
_LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#\s]+)")


def home(source: str) -> str:
    """Where a page of the site comes from in the repository: ``index.md`` from ``README.md``."""
    if source == "index.md":
        return FIRST
    return f"docs/{source}" if (ROOT / "docs" / source).exists() else source


def place(path: str) -> str:
    """Where a file of the repository is in the site; a folder is where its README is, or that of the one above it."""
    while (ROOT / path).is_dir():
        path = f"{path}/README.md" if (ROOT / path / "README.md").exists() else str(PurePosixPath(path).parent)
    if path == FIRST:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.endswith((".md", ".png", ".svg")) else f"{path}.txt"


def targets(path: str) -> Iterator[str]:
    """What a Markdown file of the repository links to in the repository."""
    for link in _LINK.findall((ROOT / path).read_text(encoding="utf8")):
        yield normpath(str(PurePosixPath(path).parent / link))


def linked(pages: list[str]) -> dict[str, str]:
    """Files outside docs/ that pages lead to, over any number of links: place in the site, path in the repository."""
    found: dict[str, str] = {"index.md": FIRST, BESIDES: BESIDES}
    waiting = [*pages, FIRST, BESIDES]
    while waiting:
        for target in targets(waiting.pop()):
            uri = place(target)
            if target.startswith("docs/") or uri in found:
                continue
            found[uri] = uri.removesuffix(".txt")
            if uri.endswith(".md"):
                waiting.append(found[uri])
    return found


def rewritten(markdown: str, source: str) -> str:
    """The text of a page whose links are those of the site."""
    path, folder = PurePosixPath(home(source)), str(PurePosixPath(source).parent)

    def there(link: re.Match[str]) -> str:
        return relpath(place(normpath(str(path.parent / link.group()))), folder)

    return _LINK.sub(there, markdown)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what lies outside docs/."""
    from mkdocs.structure.files import File

    pages = [f"docs/{each.src_uri}" for each in files if each.src_uri.endswith(".md")]
    for uri, path in linked(pages).items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links of a page."""
    return rewritten(markdown, page.file.src_uri)
