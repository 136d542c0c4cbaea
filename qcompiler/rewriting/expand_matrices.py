"""Linear maps along axes of known size as matrix products: Fourier transforms, and resizing that the machine lacks.

DFT     X[k] = sum_n x[n] exp(∓2πi k n / N):   real and imaginary parts side by side, times a matrix of cos and sin
STFT    a convolution with the windowed rows of that matrix
Resize  cubic, antialiased, cropped, or linear over other axes than an image's: a matrix for each axis, whose rows
are what onnxruntime makes of unit vectors
"""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of
from qcompiler.graph.runner import Runner
from qcompiler.grids import byte_parts
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

MOST_ENTRIES = 1 << 20
"""Most entries of a matrix."""

_CROP = "tf_crop_and_resize"


def _waves(length: int, rows: int, wanted: int, sign: float) -> NDArray[np.float64]:
    """exp(sign 2πi k n / length) as (cos, sin): [rows n, wanted k, 2]."""
    angles = sign * 2 * pi / length * (np.outer(np.arange(rows), np.arange(wanted)) % length)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _spectrum_matrix(length: int, rows: int, parts: int, wanted: int, *, inverse: bool) -> NDArray[np.float64]:
    """[rows * parts, wanted * 2], from real (1) or real and imaginary (2) parts of each element."""
    waves = _waves(length, rows, wanted, 1.0 if inverse else -1.0) / (length if inverse else 1)
    real = waves[:, None]
    both = np.concatenate([real, np.stack([-waves[..., 1], waves[..., 0]], axis=-1)[:, None]], axis=1)
    return np.asarray((real if parts == 1 else both).reshape(rows * parts, wanted * 2))


def _dft(w: Writer, node: Node) -> Results:
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    lengths, place = given(node, 1), given(node, 2)
    number, named = constant_of(lengths), constant_of(place)
    if rank is None or (lengths is not None and number is None) or (place is not None and named is None):
        return "its length and axis are not constant"
    axis = int(node.attrs.get("axis", -2) if named is None else named.reshape(-1)[0]) % rank
    size, parts = x.shape[axis], x.shape[-1]
    if not isinstance(size, int | np.integer) or parts not in (1, 2):
        return "the size along its axis is not known; fix it: --dim NAME=SIZE"
    length = int(size if number is None else number.reshape(-1)[0])
    wanted = length // 2 + 1 if node.attrs.get("onesided", 0) else length
    if node.attrs.get("inverse", 0) and node.attrs.get("onesided", 0):
        return "its inverse of one side has no standard form"
    rows = min(int(size), length)
    if rows * wanted * 4 > MOST_ENTRIES:
        return f"its matrix would have more than {MOST_ENTRIES} entries"
    turn = [other for other in range(rank - 1) if other != axis] + [axis, rank - 1]
    matrix = _spectrum_matrix(length, rows, int(parts), wanted, inverse=bool(node.attrs.get("inverse", 0)))
    matrix = np.concatenate([matrix, np.zeros(((int(size) - rows) * int(parts), wanted * 2))])
    flat = w.op("Reshape", w.op("Transpose", x, perm=turn), w.int64("flat", [0] * (rank - 2) + [int(size) * parts]))
    y = w.op("MatMul", flat, w.constant("waves", matrix))
    y = w.op("Reshape", y, w.int64("parts", [0] * (rank - 2) + [wanted, 2]))
    return [w.op("Transpose", y, perm=[turn.index(other) for other in range(rank)])]


def _stft(w: Writer, node: Node) -> Results:
    x, step, window, size = node.inputs[0], constant_of(node.inputs[1]), given(node, 2), given(node, 3)
    shape, length = constant_of(window), constant_of(size)
    if step is None or (window is not None and shape is None) or (size is not None and length is None):
        return "its step, window or length is not constant"
    if shape is None and length is None:
        return "it has neither a window nor a length"
    if rank_of(x) == 3 and x.shape[-1] != 1:
        return "its signal is complex"
    frame = int(shape.size if length is None and shape is not None else np.reshape(length, -1)[0])  # type: ignore[arg-type]
    wanted = frame // 2 + 1 if node.attrs.get("onesided", 1) else frame
    taps = _waves(frame, frame, wanted, -1.0) * (1.0 if shape is None else shape.reshape(-1, 1, 1))
    kernel = np.transpose(taps, (2, 1, 0)).reshape(2 * wanted, 1, frame)
    signal = w.op("Unsqueeze", x, w.int64("channel", [1])) if rank_of(x) == 2 else w.op("Transpose", x, perm=[0, 2, 1])
    how: dict[str, Any] = {"kernel_shape": [frame], "strides": [int(step.reshape(-1)[0])]}
    # a loud tone must not show between the lines of others
    coarse, fine = (w.op("Conv", signal, w.constant("waves", part), **how) for part in byte_parts(kernel))
    y = w.op("Reshape", w.op("Add", coarse, fine), w.int64("parts", [0, 2, wanted, -1]))
    return [w.op("Transpose", y, perm=[0, 3, 2, 1])]


