"""Shapes of operators' outputs from shapes and small values of their inputs, one function an operator.

A rule gets a `Site` and gives one shape per output; None (for an output, or for all) where it cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy

from qcompiler.shapes import windows
from qcompiler.shapes.dims import Dim, as_dim, ceil_div, maximum, minimum, quotient, same
from qcompiler.shapes.site import Answer, Shape, Site, product


def _broadcast_dim(a: Dim, b: Dim) -> Dim:
    if same(a, b) or (isinstance(b, int) and b == 1):
        return a
    if isinstance(a, int):
        return b if a == 1 else a
    return b if isinstance(b, int) else maximum(a, b)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """NumPy broadcasting; two different symbols give their maximum, as one of them must be 1."""
    result: tuple[Dim, ...] = ()
    for shape in shapes:
        if shape is None:
            return None
        rank = max(len(result), len(shape))
        left, right = (1,) * (rank - len(result)) + result, (1,) * (rank - len(shape)) + shape
        result = tuple(_broadcast_dim(a, b) for a, b in zip(left, right, strict=True))
    return result


def _same(site: Site) -> Answer:
    return [site.shape(0)]


def _elementwise(site: Site) -> Answer:
    return [broadcast([shape for index, shape in enumerate(site.shapes) if site.has(index)])]


def _matmul(site: Site) -> Answer:
    return [matmul_shape(site.shape(0), site.shape(1))]


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """Shape of ``a @ b`` as numpy.matmul defines it."""
    if not a or not b:
        return None
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    batch = broadcast([left[:-2], right[:-2]])
    if batch is None:
        return None
    return (*batch, *((left[-2],) if len(a) > 1 else ()), *((right[-1],) if len(b) > 1 else ()))


def _gemm(site: Site) -> Answer:
    a, b = site.shape(0), site.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    attrs = site.node.attrs
    return [(a[1] if attrs.get("transA", 0) else a[0], b[0] if attrs.get("transB", 0) else b[1])]


def _transpose(site: Site) -> Answer:
    x = site.shape(0)
    if x is None:
        return None
    return [tuple(x[axis] for axis in site.node.attrs.get("perm", range(len(x) - 1, -1, -1)))]


def reshape_target(x: tuple[Dim, ...], target: Sequence[Any], allow_zero: bool = False) -> Shape:
    """The output shape of a Reshape: 0 copies a dimension, -1 takes what is left."""
    dims = [
        x[index] if same(size, 0) and not allow_zero and index < len(x) else size for index, size in enumerate(target)
    ]
    unknown = [index for index, size in enumerate(dims) if same(size, -1)]
    if not unknown:
        return tuple(dims)
    rest = product(size for index, size in enumerate(dims) if index != unknown[0])
    if same(rest, 0):
        return None
    total = product(x)
    if isinstance(total, int) and isinstance(rest, int):
        dims[unknown[0]] = total // rest
        return tuple(dims)
    dims[unknown[0]] = quotient(total, rest)
    return tuple(dims)


def _reshape(site: Site) -> Answer:
    x, target = site.shape(0), site.ints(1)
    if x is None or target is None:
        return None
    return [reshape_target(x, target, bool(site.node.attrs.get("allowzero", 0)))]


def _flatten(site: Site) -> Answer:
    x = site.shape(0)
    if x is None:
        return None
    axis = site.node.attrs.get("axis", 1)
    axis += len(x) if axis < 0 else 0
    return [(product(x[:axis]), product(x[axis:]))]


def _squeeze(site: Site) -> Answer:
    x = site.shape(0)
    axes = None if x is None else site.axes(len(x))
    if x is None or axes is None:
        return None
    if not axes:
        axes = [index for index, size in enumerate(x) if same(size, 1)]
        if not all(isinstance(size, int) for size in x):
            return None  # a symbolic size may be 1
    return [tuple(size for index, size in enumerate(x) if index not in axes)]


def _unsqueeze(site: Site) -> Answer:
    x = site.shape(0)
    count = len(site.node.attrs.get("axes", site.ints(1) or []))
    axes = None if x is None else site.axes(len(x) + count)
    if x is None or not axes:
        return None
    sizes = iter(x)
    return [tuple(1 if index in axes else next(sizes) for index in range(len(x) + count))]


def _concat(site: Site) -> Answer:
    shapes = [shape for shape in site.shapes if shape is not None]
    if len(shapes) != len(site.shapes):
        return None
    axis = site.node.attrs["axis"] % len(shapes[0])
    total = as_dim(sum((sympy.sympify(shape[axis]) for shape in shapes), sympy.Integer(0)))
    return [(*shapes[0][:axis], total, *shapes[0][axis + 1 :])]


def _split(site: Site) -> Answer:
    x, count = site.shape(0), len(site.node.outputs)
    if x is None:
        return None
    axis = site.node.attrs.get("axis", 0) % len(x)
    sizes = site.node.attrs.get("split", site.ints(1))
    if sizes is None and site.has(1):
        return None
    if sizes is None:
        part = ceil_div(x[axis], site.node.attrs.get("num_outputs", count))
        sizes = [part] * (count - 1) + [as_dim(x[axis] - part * (count - 1))]
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def _clamp(position: Any, size: Dim, low: int, high: Dim) -> Dim:
    """A Slice bound inside [low, high], negative ones counted from the end."""
    if isinstance(position, int):
        if position >= 2**31 - 1:
            return high
        if position < 0 and isinstance(size, int):
            return min(max(position + size, low), int(high))
        if position < -(2**31):
            return low
        position = as_dim(position + size) if position < 0 else position
    elif sympy.sympify(position).is_negative:
        position = as_dim(position + size)
    return minimum(maximum(position, low), high)


def sliced_dim(size: Dim, start: Any, end: Any, step: int) -> Dim:
    """Number of elements of ``x[start:end:step]``."""
    if step > 0:
        length = as_dim(_clamp(end, size, 0, size) - sympy.sympify(_clamp(start, size, 0, size)))
        return maximum(0, ceil_div(length, step))
    last = as_dim(size - 1)
    length = as_dim(sympy.sympify(_clamp(start, size, 0, last)) - _clamp(end, size, -1, last))
    return maximum(0, ceil_div(length, -step))


def _slice(site: Site) -> Answer:
    x, arguments = site.shape(0), site.slice_arguments()
    if x is None or arguments is None:
        return None
    dims = list(x)
    for start, end, axis, step in zip(*arguments, strict=True):
        if not isinstance(step, int) or not isinstance(axis, int):
            return None
        dims[axis] = sliced_dim(x[axis], start, end, step)
    return [tuple(dims)]


def _gather(site: Site) -> Answer:
    x, indices = site.shape(0), site.shape(1)
    if x is None or indices is None:
        return None
    axis = site.node.attrs.get("axis", 0) % len(x)
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def _gather_nd(site: Site) -> Answer:
    x, indices, batch = site.shape(0), site.shape(1), site.node.attrs.get("batch_dims", 0)
    if x is None or not indices or not isinstance(indices[-1], int):
        return None
    return [(*indices[:-1], *x[batch + indices[-1] :])]


def _expand(site: Site) -> Answer:
    target = site.ints(1)
    return None if target is None else [broadcast([site.shape(0), tuple(target)])]


def _tile(site: Site) -> Answer:
    x, repeats = site.shape(0), site.ints(1)
    if x is None or repeats is None:
        return None
    return [tuple(as_dim(size * count) for size, count in zip(x, repeats, strict=True))]


def _pad(site: Site) -> Answer:
    x = site.shape(0)
    pads = site.ints(1) if "pads" not in site.node.attrs else site.node.attrs["pads"]
    axes = None if x is None else site.axes(len(x), 3)
    if x is None or pads is None or axes is None:
        return None
    axes = axes or list(range(len(x)))
    dims = list(x)
    for position, axis in enumerate(axes):
        dims[axis] = as_dim(x[axis] + pads[position] + pads[position + len(axes)])
    return [tuple(dims)]


def _reduce(site: Site) -> Answer:
    x = site.shape(0)
    axes = None if x is None else site.axes(len(x))
    if x is None or axes is None:
        return None
    if not axes and not site.node.attrs.get("noop_with_empty_axes", 0):
        axes = list(range(len(x)))
    keep = site.node.attrs.get("keepdims", 1)
    return [tuple(1 if index in axes else size for index, size in enumerate(x) if keep or index not in axes)]


def _arg(site: Site) -> Answer:
    x = site.shape(0)
    if x is None:
        return None
    axis, keep = site.node.attrs.get("axis", 0) % len(x), site.node.attrs.get("keepdims", 1)
    return [(*x[:axis], *((1,) if keep else ()), *x[axis + 1 :])]


def _topk(site: Site) -> Answer:
    x, k = site.shape(0), site.ints(1)
    if x is None or k is None:
        return None
    axis = site.node.attrs.get("axis", -1) % len(x)
    return [(*x[:axis], k[0], *x[axis + 1 :])] * 2


def _one_hot(site: Site) -> Answer:
    x, depth = site.shape(0), site.ints(1)
    if x is None or depth is None:
        return None
    axis = site.node.attrs.get("axis", -1) % (len(x) + 1)
    return [(*x[:axis], depth[0], *x[axis:])]


def _filled(site: Site) -> Answer:
    dims = site.ints(0)
    return None if dims is None else [tuple(dims)]


def _range(site: Site) -> Answer:
    start, limit, delta = (site.ints(index) for index in range(3))
    if start is None or limit is None or delta is None or not isinstance(delta[0], int) or delta[0] < 1:
        return None
    return [(maximum(0, ceil_div(as_dim(limit[0] - sympy.sympify(start[0])), delta[0])),)]


def _layer_norm(site: Site) -> Answer:
    x = site.shape(0)
    if x is None:
        return None
    axis = site.node.attrs.get("axis", -1) % len(x)
    statistics = (*x[:axis], *(1,) * (len(x) - axis))
    return [x, statistics, statistics]


def _attributed(site: Site) -> Answer:
    shape = site.node.attrs.get("shape")
    return None if shape is None else [tuple(shape)]


def _constant(site: Site) -> Answer:
    value = site.node.attrs.get("value")
    return None if value is None else [tuple(int(size) for size in value.shape)]


def _names(text: str) -> list[str]:
    return text.split()


_UNARY = _names(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh CumSum DequantizeLinear
    Dropout Elu Erf Exp EyeLike Floor Gelu HardSigmoid HardSwish Hardmax Identity InstanceNormalization
    GroupNormalization IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization Mish
    Neg Not QuantizeLinear RMSNormalization Reciprocal Relu Round ScatterElements ScatterND Scatter Selu
    Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Trilu
    BatchNormalization CastLike RandomNormalLike RandomUniformLike Bernoulli ReverseSequence
    """
)
_BINARY = _names(
    """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max
    Mean Min Mod Mul Or Pow PRelu Sub Sum Where Xor
    """
)
_REDUCE = _names("L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare")

