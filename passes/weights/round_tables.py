"""Puts large tables that are only looked up (embeddings) on a grid of few levels, with one scale per row.

A row of a table is what one index gives, so one scale per row costs next to nothing, and a row then takes at most as
many values as the grid has levels. The values stay float here. Whatever grid of 8 or 16 bits the result of the lookup
gets, a row of its codes takes as few values, so that the table leaves packed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import STANDARD_DOMAINS, Constant, Graph, Node, names_in, unique_name
from ...grids import fit_scale, grid_named
from ...pass_base import Context, Pass

_ROWS = 4096
"""Rows rounded at once."""


@dataclass(frozen=True)
class RoundTables(Pass):
    """Embedding tables on a grid of few levels, one scale per row.

    Attributes:
        grid: its name; a fitted one is fitted to some thousand rows.
        smallest: elements from which a table is worth it.
    """

    name: ClassVar[str] = "round-tables"
    grid: str = "nf4"
    smallest: int = 1 << 18

    def __post_init__(self) -> None:
        grid_named(self.grid)

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Round the tables; True when there was one."""
        taken, rounded = names_in(graph), dict[int, Constant]()
        for node in list(_lookups(graph)):
            table = node.inputs[0]
            if table.values.size < self.smallest:
                continue
            if any(reader.op != "Gather" for reader in table.outputs):
                ctx.declined(node, f"its table '{table.name}' is not only looked up; it keeps its values")
                continue
            if id(table) not in rounded:
                rounded[id(table)] = Constant(
                    unique_name(taken, f"{table.name}_{self.grid}"), self._rounded(np.asarray(table.values))
                )
            node.inputs[0] = rounded[id(table)]
        return bool(rounded)

    def _rounded(self, table: np.ndarray) -> np.ndarray:
        """``scale * level`` for every row: float32 [V, D]."""
        grid = grid_named(self.grid).fit(table[None, :: -(-len(table) // _ROWS)])
        result = np.empty_like(table)
        for start in range(0, len(table), _ROWS):
            part = table[start : start + _ROWS]
            scale = fit_scale(grid, part[None])[0]
            result[start : start + _ROWS] = scale * grid.nearest(part / scale).astype(np.float32)
        return result


def _lookups(graph: Graph) -> Iterator[Node]:
    """Gather nodes that pick rows of a constant float matrix."""
    for node in graph.nodes:
        table = node.inputs[0] if node.op == "Gather" and node.domain in STANDARD_DOMAINS else None
        if (
            isinstance(table, Constant)
            and table.dtype == np.float32
            and len(table.shape) == 2
            and node.attrs.get("axis", 0) == 0
        ):
            yield node
