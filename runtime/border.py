"""The only place with floats: quantizing inputs and dequantizing outputs, as ONNX defines it, and checking feeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FeedError
from .program import Port, Program

Array = NDArray[Any]


def solve_dimensions(program: Program, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Sizes of the symbolic dimensions from the feeds' shapes.

    Raises:
        FeedError: a feed is missing, unknown, or of the wrong dtype, rank or size.
    """
    known = {port.name for port in program.inputs}
    for name in feeds:
        if name not in known:
            raise FeedError(f"unknown input '{name}'; the program has {sorted(known)}")
    dims: dict[str, int] = {}
    for port in program.inputs:
        if port.name not in feeds:
            raise FeedError(f"input '{port.name}' is missing; it is {port.dtype}{list(port.shape)}")
        _check_feed(feeds[port.name], port)
        _match_shape(feeds[port.name], port, dims)
    for port in program.inputs:
        expected = program.shape(port.shape, dims)
        if feeds[port.name].shape != expected:
            raise FeedError(f"input '{port.name}' has the shape {feeds[port.name].shape}; with {dims} it must be {expected}")
    return dims


def _check_feed(array: Array, port: Port) -> None:
    if array.dtype != np.dtype(port.dtype):
        raise FeedError(f"input '{port.name}' is {array.dtype}; it must be {port.dtype}")
    if array.ndim != len(port.shape):
        raise FeedError(f"input '{port.name}' has {array.ndim} dimensions; it must have {len(port.shape)}: {list(port.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FeedError(f"input '{port.name}' holds NaN or infinity")


def _match_shape(array: Array, port: Port, dims: dict[str, int]) -> None:
    for axis, (size, expected) in enumerate(zip(array.shape, port.shape, strict=True)):
        if isinstance(expected, str):
            if dims.setdefault(expected, size) != size:
                raise FeedError(f"input '{port.name}', axis {axis}: '{expected}' is {size}, but another input says {dims[expected]}")
            if size < 1:
                raise FeedError(f"input '{port.name}' is empty along axis {axis}")
        elif isinstance(expected, int) and size != expected:
            raise FeedError(f"input '{port.name}' has the shape {array.shape}; axis {axis} must be {expected}")


def load_input(array: Array, port: Port, target: Array) -> None:
    """Quantize ``array`` into the flat code buffer ``target``, or copy it when it is a plain integer."""
    if port.scale is None:
        target[...] = array.reshape(-1)
        return
    limits = np.iinfo(target.dtype)
    with np.errstate(over="ignore"):  # an infinite quotient saturates like any other
        codes = np.rint(array.reshape(-1).astype(np.float32) / np.float32(port.scale))
    codes += np.float32(port.zero_point)
    np.clip(codes, np.float32(limits.min), np.float32(limits.max), out=codes)
    target[...] = codes.astype(target.dtype)


def dequantize(codes: Array, port: Port) -> Array:
    """What the caller sees of an output: ``scale * (code - zero_point)`` in float32, or a copy of a plain integer."""
    if port.scale is None:
        return codes.astype(port.dtype)
    real = (codes.astype(np.int32) - np.int32(port.zero_point)).astype(np.float32) * np.float32(port.scale)
    return real.astype(port.dtype)
