from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.observers import beyond

DISTRIBUTIONS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("feeds", "width"), [(16, 16), (64, 32), (64, 4), (200, 8)])
def test_fresh_values_rarely_exceed_the_range(name: str, feeds: int, width: int) -> None:
    """Without room, one of ``n + 1`` fresh values exceeds the largest of ``n``; with it, at most half as many do, and
    the range stays of use.
    """
    rng, draw = np.random.default_rng(0), DISTRIBUTIONS[name]
    seen = draw(rng, (300, feeds, width))
    room = np.array([beyond(rows.max(axis=1), rows.size) for rows in seen])
    largest = seen.max(axis=(1, 2))
    fresh = draw(rng, (300, 4096))
    without, within = ((fresh > limit[:, None]).mean() for limit in (largest, largest + room))
    assert without >= 0.5 / (feeds * width)
    assert within <= without / 2
    assert np.median((largest + room) / largest) <= 2


def test_many_values_leave_nothing_to_add() -> None:
    rows = np.random.default_rng(1).standard_normal((64, 40_000))
    assert beyond(rows.max(axis=1), rows.size) < 0.05 * rows.max()


def test_from_a_few_blocks_nothing_follows() -> None:
    assert beyond(np.array([1.0, 2.0, 3.0]), 30) == 0.0
    assert beyond(np.full(64, 6.0), 64) == 0.0
