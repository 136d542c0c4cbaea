from __future__ import annotations

import numpy as np
import pytest

from qcompiler.equivalence.hadamard import hadamard
from qcompiler.replacement.features import DRAWN, InputScale, draw_map, orthogonal_gaussian, signed_hadamard


def rng(seed=0):
    return np.random.default_rng(seed)


def test_blocks_of_gaussian_rows_are_orthogonal_and_each_row_is_gaussian():
    rows = orthogonal_gaussian(20, 8, rng())
    for block in (rows[:8], rows[8:16]):
        products = block @ block.T
        np.testing.assert_allclose(products, np.diag(np.diag(products)), atol=1e-12)
    entries = orthogonal_gaussian(40_000, 8, rng(1))
    np.testing.assert_allclose(entries.mean(axis=0), 0, atol=5 / 200)
    np.testing.assert_allclose((entries**2).mean(axis=0), 1, atol=5 * np.sqrt(2) / 200)
    np.testing.assert_allclose((np.linalg.norm(entries, axis=1) ** 2).var(), 16, rtol=0.05)  # chi-squared of 8 degrees


def test_a_hadamard_matrix_is_orthogonal_and_of_signs():
    matrix = hadamard(16)
    np.testing.assert_array_equal(matrix @ matrix.T, 16 * np.eye(16))


@pytest.mark.parametrize(("count", "size"), [(5, 8), (40, 12), (1, 1), (0, 4)])
def test_signed_hadamard_rows(count, size):
    rows = signed_hadamard(count, size, rng())
    assert rows.shape == (count, size)
    assert set(np.unique(rows)) <= {-1.0, 1.0}
    if size == 8:
        np.testing.assert_array_equal(rows @ rows.T, size * np.eye(count))


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("directions", ["orthogonal", "hadamard"])
def test_a_map_computes_what_it_says_and_its_first_features_are_a_map(kind, directions):
    x = rng(1).standard_normal((50, 12)) * 3 + 5
    scale = InputScale.of(x)
    drawn = draw_map(kind, 30, scale, rng(), directions=directions)
    (weight, bias), *more = drawn.factors
    projected = x @ weight.T + bias
    other = x @ more[0][0].T + more[0][1] if more else 0
    expected = {"relu": np.maximum(projected, 0), "cos": np.cos(projected), "product": projected * other}
    np.testing.assert_allclose(drawn(x), expected[kind], atol=1e-12)
    np.testing.assert_allclose(drawn.first(7)(x), drawn(x)[:, :7], atol=1e-12)
    assert drawn.count == 30


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_projections_are_about_the_mean_and_of_the_width_asked_for(width):
    x = rng(1).standard_normal((4000, 16)) * 7 + 100
    drawn = draw_map("relu", 64, InputScale.of(x), rng(), width=width)
    projected = x @ drawn.factors[0][0].T + drawn.factors[0][1]
    assert abs(projected.mean()) < 0.1
    assert 0.8 * width < projected.std() < 1.2 * width


def test_inputs_that_never_vary_have_a_scale():
    scale = InputScale.of(np.full((3, 2), 4.0))
    assert scale.spread == 1.0
    assert np.isfinite(draw_map("cos", 4, scale, rng()).factors[0][0]).all()


def test_the_same_seed_draws_the_same_bits():
    scale = InputScale(np.zeros(5), 1.0)
    first, second = (draw_map("cos", 9, scale, rng(3)) for _ in range(2))
    assert first.factors[0][0].tobytes() == second.factors[0][0].tobytes()


def test_unknown_names_are_refused():
    scale = InputScale(np.zeros(5), 1.0)
    with pytest.raises(ValueError, match="feature map 'tanh' is unknown"):
        draw_map("tanh", 3, scale, rng())
    with pytest.raises(ValueError, match="directions 'up' are unknown"):
        draw_map("relu", 3, scale, rng(), directions="up")
