"""Writes ``docs/options.md`` from the options of `qcompile`: ``python -m docs.options`` (``make docs``). A test fails
where the page is stale.
"""

from __future__ import annotations

from collections.abc import Iterator

from docs.house import ROOT
from qcompiler.options import GROUPS, CompileRequest, Options, flag_of, options_of, text_of_default

PAGE = ROOT / "docs" / "options.md"
_HEAD = """# Options

Made from `qcompiler/options.py` by `make docs`. The first column is what `qcompile` reads, the second the field of
`qcompiler.api.Options` that `qcompiler.compile` takes; where there is none, the option is of the command alone.
"""


def page() -> str:
    """The document: a table for each group."""
    return "\n".join((_HEAD, *(line for group in GROUPS for line in _table(group))))


def _table(group: str) -> Iterator[str]:
    yield f"## {group}\n"
    yield "| option | field | what it does | default | example |"
    yield "|---|---|---|---|---|"
    own = {entry.name for entry in options_of(Options)}
    for entry in (*options_of(CompileRequest), *options_of(Options)):
        flag = flag_of(entry)
        if flag.group == group:
            names = ", ".join(f"`{name}`" for name in flag.names)
            field = f"`{entry.name}`" if entry.name in own else ""
            yield f"| {names} | {field} | {flag.help} | {text_of_default(entry)} | `{flag.example}` |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf8")
