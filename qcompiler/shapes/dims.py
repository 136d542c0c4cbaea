"""Sizes of dimensions as exact integer expressions.

A size is a Python int, or a sympy expression over positive integer symbols. `floor_div` keeps quotients in one normal
form, so that two ways to the same size compare equal:

    floor((floor(y) + n) / k) = floor((y + n) / k)                       for integer n
    floor((g*a + c) / (g*d))  = floor((a + floor(c / g)) / d)            for integer a
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import gcd, lcm
from typing import Any, TypeAlias

import sympy

Dim: TypeAlias = "int | sympy.Expr"
Nested: TypeAlias = "int | str | list[Any]"

remembered = lru_cache(maxsize=1 << 14)
"""Shapes are inferred anew after many passes, and the algebra of a few sizes takes most of that time."""


def symbol(name: str) -> sympy.Expr:
    """The size called ``name``: an integer, at least 1."""
    return sympy.Symbol(name, integer=True, positive=True)


def as_dim(value: Any) -> Dim:
    """``value`` as an int where it is a number, else as an expanded expression."""
    if isinstance(value, int):
        return value
    expanded = sympy.expand(value)
    return int(expanded) if expanded.is_Integer else expanded


@remembered
def same(a: Dim, b: Dim) -> bool:
    """True when both sizes are equal whatever the symbols are."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(a == b or sympy.expand(sympy.sympify(a) - b) == 0)


@remembered
def maximum(a: Dim, b: Dim) -> Dim:
    """The larger size."""
    return as_dim(sympy.Max(a, b))


@remembered
def quotient(a: Dim, b: Dim) -> Dim:
    """``a / b``, which is known to be whole."""
    return as_dim(sympy.cancel(sympy.sympify(a) / b))


@remembered
def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller size."""
    return as_dim(sympy.Min(a, b))


def _without_inner_floor(terms: list[Any]) -> list[Any]:
    """Drop the floor of one term with coefficient 1; allowed under an outer floor division only."""
    for index, term in enumerate(terms):
        if isinstance(term, sympy.floor):
            rest = terms[:index] + terms[index + 1 :]
            return [*rest, *sympy.Add.make_args(sympy.expand(term.args[0]))]
    return terms


def _floor(expr: Any) -> Dim:
    """floor(expr) in normal form."""
    terms = [term.as_coeff_Mul() for term in sympy.Add.make_args(sympy.expand(expr))]
    constant = sum((c for c, factor in terms if factor == 1), sympy.Integer(0))
    linear = [(c, factor) for c, factor in terms if factor != 1]
    if not linear:
        return int(sympy.floor(constant))
    if not all(c.is_Rational and factor.is_integer for c, factor in linear) or not constant.is_Rational:
        return sympy.floor(expr)
    whole = sum((c * factor for c, factor in linear if c.is_Integer), sympy.Integer(0))
    broken = [(c, factor) for c, factor in linear if not c.is_Integer]
    if not broken:
        return as_dim(whole + sympy.floor(constant))
    denominator = lcm(*(int(c.q) for c, _ in broken))
    numerators = [int(c * denominator) for c, _ in broken]
    common = gcd(denominator, *numerators)
    offset = int(sympy.floor(constant * denominator / common))
    size = denominator // common
    lifted, remainder = divmod(offset, size)
    parts = [sympy.Rational(n // common, size) * factor for n, (_, factor) in zip(numerators, broken, strict=True)]
    return whole + lifted + sympy.floor(sum(parts, sympy.Rational(remainder, size)), evaluate=False)


@remembered
def floor_div(a: Dim, k: int) -> Dim:
    """``a // k`` for k >= 1."""
    if isinstance(a, int):
        return a // k
    if k == 1:
        return as_dim(a)
    terms = _without_inner_floor(list(sympy.Add.make_args(sympy.expand(a))))
    return _floor(sum(terms, sympy.Integer(0)) / sympy.Integer(k))