def _resize(w: Writer, node: Node) -> Results:
    x, y = node.inputs[0], node.outputs[0]
    rank, mode = rank_of(x), node.attrs.get("mode", "nearest")
    special = int(node.attrs.get("antialias", 0)) or node.attrs.get("coordinate_transformation_mode") == _CROP
    if rank is None or mode == "nearest" or (mode == "linear" and rank == 4 and not special):
        return None
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch" or y.shape is None:
        return "it keeps the ratio of the sides, or its sizes are not known"
    if any(given(node, index) is not None and constant_of(given(node, index)) is None for index in (1, 2)):
        return "its region or its scales are computed while the model runs"
    if node.attrs.get("extrapolation_value", 0.0) and special:
        return "its extrapolation_value is not 0"
    changed = [axis for axis in range(rank) if x.shape[axis] != y.shape[axis] or special]
    sizes = [(x.shape[axis], y.shape[axis]) for axis in changed]
    if any(not isinstance(size, int | np.integer) for pair in sizes for size in pair):
        return f"mode '{mode}' of a symbolic size has no integer form; fix it: --dim NAME=SIZE"
    if any(before * after > MOST_ENTRIES for before, after in sizes):
        return f"its matrix would have more than {MOST_ENTRIES} entries"
    scales, region = (constant_of(given(node, index)) for index in (2, 1))
    result: Tensor = x
    for axis, (before, after) in zip(changed, sizes, strict=True):
        matrix = _map_of(node, (axis, rank), (int(before), int(after)), scales, region)
        if not np.array_equal(matrix, np.eye(before, after)):
            result = w.along(result, w.constant("map", matrix), axis, rank)
    return [result]


def _map_of(
    node: Node, place: tuple[int, int], sizes: tuple[int, int], scales: NDArray[Any] | None, region: NDArray[Any] | None
) -> NDArray[np.float32]:
    """[before, after] of one axis: what becomes of unit vectors."""
    axis, rank = place
    axes = [int(each) % rank for each in node.attrs.get("axes", range(rank))]
    attrs = {key: value for key, value in node.attrs.items() if key not in ("axes", "keep_aspect_ratio_policy")}
    roi = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    if region is not None and region.size == 2 * len(axes) and axis in axes:
        roi[3], roi[7] = region[axes.index(axis)], region[axes.index(axis) + len(axes)]
    known = scales is not None and scales.size == len(axes) and axis in axes
    factor = float(scales[axes.index(axis)]) if known and scales is not None else None
    how: list[Tensor] = [gs.Variable.empty(), gs.Constant("sizes", np.array([1, 1, sizes[0], sizes[1]], np.int64))]
    if factor is not None:
        how = [gs.Constant("scales", np.array([1, 1, 1, factor], np.float32))]
    given_roi = gs.Constant("roi", roi) if attrs.get("coordinate_transformation_mode") == _CROP else gs.Variable.empty()
    x, y = gs.Variable("x", np.float32, [1, 1, sizes[0], sizes[0]]), gs.Variable("y", np.float32)
    one = Node("Resize", "resize", attrs, [x, given_roi, *how], [y])
    feed = {"x": np.eye(sizes[0], dtype=np.float32)[None, None]}
    answer = Runner(Graph([one], [x], [y], opset=19), fusions=False).run(feed)["y"]
    return np.asarray(answer.reshape(sizes[0], -1))


def _size(w: Writer, node: Node) -> Results:
    return [w.ints("ReduceProd", w.ints("Shape", node.inputs[0]), keepdims=0)]


MATRICES: dict[str, Rule] = {"DFT": _dft, "STFT": _stft, "Resize": _resize, "Size": _size}
