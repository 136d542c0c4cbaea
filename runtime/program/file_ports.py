"""Inputs and outputs as a program file tells of them, checked; sizes and numbers of any part."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..errors import ProgramError
from ..instructions.instruction import ELEMENT_DTYPE
from .contents import Fills, Labels, Port
from .expressions import check_form

MAX_ZERO_POINT = 1 << 24
"""float32, in which the border adds it, holds every integer up to that."""


_PORT_DTYPES = frozenset({"float16", "float32", "float64", *ELEMENT_DTYPE.values()})


def whole_numbers(values: Any) -> bool:
    """True for a list of numbers from 0 to 2^48."""
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 48 for v in values
    )


def expressions(values: Any, dims: Collection[str]) -> tuple[Any, ...]:
    """A shape of numbers, names of dimensions and expressions; `ProgramError` for anything else."""
    if not isinstance(values, list):
        raise ProgramError("damaged: a shape is not a list")
    for value in values:
        check_form(value, dims)
    return tuple(values)


def ports(items: list[Any], dims: tuple[str, ...], buffers: int) -> tuple[Port, ...]:
    """The inputs or the outputs, no name twice; `ProgramError` where they are damaged."""
    found = tuple(_port(item, dims, buffers) for item in items)
    names = [port.name for port in found]
    if len(set(names)) != len(names):
        raise ProgramError("damaged: two inputs or two outputs have the same name")
    return found


def _port(item: Any, dims: tuple[str, ...], buffers: int) -> Port:
    if (
        not isinstance(item, list)
        or len(item) not in (6, 7, 8)
        or not isinstance(item[0], str)
        or item[1] not in (*_PORT_DTYPES, "str")
    ):
        raise ProgramError("damaged: an input or output is described wrongly")
    values = item[6] if len(item) == 7 and isinstance(item[6], dict) else {}
    if (item[1] == "str") != ("keys" in values) or (values and not _good_values(values, item[4])):
        raise ProgramError("damaged: the values that an input may hold are described wrongly")
    name, dtype, shape, buffer, scale, zero_point = item[:6]
    sizes = expressions(shape, dims)
    good = (
        _good_columns(scale, zero_point, item[6], sizes)
        if len(item) == 7 and not values
        else scale is None or _good_grid(scale, zero_point, 1 << 16)
    )
    if (
        not whole_numbers([buffer])
        or buffer >= buffers
        or not good
        or (scale is None and not isinstance(zero_point, int))
    ):
        raise ProgramError(f"damaged: '{name}' has no buffer, or no grid")
    if len(item) == 8:
        return Port(name, dtype, sizes, buffer, scale, zero_point, None, fills=_fills(name, scale, item[7]))
    if len(item) == 7 and not values:
        return Port(name, dtype, sizes, buffer, tuple(scale), tuple(zero_point), item[6])
    known = Labels(tuple(values["keys"]), tuple(values["numbers"]), values["other"]) if "keys" in values else None
    return Port(name, dtype, sizes, buffer, scale, zero_point, only=values.get("only"), labels=known)


def _good_values(values: dict[str, Any], scale: Any) -> bool:
    """One number, or strings with a number each and one for all others."""
    if scale is not None or set(values) not in ({"only"}, {"keys", "numbers", "other"}):
        return False
    keys, numbers = values.get("keys", []), values.get("numbers", [])
    if not isinstance(keys, list) or not isinstance(numbers, list) or len(keys) != len(numbers):
        return False
    whole = (*numbers, values.get("only", values.get("other")))
    fits = all(type(number) is int and -(1 << 63) <= number < 1 << 63 for number in whole)
    return fits and all(isinstance(key, str) for key in keys)


def _fills(name: str, scale: Any, given: Any) -> Fills:
    """What the ends of an output's codes stand for: numbers as text, for JSON has no infinity, or nothing."""
    try:
        lowest, highest = (None if each is None else float(each) for each in given)
    except (TypeError, ValueError):
        raise ProgramError(f"damaged: the fills of '{name}' are no numbers") from None
    if scale is None or lowest != lowest or highest != highest:
        raise ProgramError(f"damaged: the fills of '{name}' are no numbers")
    return lowest, highest


def _good_grid(scale: Any, zero_point: Any, most: int = MAX_ZERO_POINT) -> bool:
    good_scale = isinstance(scale, float) and np.isfinite(scale) and scale > 0
    return (
        bool(good_scale)
        and isinstance(zero_point, int)
        and not isinstance(zero_point, bool)
        and abs(zero_point) <= most
    )


def _good_columns(scales: Any, zero_points: Any, axis: Any, shape: tuple[Any, ...]) -> bool:
    """As many grids as the axis is long."""
    if (
        not isinstance(scales, list)
        or not isinstance(zero_points, list)
        or not whole_numbers([axis])
        or axis >= len(shape)
    ):
        return False
    return shape[axis] == len(scales) == len(zero_points) and all(map(_good_grid, scales, zero_points))