RULES: dict[str, Callable[[Site], Answer]] = {
    **dict.fromkeys(_UNARY, _same), **dict.fromkeys(_BINARY, _elementwise),
    **{f"Reduce{kind}": _reduce for kind in _REDUCE},
    "ArgMax": _arg, "ArgMin": _arg, "Concat": _concat, "Constant": _constant, "ConstantOfShape": _filled,
    "Expand": _expand, "Flatten": _flatten,
    "DynamicQuantizeLinear": lambda site: [site.shape(0), (), ()],
    "Gather": _gather, "GatherElements": lambda site: [site.shape(1)], "GatherND": _gather_nd, "Gemm": _gemm,
    "LayerNormalization": _layer_norm, "MatMul": _matmul, "MatMulInteger": _matmul, "OneHot": _one_hot,
    "QLinearMatMul": lambda site: [matmul_shape(site.shape(0), site.shape(3))],
    "Pad": _pad, "RandomNormal": _attributed, "RandomUniform": _attributed, "Range": _range,
    "Reshape": _reshape, "Shape": lambda site: None if site.shape(0) is None else [(len(site.shape(0) or ()),)],
    "Size": lambda _: [()],
    "Slice": _slice, "Split": _split, "Squeeze": _squeeze, "Tile": _tile, "TopK": _topk, "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    **windows.RULES,
}  # fmt: skip
