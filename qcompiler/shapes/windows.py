"""Shapes of operators with windows or spatial axes: convolutions, pools, resizing, blocks, recurrent layers, einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from qcompiler.shapes.dims import Dim, as_dim, ceil_div, floor_div, minimum, scaled
from qcompiler.shapes.site import Answer, Site


def _pads(attrs: dict[str, Any], axis: int, rank: int) -> tuple[int, int]:
    pads = attrs.get("pads") or [0] * (2 * rank)
    return int(pads[axis]), int(pads[axis + rank])


def window_dim(size: Dim, attrs: dict[str, Any], axis: int, kernel: int, rank: int) -> Dim:
    """Output size of a convolution or pool along one spatial axis."""
    stride = int((attrs.get("strides") or [1] * rank)[axis])
    dilation = int((attrs.get("dilations") or [1] * rank)[axis])
    auto = attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return ceil_div(size, stride)
    before, after = (0, 0) if auto == "VALID" else _pads(attrs, axis, rank)
    span = as_dim(size + before + after - (dilation * (kernel - 1) + 1))
    if not attrs.get("ceil_mode", 0):
        return as_dim(floor_div(span, stride) + 1)
    count = as_dim(ceil_div(span, stride) + 1)
    return minimum(count, as_dim(ceil_div(as_dim(size + before), stride)))  # no window starts in the padding behind


def _spatial(x: tuple[Dim, ...], attrs: dict[str, Any], kernel: list[int]) -> tuple[Dim, ...]:
    return tuple(window_dim(size, attrs, axis, int(kernel[axis]), len(kernel)) for axis, size in enumerate(x[2:]))


def _conv(weight: int) -> Callable[[Site], Answer]:
    def rule(site: Site) -> Answer:
        x, w = site.shape(0), site.shape(weight)
        if x is None or w is None:
            return None
        kernel = site.node.attrs.get("kernel_shape") or list(w[2:])
        if not all(isinstance(size, int) for size in kernel):
            return None
        return [(x[0], w[0], *_spatial(x, site.node.attrs, kernel))]

    return rule


def _conv_transpose(site: Site) -> Answer:
    x, w, attrs = site.shape(0), site.shape(1), site.node.attrs
    if x is None or w is None or not all(isinstance(size, int) for size in w):
        return None
    rank = len(x) - 2
    kernel = attrs.get("kernel_shape") or list(w[2:])
    strides, dilations = attrs.get("strides") or [1] * rank, attrs.get("dilations") or [1] * rank
    extra, given = attrs.get("output_padding") or [0] * rank, attrs.get("output_shape")
    same = attrs.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    dims: list[Dim] = []
    for axis in range(rank):
        if given:
            dims.append(int(given[-rank:][axis]))
            continue
        grown = as_dim(x[axis + 2] * strides[axis])
        rest = -strides[axis] + extra[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - sum(_pads(attrs, axis, rank))
        dims.append(grown if same else as_dim(grown + rest))
    return [(x[0], as_dim(w[1] * attrs.get("group", 1)), *dims)]


def _pool(site: Site) -> Answer:
    x = site.shape(0)
    if x is None:
        return None
    shape = (*x[:2], *_spatial(x, site.node.attrs, site.node.attrs["kernel_shape"]))
    return [shape, shape]


def _global_pool(site: Site) -> Answer:
    x = site.shape(0)
    return None if x is None else [(*x[:2], *(1,) * (len(x) - 2))]


def _depth_to_space(site: Site) -> Answer:
    x, block = site.shape(0), site.node.attrs["blocksize"]
    return None if x is None else [(x[0], floor_div(x[1], block**2), *(as_dim(size * block) for size in x[2:]))]


def _space_to_depth(site: Site) -> Answer:
    x, block = site.shape(0), site.node.attrs["blocksize"]
    return None if x is None else [(x[0], as_dim(x[1] * block**2), *(floor_div(size, block) for size in x[2:]))]


def _scaled_dim(size: Dim, factor: Any) -> Dim | None:
    """``floor(size * scale)`` as onnxruntime computes it, in float32."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(float(factor))))
    return (
        scaled(size, sympy.Rational(factor)) if int(factor.q) & (int(factor.q) - 1) == 0 and factor.q < 2**8 else None
    )


def _resize(site: Site) -> Answer:
    x, attrs = site.shape(0), site.node.attrs
    if x is None or attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = [axis % len(x) for axis in attrs.get("axes", range(len(x)))]
    sizes = site.ints(3) if site.has(3) else None
    factors = site.values[2] if site.has(2) else None
    dims: list[Any] = list(x)
    if sizes:
        for axis, size in zip(axes, sizes, strict=True):
            dims[axis] = size
        return [tuple(dims)]
    if factors is None or not factors.ints() or not factors.is_known:
        return None
    for axis, factor in zip(axes, factors.ints(), strict=True):
        dims[axis] = _scaled_dim(x[axis], factor)
    return None if any(size is None for size in dims) else [tuple(dims)]


def _recurrent(site: Site) -> Answer:
    x, r = site.shape(0), site.shape(2)
    if x is None or r is None:
        return None
    hidden = r[2]
    directions = 2 if site.node.attrs.get("direction", "forward") == "bidirectional" else 1
    if site.node.attrs.get("layout", 0):
        return [(x[0], x[1], directions, hidden), *[(x[0], directions, hidden)] * 2]
    return [(x[0], directions, x[1], hidden), *[(directions, x[1], hidden)] * 2]


def _resized_by_tables(site: Site) -> Answer:
    """The machine's linear resizing: a table of places for the height and one for the width."""
    x, height, width = site.shape(0), site.shape(1), site.shape(4)
    return [(*x[:2], height[0], width[0])] if x and height and width else None


def _one_direction(site: Site) -> Answer:
    """The machine's: x [steps, batch, inputs] -> y [steps, batch, hidden] and states [batch, hidden]."""
    x, hidden = site.shape(0), int(site.node.attrs["hidden_size"])
    return None if x is None else [(*x[:2], hidden), (x[1], hidden), (x[1], hidden)]


def _einsum(site: Site) -> Answer:
    equation = site.node.attrs["equation"].replace(" ", "")
    if "." in equation:
        return None
    left, arrow, right = equation.partition("->")
    sizes: dict[str, Dim] = {}
    for term, shape in zip(left.split(","), site.shapes, strict=True):
        if shape is None or len(shape) != len(term):
            return None
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    letters = left.replace(",", "")
    result = right if arrow else "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return [tuple(sizes[letter] for letter in result)]


def _grid_sample(site: Site) -> Answer:
    x, grid = site.shape(0), site.shape(1)
    return None if x is None or grid is None else [(*x[:2], *grid[1:-1])]


RULES: dict[str, Callable[[Site], Answer]] = {
    "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3), "ConvTranspose": _conv_transpose,
    "AveragePool": _pool, "MaxPool": _pool, "LpPool": _pool,
    "GlobalAveragePool": _global_pool, "GlobalMaxPool": _global_pool, "GlobalLpPool": _global_pool,
    "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth, "Resize": _resize,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent), "Recurrent": _one_direction,
    "ResizeLinear": _resized_by_tables, "Einsum": _einsum,
    "GridSample": _grid_sample,
}  # fmt: skip
