from __future__ import annotations

import pytest

from qcompiler.replacement.cost import Cost, bundle_cost, most_features


def test_the_cost_of_layers_is_that_of_their_weights_and_biases():
    assert Cost.of([(256, 64, True), (16, 256, False)]) == Cost(64 * 256 + 256 * 16, 64 * 256 + 256 * 16 + 4 * 256)


def test_the_cost_of_a_bundle():
    assert bundle_cost(64, 10, 16, skip=False) == Cost(10 * 80, 10 * 80 + 4 * 26)
    assert bundle_cost(64, 10, 16, skip=True) == Cost(10 * 80 + 1024, 10 * 80 + 1024 + 4 * 26)
    assert bundle_cost(64, 10, 16, factors=2, skip=False).macs == 20 * 64 + 160
    assert bundle_cost(64, 0, 16, skip=True) == Cost(1024, 1024 + 64)  # nothing but the affine part, whose bias it has


@pytest.mark.parametrize("share", [0.05, 0.1, 0.34, 0.9])
@pytest.mark.parametrize("skip", [True, False])
def test_the_most_features_are_within_the_share_and_eight_more_are_not(share, skip):
    whole = Cost.of([(256, 64, True), (16, 256, True)])
    count = most_features(64, 16, whole, share, skip=skip, most=10_000)
    if count < 0:
        assert not bundle_cost(64, 0, 16, skip=skip).within(whole, share)
        return
    assert bundle_cost(64, count, 16, skip=skip).within(whole, share)
    assert not bundle_cost(64, count + 8, 16, skip=skip).within(whole, share)
    assert count % 8 == 0 or count < 16
