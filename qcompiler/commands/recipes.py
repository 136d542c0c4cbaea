"""Recipes: options and rules for single nodes in a TOML file, to be kept beside a model, reviewed and run again.

::

    weights = "int8"            # any field of `Options`, by its name
    level = 3
    calib = "feeds.npz"

    [[rules]]                   # the keys of `LayerRule`
    name = "encoder.layer.0.*"
    bits = 4

    [[rules]]
    op = "Softmax"
    skip = true
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcompiler.errors import OptionError, suggestion
from qcompiler.layer_rules import LayerRule
from qcompiler.options import CompileRequest, Options, flag_of, options_of, refusal

__all__ = ["read_recipe", "recipe_of"]


def read_recipe(path: Path) -> dict[str, Any]:
    """Values of options by the names of their fields.

    Raises:
        OptionError: no TOML, an unknown option, or a value that it may not have.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"--recipe {path}: is no TOML: {error}") from error
    fields = {entry.name: entry for entry in (*options_of(Options), *_own())}
    for name in told:
        if name not in fields:
            raise OptionError(f"--recipe {path}: no option '{name}'{suggestion(name, fields)}")
    return {name: _value(fields[name], value, path) for name, value in told.items()}


def _own() -> list[Any]:
    return [entry for entry in options_of(CompileRequest) if entry.name == "calib"]


def _value(entry: Any, value: Any, path: Path) -> Any:
    flag = flag_of(entry)
    if entry.name == "rules":
        if not isinstance(value, list) or not all(isinstance(rule, Mapping) for rule in value):
            raise OptionError(f"--recipe {path}: rules must be tables: [[rules]]")
        return tuple(LayerRule.of(rule) for rule in value)
    if flag.kind == list[str] and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if isinstance(value, str) and flag.read is not None:
        try:
            return flag.read(value)
        except ValueError as error:
            raise refusal(flag, value) from error
    numbers: tuple[type, ...] = (int, float)
    kinds: dict[Any, tuple[type, ...]] = {int: (int,), bool: (bool,), float: numbers}
    wanted = kinds.get(flag.kind, (str,) if flag.read is None else numbers)
    if not isinstance(value, wanted) or (isinstance(value, bool) and flag.kind is not bool):
        raise OptionError(f"--recipe {path}: {entry.name} = {value!r} is of the wrong type; for example {flag.example}")
    return value


def recipe_of(request: CompileRequest, head: str) -> str:
    """A recipe with every value that was used, defaults too.

    Args:
        request: what was compiled.
        head: a line about where it comes from.
    """
    lines = [f"# {head}"]
    for holder, entries in ((request.options, options_of(Options)), (request, _own())):
        for entry in entries:
            value = getattr(holder, entry.name)
            if value is not None and entry.name != "rules":
                lines.append(f"{entry.name} = {_text(value)}")
    for rule in request.options.rules:
        lines += ["", "[[rules]]", *(f"{key} = {_text(value)}" for key, value in vars(rule).items() if value)]
    return "\n".join([*lines, ""])


def _text(value: Any) -> str:
    """A TOML value; strings, numbers, booleans and lists are written as JSON writes them."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
