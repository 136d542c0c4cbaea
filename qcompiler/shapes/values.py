"""Values of small tensors, symbolically: the arithmetic that models do on shapes.

Elements are ints, sympy expressions over sizes, rationals (of float tensors) and bools. Float arithmetic is followed
only where float32 is exact (dyadic constants), so that a folded `floor` is the one onnxruntime would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import sympy
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant
from qcompiler.shapes import rules
from qcompiler.shapes.dims import as_dim, floor_div, is_nonnegative, remembered, same, scaled
from qcompiler.shapes.site import Site, Value

_LIMIT = 1024
"""Most elements of an integer tensor whose values are followed."""
_FLOAT_LIMIT = 16
"""Most elements of a float tensor whose values are followed: scales of a Resize, or one number."""
_LARGEST_NUMERATOR = 2**12
"""Float constants with larger numerators are not followed: products of two, and sums of up to 2^12 of those,
must be exact in float32 (24 bits)."""


Answer = list["Value | None"] | None


def _element(item: Any) -> Any:
    if isinstance(item, np.bool_ | bool):
        return bool(item)
    if isinstance(item, np.integer | int):
        return int(item)
    return sympy.Rational(float(item))


def _array(elements: Sequence[Any], shape: Sequence[int]) -> NDArray[Any]:
    items = np.empty(len(elements), dtype=object)
    for index, element in enumerate(elements):
        items[index] = element
    return items.reshape(tuple(shape))


def from_array(array: NDArray[Any]) -> Value | None:
    """The elements of a small constant; None for what is not followed (large, not finite, other types)."""
    kind = "i" if array.dtype.kind in "iu" else array.dtype.kind
    if (
        array.size > (_FLOAT_LIMIT if kind == "f" else _LIMIT)
        or kind not in "ifb"
        or (kind == "f" and not np.isfinite(array).all())
    ):
        return None
    return Value(_array([_element(item) for item in array.flat], array.shape), kind)


def of_constant(tensor: Constant) -> Value | None:
    """The elements of a constant tensor, None if it is not small."""
    return from_array(np.asarray(tensor.values)) if int(np.prod(tensor.shape)) <= _LIMIT else None


def from_dims(dims: Sequence[Any]) -> Value:
    """A one-dimensional integer tensor of sizes."""
    return Value(_array(list(dims), [len(dims)]), "i")


def _constant(site: Site) -> Answer:
    attrs = site.node.attrs
    if "value" in attrs:
        return [of_constant(attrs["value"])] if isinstance(attrs["value"], Constant) else None
    for name, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if name in attrs:
            return [from_array(np.asarray(attrs[name], dtype))]
    return None


def _shape(site: Site) -> Answer:
    shape = site.shapes[0]
    if shape is None:
        return None
    return [from_dims(shape[slice(site.node.attrs.get("start", 0), site.node.attrs.get("end", len(shape)))])]


def _size(site: Site) -> Answer:
    shape = site.shapes[0]
    if shape is None:
        return None
    product = 1
    for size in shape:
        product = as_dim(product * size)
    return [Value(_array([product], ()), "i")]


def _is_dyadic(item: Any) -> bool:
    number = sympy.sympify(item)
    if not number.is_Rational:
        return True
    return int(number.q) & (int(number.q) - 1) == 0 and abs(int(number.p)) < _LARGEST_NUMERATOR


def _exact(kind: str, a: Any, b: Any) -> bool:
    """Whether float32 arithmetic of the two operands is sure to be exact."""
    return kind != "f" or (_is_dyadic(a) and _is_dyadic(b))


def _float_of(op: str, a: Any, b: Any) -> Any:
    x, y = np.float32(float(a)), np.float32(float(b))
    with np.errstate(all="ignore"):
        result = {"Add": x + y, "Sub": x - y, "Mul": x * y, "Div": x / y}[op]
    return sympy.Rational(float(result)) if np.isfinite(result) else None


def _int_div(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if isinstance(b, int) and b > 0 and is_nonnegative(a):
        return floor_div(a, b)
    ratio = sympy.cancel(sympy.sympify(a) / b)
    return as_dim(ratio) if ratio.is_integer else None


def _int_mod(a: Any, b: Any) -> Any:
    """With the sign of a divisor above 0."""
    return as_dim(a - b * floor_div(a, b)) if isinstance(b, int) and b > 0 else None


@remembered
def _number(op: str, kind: str, a: Any, b: Any) -> Any:
    """One element of a binary operator; None when it is not exact."""
    known = sympy.sympify(a).is_number and sympy.sympify(b).is_number
    if kind == "f" and known:
        return _float_of(op, a, b)
    if not _exact(kind, a, b):
        return None
    if op in ("Div", "Mod") and kind == "i":
        return _int_div(a, b) if op == "Div" else _int_mod(a, b)
    if op == "Div":
        return (
            sympy.expand(sympy.sympify(a) / b)
            if sympy.sympify(b).is_number and b != 0 and _is_dyadic(1 / sympy.sympify(b))
            else None
        )
    result = {"Add": a + b, "Sub": a - b, "Mul": a * b}[op] if op in ("Add", "Sub", "Mul") else None
    return as_dim(result) if kind == "i" else sympy.expand(result)


def _zip(site: Site, combine: Callable[[str, Any, Any], Any], kind: str | None = None) -> Answer:
    left, right = site.values[:2]
    if left is None or right is None:
        return None
    a, b = np.broadcast_arrays(left.items, right.items)
    items = [combine(left.kind, x, y) for x, y in zip(a.flat, b.flat, strict=True)]
    return None if any(item is None for item in items) else [Value(_array(items, a.shape), kind or left.kind)]


def _binary(op: str) -> Callable[[Site], Answer]:
    return lambda site: _zip(site, lambda kind, a, b: _number(op, kind, a, b))


def _mod(site: Site) -> Answer:
    whole = all(value is not None and value.kind == "i" for value in site.values[:2])
    return _binary("Mod")(site) if whole and not site.node.attrs.get("fmod", 0) else None


def _extreme(function: Any) -> Callable[[Site], Answer]:
    return lambda site: (
        _zip(site, lambda kind, a, b: as_dim(function(a, b)) if kind == "i" else None)
        if len(site.values) == 2
        else None
    )


def _decide(relation: Any) -> Any:
    return bool(relation) if relation in (True, False) else None


def _equal(kind: str, a: Any, b: Any) -> bool | None:
    del kind
    if same(a, b):
        return True
    difference = sympy.sympify(a) - b
    return False if difference.is_positive or difference.is_negative or difference.is_zero is False else None


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "Less": lambda a, b: a < b, "LessOrEqual": lambda a, b: a <= b,
    "Greater": lambda a, b: a > b, "GreaterOrEqual": lambda a, b: a >= b,
}  # fmt: skip


def _compare(op: str) -> Callable[[Site], Answer]:
    return lambda site: _zip(site, lambda _, a, b: _decide(_COMPARE[op](sympy.sympify(a), sympy.sympify(b))), "b")


def _each(function: Callable[[Value, Any], Any], kind: str | None = None) -> Callable[[Site], Answer]:
    def rule(site: Site) -> Answer:
        value = site.values[0]
        if value is None:
            return None
        items = [function(value, item) for item in value.items.flat]
        return (
            None
            if any(item is None for item in items)
            else [Value(_array(items, value.items.shape), kind or value.kind)]
        )

    return rule


def _floor_item(value: Value, item: Any) -> Any:
    return sympy.sympify(scaled(item, sympy.Integer(1))) if value.kind == "f" else None


def _ceil_item(value: Value, item: Any) -> Any:
    return sympy.sympify(-scaled(-item, sympy.Integer(1))) if value.kind == "f" else None


def _truncated(item: Any) -> Any:
    expr = sympy.sympify(item)
    if expr.is_integer:
        return as_dim(expr)
    if expr.is_number:
        return int(expr)
    return as_dim(scaled(expr, sympy.Integer(1))) if expr.is_nonnegative else None


def _truth(item: Any) -> bool | None:
    """Whether a number is not 0, where that is so for every size."""
    zero = sympy.sympify(item).is_zero
    return None if zero is None else not zero


def _cast(site: Site) -> Answer:
    value, target = site.values[0], site.node.attrs.get("to")
    if value is None or target is None:
        return None
    kind = onnx.helper.tensor_dtype_to_np_dtype(target).kind if isinstance(target, int) else np.dtype(target).kind
    kind = "i" if kind == "u" else kind
    if value.kind == kind:
        return [value]
    convert = {
        "ib": _truth,
        "fb": _truth,
        "fi": _truncated,
        "if": sympy.sympify,
        "bi": int,
        "bf": lambda b: sympy.Integer(int(b)),
    }.get(value.kind + kind)
    if convert is None:
        return None
    return _each(lambda _, item: convert(item), kind)(site)


def _moved(function: Callable[[Site, NDArray[Any]], Any]) -> Callable[[Site], Answer]:
    """A rule that moves elements: ``function`` gives an object array, or None."""

    def rule(site: Site) -> Answer:
        value = site.values[0]
        result = None if value is None else function(site, value.items)
        if result is None or value is None or np.asarray(result, dtype=object).size > _LIMIT:
            return None
        items = np.asarray(result, dtype=object)
        return [Value(items, value.kind)]

    return rule


def _gather(site: Site, items: NDArray[Any]) -> Any:
    indices = site.values[1]
    if indices is None or not indices.is_known:
        return None
    return np.take(items, indices.items.astype(np.int64), axis=site.node.attrs.get("axis", 0))


def _slice(site: Site, items: NDArray[Any]) -> Any:
    bounds = site.slice_arguments()
    if bounds is None or not all(isinstance(v, int) for row in bounds for v in row):
        return None
    index = [slice(None)] * items.ndim
    for start, end, axis, step in zip(*bounds, strict=True):
        stop = None if step < 0 and end < -items.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return items[tuple(index)]


def _concat(site: Site) -> Answer:
    parts = [value for value in site.values if value is not None]
    if len(parts) != len(site.values):
        return None
    return [Value(np.concatenate([part.items for part in parts], axis=site.node.attrs["axis"]), parts[0].kind)]


def _reshaped(site: Site, items: NDArray[Any]) -> Any:
    shapes = rules.RULES[site.node.op](site)
    shape = shapes[0] if shapes else None
    return items.reshape(shape) if shape is not None and all(isinstance(size, int) for size in shape) else None


def _split(site: Site) -> Answer:
    value, shapes = site.values[0], rules.RULES["Split"](site)
    if value is None or shapes is None or value.items.ndim != 1:
        return None
    edges = np.cumsum([0, *[shape[0] for shape in shapes if shape is not None]])
    return [Value(value.items[a:b], value.kind) for a, b in pairwise(edges)]


def _filled(site: Site) -> Answer:
    dims = site.ints(0)
    if dims is None or not all(isinstance(d, int) for d in dims) or int(np.prod(dims)) > _LIMIT:
        return None
    fill = site.node.attrs.get("value")
    return [from_array(np.full(dims, np.asarray(fill.values).reshape(-1)[0] if fill is not None else np.float32(0)))]


def _expand(site: Site, items: NDArray[Any]) -> Any:
    dims = site.ints(1)
    if dims is None or not all(isinstance(d, int) for d in dims):
        return None
    shape = np.broadcast_shapes(items.shape, tuple(dims))
    return np.broadcast_to(items, shape).copy() if int(np.prod(shape)) <= _LIMIT else None


def _where(site: Site) -> Answer:
    condition, yes, no = site.values
    if condition is None or yes is None or no is None:
        return None
    c, a, b = np.broadcast_arrays(condition.items, yes.items, no.items)
    return [
        Value(_array([x if take else y for take, x, y in zip(c.flat, a.flat, b.flat, strict=True)], c.shape), yes.kind)
    ]


def _range(site: Site) -> Answer:
    numbers = [value.ints()[0] if value is not None and value.kind == "i" else None for value in site.values]
    if not all(isinstance(number, int) for number in numbers):
        return None
    result = np.arange(*numbers, dtype=np.int64)  # type: ignore[arg-type]
    return [from_array(result)]


def _reduce(function: Callable[[Any, Any], Any]) -> Callable[[Site], Answer]:
    def rule(site: Site) -> Answer:
        value, shapes = site.values[0], site.shapes[0]
        axes = site.ints(1) if len(site.values) > 1 else site.node.attrs.get("axes")
        if value is None or value.kind != "i" or shapes is None or len(shapes) != 1 or axes not in (None, [0], [-1]):
            return None
        total = value.ints()[0] if value.ints() else None
        for item in value.ints()[1:]:
            total = as_dim(function(total, item))
        return (
            None if total is None else [Value(_array([total], (1,) if site.node.attrs.get("keepdims", 1) else ()), "i")]
        )

    return rule


RULES: dict[str, Callable[[Site], Answer]] = {
    "Constant": _constant, "Shape": _shape, "Size": _size, "Cast": _cast, "Identity": _moved(lambda _, items: items),
    **{op: _binary(op) for op in ("Add", "Sub", "Mul", "Div")}, "Mod": _mod,
    "Max": _extreme(sympy.Max), "Min": _extreme(sympy.Min),
    **{op: _compare(op) for op in _COMPARE}, "Equal": lambda site: _zip(site, _equal, "b"),
    "Not": _each(lambda _, item: not item), "Neg": _each(lambda _, item: -item), "Floor": _each(_floor_item),
    "Ceil": _each(_ceil_item),
    "Gather": _moved(_gather), "Slice": _moved(_slice), "Concat": _concat, "Split": _split,
    "Reshape": _moved(_reshaped), "Squeeze": _moved(_reshaped), "Unsqueeze": _moved(_reshaped),
    "Flatten": _moved(_reshaped),
    "Transpose": _moved(lambda site, items: items.transpose(site.node.attrs.get("perm"))),
    "ConstantOfShape": _filled, "Expand": _moved(_expand), "Where": _where, "Range": _range,
    "ReduceProd": _reduce(lambda a, b: a * b), "ReduceSum": _reduce(lambda a, b: a + b),
}  # fmt: skip