@remembered
def is_nonnegative(a: Dim) -> bool:
    """Whether it is sure to be at least 0. Floors are replaced by what bounds them, ``x - 1 + 1 / q <= floor(x) <= x``,
    where x has the denominator q.
    """
    expr = sympy.sympify(a)
    while not expr.is_nonnegative:
        floors = expr.atoms(sympy.floor)
        outer = [each for each in floors if not any(each in other.args[0].atoms(sympy.floor) for other in floors)]
        if not outer:
            return False
        coefficient, inner = sympy.expand(expr).coeff(outer[0]), outer[0].args[0]
        if not coefficient.is_number or sympy.expand(expr - coefficient * outer[0]).has(outer[0]):
            return False
        least = inner - 1 + sympy.Rational(1, _denominator(inner)) if coefficient > 0 else inner
        expr = sympy.expand(expr - coefficient * outer[0] + coefficient * least)
    return True


def ceil_div(a: Dim, k: int) -> Dim:
    """``ceil(a / k)`` for k >= 1."""
    return floor_div(a + k - 1, k)


def scaled(a: Dim, factor: sympy.Rational) -> Dim:
    """``floor(a * factor)`` for a rational factor."""
    return _floor(sympy.sympify(a) * factor)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The size for given symbols; KeyError names a symbol that has no size."""
    if isinstance(dim, int):
        return dim
    values = {s: sizes[s.name] for s in dim.free_symbols}
    return int(dim.subs(values).doit())


def _denominator(expr: Any) -> int:
    return lcm(*(int(term.as_coeff_Mul()[0].q) for term in sympy.Add.make_args(expr)))


def _fold(op: str, parts: list[Nested]) -> Nested:
    result = parts[0]
    for part in parts[1:]:
        result = [op, result, part]
    return result


def _nested_floor(expr: Any) -> Nested:
    """floor(expr), its rational coefficients over their common denominator."""
    expanded = sympy.expand(expr)
    denominator = _denominator(expanded)
    numerator = to_nested(sympy.expand(expanded * denominator))
    return numerator if denominator == 1 else ["floordiv", numerator, denominator]


def _nested_product(expr: Any) -> Nested:
    parts: list[Nested] = []
    for factor in expr.as_ordered_factors():
        base, exponent = factor.as_base_exp()
        if not (exponent.is_Integer and exponent > 0):
            raise ValueError(f"the size {expr} divides by a symbol, which runtime dimensions cannot express")
        parts += [to_nested(base)] * int(exponent)
    return _fold("mul", parts)


def to_nested(dim: Dim) -> Nested:
    """A size in the form of runtime dimensions.

    An int, a symbol's name, or ``["add" | "mul" | "max" | "min", a, b]``, ``["floordiv", a, k]`` with an int k >= 1.
    A fraction outside of a floor counts as exact: its numerator is divided at the end.

    Raises:
        ValueError: the expression holds something else, such as a division by a symbol.
    """
    expr = sympy.sympify(dim)
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return str(expr.name)
    if isinstance(expr, sympy.floor):
        return _nested_floor(expr.args[0])
    if isinstance(expr, sympy.ceiling):
        return ["mul", -1, _nested_floor(-expr.args[0])]
    if isinstance(expr, sympy.Max | sympy.Min):
        parts = sorted(expr.args, key=sympy.default_sort_key)
        return _fold("max" if isinstance(expr, sympy.Max) else "min", [to_nested(part) for part in parts])
    if not (expr.is_Add or expr.is_Mul or expr.is_Pow):
        raise ValueError(f"the size {expr} is not made of sums, products, quotients by integers, min and max")
    if _denominator(sympy.expand(expr)) > 1:
        return _nested_floor(expr)
    if expr.is_Add:
        return _fold("add", [to_nested(term) for term in expr.as_ordered_terms()])
    return _nested_product(expr)
