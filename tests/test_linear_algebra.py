"""Linear algebra that does not depend on the CPU, beside numpy's, and bit by bit beside the definition of its sums."""

from __future__ import annotations

import ast
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.house import SOURCES
from qcompiler.linear_algebra import cholesky, gram, inverse, matmul, solve_positive

SIZES = st.integers(0, 5)


def normal(*shape, seed=0, kind=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def positive(groups, size):
    wide = normal(groups, size, 2 * size)
    return wide @ wide.transpose(0, 2, 1) / max(2 * size, 1) + 0.01 * np.eye(size)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (3,)), ((), (3,)), ((1,), (2, 3))]), SIZES, SIZES, SIZES,
    st.sampled_from([np.float32, np.float64, np.int16]), st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_products_of_stacks_are_those_of_numpy(stacks, rows, depth, columns, first, second):
    left = (10 * normal(*stacks[0], rows, depth)).astype(first)
    right = normal(*stacks[1], depth, columns, seed=1, kind=second)
    kind = np.float32 if first == second == np.float32 else np.float64
    product = matmul(left, right)
    assert product.dtype == kind
    np.testing.assert_allclose(
        product, np.matmul(left.astype(np.float64), right), rtol=1e-5 if kind == np.float32 else 1e-13, atol=1e-4
    )


@pytest.mark.parametrize(("left", "right"), [((4,), (4, 3)), ((2, 4), (4,)), ((4,), (4,)), ((3, 2, 4), (4,))])
def test_vectors_are_multiplied_as_numpy_does(left, right):
    a, b = normal(*left), normal(*right, seed=1)
    np.testing.assert_allclose(matmul(a, b), a @ b, rtol=1e-13)


def test_views_of_any_strides_are_multiplied():
    x = normal(2, 9, 8)
    left, right = x[:, ::2, 1::3], x[:, :3, ::-1]
    np.testing.assert_allclose(matmul(left, right), left @ right, rtol=1e-13)


@pytest.mark.parametrize(("kind", "bits"), [(np.float32, 24), (np.float64, 53)])
def test_a_result_is_one_chain_of_fused_multiply_adds(kind, bits):
    """What makes it the same on every CPU: no lane, no block of K adds by itself."""
    a, b = normal(5, 96, kind=kind), normal(96, 18, seed=1, kind=kind)
    expected = np.zeros((5, 18), kind)
    for row, column in np.ndindex(expected.shape):
        total = Fraction(0)
        for x, y in zip(a[row], b[:, column], strict=True):
            total = rounded(total + Fraction(float(x)) * Fraction(float(y)), bits)
        expected[row, column] = float(total)
    np.testing.assert_array_equal(matmul(a, b), expected)


def rounded(value: Fraction, bits: int) -> Fraction:
    """The nearest number of so many bits, of two the even one. Exponents have no limits."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length() - bits
    step = Fraction(2) ** (exponent if abs(value) < Fraction(2) ** (exponent + bits) else exponent + 1)
    return round(value / step) * step


def test_rounding_of_the_test_is_that_of_the_cpu():
    for value in normal(50) ** 3:
        assert float(rounded(Fraction(value), 24)) == float(np.float32(value))


@pytest.mark.parametrize("products", [1, 5, 191, 193, 450])
def test_a_gram_matrix_is_symmetric_to_the_last_bit(products):
    x = normal(2, 30, products, kind=np.float32)
    result = gram(x)
    np.testing.assert_array_equal(result, result.transpose(0, 2, 1))
    np.testing.assert_allclose(result, x.transpose(0, 2, 1) @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 150])
def test_factors_and_solutions(size):
    matrices, right = positive(2, size), normal(2, size, 3)
    lower = cholesky(matrices)
    np.testing.assert_array_equal(lower, np.tril(lower))
    np.testing.assert_allclose(lower, np.linalg.cholesky(matrices), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(solve_positive(matrices, right), np.linalg.solve(matrices, right), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(
        solve_positive(matrices[0], right[0]), np.linalg.solve(matrices[0], right[0]), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("size", [1, 3, 32])
def test_inverses(size):
    matrices = normal(4, size, size)
    matrices[0] = np.eye(size)[::-1]  # asks for pivots
    np.testing.assert_allclose(inverse(matrices) @ matrices, np.broadcast_to(np.eye(size), matrices.shape), atol=1e-9)


@pytest.mark.parametrize("function", [cholesky, lambda m: solve_positive(m, np.ones((1, 70, 1))), inverse])
def test_what_has_no_solution_is_refused(function):
    with pytest.raises(np.linalg.LinAlgError):
        function(np.zeros((1, 70, 70)))


SPECTRA = {
    "qcompiler.replacement.estimators": "analysis alone",
    "qcompiler.equivalence.affine": "a condition number",
}
"""Modules that may ask numpy's BLAS and LAPACK, and for what: nothing that decides about a file."""

OF_BLAS = {"matmul", "dot", "vdot", "inner", "tensordot", "linalg", "lapack", "cov", "corrcoef"}


def products_of_blas(source: str) -> list[int]:
    """Lines with a product or a factorization whose last bits depend on the CPU."""
    found = []
    for node in ast.walk(ast.parse(source)):
        by_name = (
            isinstance(node, ast.Attribute)
            and node.attr in OF_BLAS
            and ast.unparse(node.value) in ("np", "numpy", "scipy")
        )
        by_sign = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
        optimized = isinstance(node, ast.keyword) and node.arg == "optimize"
        if by_name or by_sign or optimized:
            found.append(node.lineno)
    return sorted(found)


@pytest.mark.parametrize(
    "module", [name for name in SOURCES if not name.startswith("qcompiler.runtime") and name not in SPECTRA]
)
def test_sums_that_decide_do_not_come_from_blas(module):
    source = SOURCES[module].read_text(encoding="utf8").replace("np.linalg.LinAlgError", "LinAlgError")
    assert products_of_blas(source) == []


def test_the_search_for_products_of_blas_finds_them():
    lines = [
        "a @ b",
        "np.matmul(a, b)",
        "np.linalg.solve(a, b)",
        "scipy.linalg.inv(a)",
        "np.einsum(e, a, b, optimize=True)",
        "np.einsum(e, a, b)",
    ]
    assert products_of_blas("\n".join(lines)) == [1, 2, 3, 4, 5]
