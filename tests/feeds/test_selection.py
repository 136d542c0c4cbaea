from __future__ import annotations

import numpy as np
import pytest

from qcompiler.feeds.selection import HELD_SHARE, held_out, split_feeds


@pytest.mark.parametrize("feeds", [5, 12, 64])
def test_neighbours_are_held_out_together(feeds):
    runs = [sorted(held_out(feeds, seed)) for seed in range(20)]
    assert all(len(run) == round(feeds / HELD_SHARE) and run == list(range(run[0], run[-1] + 1)) for run in runs)
    assert len({run[0] for run in runs}) > 1
    assert all(run[0] >= 0 and run[-1] < feeds for run in runs)


def test_too_few_feeds_are_not_split():
    assert held_out(4, seed=0) == frozenset()


def test_what_judges_was_not_fitted_to():
    feeds = [{"x": np.array([index])} for index in range(20)]
    fit, held = split_feeds(feeds, 16, seed=1)
    found = [{int(feed["x"][0]) for feed in part} for part in (fit, held)]
    assert len(found[0]) == 16
    assert found[1] == held_out(20, seed=1)
    assert not found[0] & found[1]
