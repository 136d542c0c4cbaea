"""Grids: the values a weight may take, as integer levels times a scale."""

from __future__ import annotations

from qcompiler.grids.blocks import BLOCKS, BlockTables, block_levels
from qcompiler.grids.cluster import cluster_centres
from qcompiler.grids.codebooks import floating, fp4_bnb, nf4, post, power
from qcompiler.grids.fitted import KMeansGrid, PowerGrid, SplitGrid
from qcompiler.grids.grid import LARGEST_LEVEL, Grid, GridFamily, byte_parts, integer_levels, uniform
from qcompiler.grids.named import GRID_NAMES, grid_label, grid_named
from qcompiler.grids.scale_search import fit_scale, grid_loss, minimize

__all__ = [
    "BLOCKS",
    "GRID_NAMES",
    "LARGEST_LEVEL",
    "BlockTables",
    "Grid",
    "GridFamily",
    "KMeansGrid",
    "PowerGrid",
    "SplitGrid",
    "block_levels",
    "byte_parts",
    "cluster_centres",
    "fit_scale",
    "floating",
    "fp4_bnb",
    "grid_label",
    "grid_loss",
    "grid_named",
    "integer_levels",
    "minimize",
    "nf4",
    "post",
    "power",
    "uniform",
]
