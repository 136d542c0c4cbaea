from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qcompiler.solvers import kernels
from qcompiler.solvers.base import limits
from qcompiler.solvers.kernels import halves, insert, nearest_level
from tests.solvers.problems import GRIDS, UNEVEN


@pytest.mark.parametrize("grid", [*GRIDS[:3], UNEVEN], ids=lambda grid: grid.name)
def test_the_kernels_round_as_the_grid_does(grid):
    values = np.concatenate(
        [np.arange(-600, 600) / 4, np.nextafter(np.arange(-600, 600) / 4, 999), [np.inf, -np.inf, 1e300, 1e-300]]
    )
    tables = np.stack([grid.levels, grid.levels // 2])
    for kind, levels in enumerate(tables):
        found = [nearest_level(halves(tables), tables, limits(tables), kind, value) for value in values]
        np.testing.assert_array_equal(
            found, grid.nearest(values) if kind == 0 else levels[np.searchsorted(limits(tables)[1], values, "right")]
        )


def test_the_list_of_the_smallest_costs():
    costs = np.random.default_rng(0).permutation(50).astype(float)
    least, ranking, kept = np.empty(7), np.empty(7, np.int64), 0
    for key, cost in enumerate(costs):
        kept = insert(least, ranking, kept, cost, key)
    assert kept == 7
    np.testing.assert_array_equal(least, np.arange(7))
    np.testing.assert_array_equal(costs[ranking], np.arange(7))


def test_kernels_work_where_nothing_can_be_cached(tmp_path: Path):
    shutil.copy(str(kernels.__file__), tmp_path / "kernels.py")
    code = (
        "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n"
        "import numpy, kernels; print(kernels.nearest_index(numpy.array([[0.5, 1.5]]), 0, 1.0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
