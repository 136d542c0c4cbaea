"""Reads a page as a browser would, and refuses one that is not sound."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "img"}


class Checked(HTMLParser):
    """Raises where elements do not close in order; keeps identifiers, texts and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self._inside = ""
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.data = ""
        self.source = text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [str(given["id"])] if "id" in given else []
        self.loaded += [str(given[name]) for name in ("src", "href", "data", "action", "srcset") if given.get(name)]
        if tag not in VOID:
            self.open.append(tag)
        self._inside = tag if tag == "script" and given.get("type") == "application/json" else ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._inside and self.open and self.open[-1] == "script":
            self.data += data
        elif "script" not in self.open and "style" not in self.open:
            self.text += data

    def assert_whole(self) -> None:
        """Identifiers are unique, links lead to them, and nothing is loaded."""
        assert len(self.ids) == len(set(self.ids))
        assert all(link.startswith(("#", "data:")) for link in self.loaded)
        assert all(link[1:] in self.ids for link in self.loaded if link.startswith("#"))
        styles = "".join(re.findall(r"<style>(.*?)</style>", self.source, re.DOTALL))
        assert "url(" not in styles
        assert "@import" not in styles
