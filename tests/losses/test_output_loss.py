from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from qcompiler.errors import OptionError
from qcompiler.losses.output_loss import OUTPUT_LOSSES, is_distribution, kl_divergence

LOGITS = np.random.default_rng(0).normal(0, 3, (5, 7, 11)).astype(np.float32)
NOISE = np.random.default_rng(1).normal(0, 1, LOGITS.shape).astype(np.float32)


def test_the_divergence_is_that_of_the_changed_model_from_the_float_one_and_not_the_other_way_round():
    p, q = softmax(LOGITS.astype(np.float64), axis=-1), softmax((LOGITS + NOISE).astype(np.float64), axis=-1)
    expected, reverse = rel_entr(p, q).sum(-1).mean(), rel_entr(q, p).sum(-1).mean()
    assert abs(expected - reverse) > 0.01
    assert kl_divergence(LOGITS + NOISE, LOGITS) == pytest.approx(expected, rel=1e-5)


def test_probabilities_and_their_logarithms_diverge_alike():
    p, q = (softmax(values, axis=-1) for values in (LOGITS, LOGITS + NOISE))
    assert is_distribution(p)
    assert not is_distribution(LOGITS)
    assert kl_divergence(q, p) == pytest.approx(
        kl_divergence(log_softmax(LOGITS + NOISE, axis=-1), log_softmax(LOGITS, axis=-1)), rel=1e-4
    )


def test_what_all_logits_gain_alike_costs_nothing_and_the_same_costs_nothing():
    shift = np.random.default_rng(2).normal(size=(5, 7, 1)).astype(np.float32)
    assert kl_divergence(LOGITS + shift, LOGITS) == pytest.approx(0, abs=1e-6)
    assert kl_divergence(LOGITS, LOGITS) == 0
    assert OUTPUT_LOSSES["mse"].loss(LOGITS + shift, LOGITS) > 0


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_the_squared_length_of_the_error_is_the_loss(name):
    loss = OUTPUT_LOSSES[name]
    for size in (0.01, 1.0):
        error = loss.error(LOGITS + np.float32(size) * NOISE, LOGITS)
        assert np.square(error).sum() == pytest.approx(loss.loss(LOGITS + np.float32(size) * NOISE, LOGITS), rel=1e-6)
    assert not loss.error(LOGITS, LOGITS).any()


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_products_of_errors_are_what_small_changes_lose_together(name):
    loss, other = OUTPUT_LOSSES[name], np.random.default_rng(3).normal(size=LOGITS.shape) + 0.5 * NOISE
    logits, first, second = (values.astype(np.float64) for values in (LOGITS, 0.01 * NOISE, 0.01 * other))
    together = (
        loss.loss(logits + first + second, logits)
        - loss.loss(logits + first, logits)
        - loss.loss(logits + second, logits)
    )
    assert 2 * float(loss.error(logits + first, logits) @ loss.error(logits + second, logits)) == pytest.approx(
        together, rel=0.05
    )


def test_a_probability_of_zero_is_not_infinitely_far():
    assert np.isfinite(kl_divergence(np.float32([[1, 0]]), np.float32([[0.5, 0.5]])))


@pytest.mark.parametrize("shape", [(4, 1), ()])
def test_outputs_without_classes_are_refused(shape):
    with pytest.raises(OptionError, match="loss=mse"):
        kl_divergence(np.zeros(shape), np.ones(shape))
