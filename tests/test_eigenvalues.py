"""Eigenvalues, singular values and bases beside numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.eigenvalues import eigh, orthonormal, svd


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check_eigh(matrix):
    values, vectors = eigh(matrix)
    size = max(np.abs(values).max(initial=0), 1e-300)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-13 * size * len(matrix))
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(matrix)), atol=1e-13 * max(len(matrix), 1))
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-13 * size * len(matrix))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24), st.integers(0, 24), st.integers(0, 2**32 - 1), st.sampled_from([1e-150, 1.0, 1e150]))
def test_eigenvalues_are_those_of_numpy(size, rank, seed, scale):
    wide = normal(size, rank, seed=seed)
    check_eigh(scale * (wide @ wide.T - 0.3 * np.eye(size)))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((0, 0)), np.zeros((4, 4)), np.diag([3.0, 1.0, 2.0, 2.0]), np.kron(np.eye(4), np.ones((4, 4))),
        np.eye(6)[::-1].copy(), np.diag([1e-30, 1.0, 1e30]),
    ],
)  # fmt: skip
def test_eigenvalues_that_are_equal_or_far_apart(matrix):
    check_eigh(matrix)


def test_only_the_lower_triangle_is_read():
    matrix = normal(7, 7)
    matrix += matrix.T
    expected = eigh(matrix)
    matrix[np.triu_indices(7, 1)] = np.nan
    for one, other in zip(eigh(matrix), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4), (0, 3)])
def test_singular_values_are_those_of_numpy(shape):
    matrix = normal(*shape)
    left, values, right = svd(matrix)
    np.testing.assert_allclose(values, np.linalg.svd(matrix)[1], rtol=1e-10)
    np.testing.assert_allclose(left * values @ right, matrix, atol=1e-12)
    np.testing.assert_allclose(left.T @ left, np.eye(min(shape)), atol=1e-10)


def test_vectors_of_lost_singular_values_are_zeros():
    matrix = np.outer(normal(4), normal(6, seed=1))
    left, values, right = svd(matrix)
    np.testing.assert_allclose(left * values @ right, matrix, atol=1e-7)
    assert not right[1:].any()


def test_an_orthonormal_basis_is_that_of_householder_with_positive_diagonal():
    matrix = normal(30, 12)
    basis, upper = np.linalg.qr(matrix)
    np.testing.assert_allclose(orthonormal(matrix), basis * np.sign(np.diag(upper)), atol=1e-12)
    with pytest.raises(np.linalg.LinAlgError):
        orthonormal(np.ones((4, 2)))
