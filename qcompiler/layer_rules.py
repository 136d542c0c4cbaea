"""Rules of users for nodes by the pattern of their name or their operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcompiler.errors import OptionError, suggestion

__all__ = ["LayerRule"]


@dataclass(frozen=True)
class LayerRule:
    """What is to be done with some nodes.

    Attributes:
        name: pattern of the node's name, with ``*`` and ``?``.
        op: its operator; empty: any.
        skip: it stays float.
        grid: of a layer's weight, such as ``int4/64``; empty: as for the others.
        int16: what it reads has 16 bits, where accumulators hold them.
    """

    name: str = "*"
    op: str = ""
    skip: bool = False
    grid: str = ""
    int16: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> LayerRule:
        """From a table; ``bits = 4`` stands for ``grid = "int4"``. Raises OptionError for what no rule may say."""
        table = dict(given)
        if "bits" in table:
            table["grid"] = f"int{table.pop('bits')}"
        known = {entry.name: type(entry.default) for entry in dataclasses.fields(cls)}
        for key, value in table.items():
            if key not in known:
                raise OptionError(f"rule {given}: has no key '{key}'{suggestion(key, (*known, 'bits'))}")
            if not isinstance(value, known[key]):
                raise OptionError(f"rule {given}: {key} must be of type {known[key].__name__}")
        rule = cls(**table)
        if sum((rule.skip, bool(rule.grid), rule.int16)) == 0:
            raise OptionError(f"rule {given}: says nothing; give it skip, grid, bits or int16")
        if rule.skip and (rule.grid or rule.int16):
            raise OptionError(f"rule {given}: what is skipped stays float and has neither grid nor int16")
        return rule

    @classmethod
    def read(cls, text: str) -> LayerRule:
        """From ``name=encoder.*,grid=int4`` or ``op=Softmax,skip``."""
        parts = [part.partition("=") for part in text.split(",")]
        table = {key.strip(): value.strip() if equals else True for key, equals, value in parts}
        return cls.of(table)

    def __str__(self) -> str:
        """As `read` takes it."""
        said = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        told = {key: value for key, value in said.items() if value not in ("", False) and (key, value) != ("name", "*")}
        return ",".join(key if value is True else f"{key}={value}" for key, value in told.items())
