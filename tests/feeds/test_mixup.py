from __future__ import annotations

import numpy as np

from qcompiler.feeds import mixup
from qcompiler.feeds.mixup import MANY_FEEDS, with_mixtures
from tests.passes.rewriting import random

FEEDS = [{"x": random(3, 4, seed=seed)} for seed in range(10)]
HELD = frozenset({4, 5})


def test_mixtures_stand_behind_the_feeds_and_hold_nothing_of_what_is_held_out():
    found, count = with_mixtures(FEEDS, len(FEEDS), HELD, seed=3)
    found = list(found)
    assert len(found) == count == 18
    assert all(got is want for got, want in zip(found, FEEDS, strict=False))
    basis = np.stack([feed["x"].reshape(-1) for feed in FEEDS]).T.astype(np.float64)
    for number, mixture in zip((n for n in range(10) if n not in HELD), found[10:], strict=True):
        shares = np.linalg.lstsq(basis, mixture["x"].reshape(-1).astype(np.float64), rcond=None)[0]
        assert mixture["x"].dtype == np.float32
        assert np.abs(shares[list(HELD)]).max() < 1e-5
        assert shares[number] >= 0.5 - 1e-5
        assert abs(shares.sum() - 1) < 1e-5
        assert (np.abs(shares) > 1e-5).sum() == 2


def test_the_seed_decides():
    first, again, other = (list(with_mixtures(FEEDS, 10, HELD, seed)[0])[10]["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_only_feeds_of_the_same_shapes_are_mixed():
    feeds = [{"x": random(3, 4 + seed // 2, seed=seed)} for seed in range(6)] + [{"x": random(9, 9)}]
    found, count = with_mixtures(feeds, 7, frozenset(), seed=0)
    assert count == 13
    assert [feed["x"].shape for feed in list(found)[7:]] == [feed["x"].shape for feed in feeds[:6]]


def test_what_cannot_or_need_not_be_mixed_stays(monkeypatch):
    tokens = [{"ids": np.arange(4), "x": random(4)} for _ in range(6)]
    assert with_mixtures(tokens, 6, HELD, 0) == (tokens, 6)
    assert with_mixtures(iter(FEEDS), MANY_FEEDS, HELD, 0)[1] == MANY_FEEDS
    monkeypatch.setattr(mixup, "MIXED_BYTES", 100)
    assert with_mixtures(FEEDS, 10, HELD, 0) == (FEEDS, 10)
