"""Dimension expressions: an int, a symbol's name, or a nested list such as ``["add", ["floordiv", "W", 2], 1]``.

They are JSON as they stand. `check_form` refuses whatever is not one, before `evaluate` sees it; neither runs code from
a file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from ..errors import ProgramError

Expression: TypeAlias = "int | str | list[Expression]"

_MAX_DEPTH = 64
_MAX_VALUE = 1 << 62


def _floordiv(a: int, b: int) -> int:
    if b <= 0:
        raise ProgramError(f"a dimension expression divides {a} by {b}; divisors must be positive")
    return a // b


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "floordiv": _floordiv,
    "max": max,
    "min": min,
}


def check_form(expression: Expression, dims: Collection[str], depth: int = 0) -> None:
    """Refuse an expression that no sizes of ``dims`` could give a value.

    Raises:
        ProgramError: unknown symbol or operator, malformed list, or nesting beyond 64.
    """
    if isinstance(expression, bool) or not isinstance(expression, int | str | list):
        raise ProgramError(
            f"a dimension expression holds {expression!r}; only integers, symbols and [operator, a, b] are allowed"
        )
    if isinstance(expression, str) and expression not in dims:
        raise ProgramError(f"the dimension '{expression}' is not declared")
    if not isinstance(expression, list):
        return
    operator = expression[0] if expression else None
    if not isinstance(operator, str) or operator not in _OPERATORS or len(expression) < 3:
        raise ProgramError(
            f"a dimension expression starts with {operator!r}; expected [operator, a, b], operator one "
            f"of {sorted(_OPERATORS)}"
        )
    if depth >= _MAX_DEPTH:
        raise ProgramError(f"a dimension expression is nested deeper than {_MAX_DEPTH} levels")
    for item in expression[1:]:
        check_form(item, dims, depth + 1)


def evaluate(expression: Expression, dims: Mapping[str, int]) -> int:
    """Value of ``expression``, which has passed `check_form`, where symbols have the sizes ``dims``.

    Raises:
        ProgramError: a symbol without a size, a divisor that is not positive, or a value beyond 2^62.
    """
    if isinstance(expression, int):
        return _bounded(expression)
    if isinstance(expression, str):
        if expression not in dims:
            raise ProgramError(f"dimension '{expression}' has no value; give it to bind()")
        return dims[expression]
    operator = _OPERATORS[str(expression[0])]
    values = [evaluate(item, dims) for item in expression[1:]]
    result = values[0]
    for value in values[1:]:
        result = _bounded(operator(result, value))
    return result


def _bounded(value: int) -> int:
    if abs(value) >= _MAX_VALUE:
        raise ProgramError(f"a dimension expression has the value {value}, beyond 2^62")
    return value


def add(a: Expression, b: Expression) -> Expression:
    """``a + b``, folded where possible."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0:
        return b
    return a if b == 0 else ["add", a, b]


def mul(a: Expression, b: Expression) -> Expression:
    """``a * b``, folded where possible."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 0 or b == 0:
        return 0
    if a == 1:
        return b
    return a if b == 1 else ["mul", a, b]


def product(factors: Sequence[Expression]) -> Expression:
    """Product of all ``factors``; 1 for none."""
    result: Expression = 1
    for factor in factors:
        result = mul(result, factor)
    return result


def contiguous(shape: Sequence[Expression]) -> list[Expression]:
    """Element strides of a dense row-major array of ``shape``."""
    strides: list[Expression] = []
    step: Expression = 1
    for size in reversed(shape):
        strides.append(step)
        step = mul(step, size)
    return strides[::-1]


