"""Grids and fixed-point factors of the integer graph.

Inside the integer graph every activation is u8 or i16 with one scale: int8 codes of foreign models are shifted by 128,
uint16 ones by 32768 (``CodeGrid.from_spec``). A code and its shifted form stand for the same real number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import QuantSpec, Tensor

Array = NDArray[Any]

_SHIFT = {"uint8": 0, "int8": 128, "int16": 0, "uint16": -32768}
_NORMAL = {"uint8": "uint8", "int8": "uint8", "int16": "int16", "uint16": "int16"}
_FACTOR_BITS = 31
_CHUNK = 1 << 20
"""Elements quantized at a time."""


@dataclass(frozen=True)
class CodeGrid:
    """``real = scale * (code - zero_point)`` with codes of type uint8 or int16."""

    scale: float
    zero_point: int
    dtype: str

    @staticmethod
    def from_spec(spec: QuantSpec) -> CodeGrid:
        """The grid of an activation's Q/DQ pair.

        Raises:
            UnsupportedError: the grid is per channel, or its codes are neither 8 nor 16 bits wide.
        """
        if spec.axis is not None and spec.scale.size > 1:
            raise UnsupportedError("its activation grid is per channel; use one scale for the tensor")
        kind = spec.dtype.name
        if kind not in _NORMAL:
            raise UnsupportedError(f"its activation codes are {kind}; 8 and 16 bit integers are supported")
        return CodeGrid(float(spec.scale.reshape(())), int(spec.zero_point.reshape(())) + _SHIFT[kind], _NORMAL[kind])

    @staticmethod
    def covering(low: float, high: float) -> CodeGrid:
        """A symmetric int16 grid that holds every value of [low, high]."""
        largest = max(abs(low), abs(high))
        if not math.isfinite(largest):
            raise UnsupportedError("its range is not finite; put a QuantizeLinear/DequantizeLinear pair behind it")
        scale = float(np.float32(largest / 32767.0)) if largest > 0.0 else 1.0
        return CodeGrid(scale, 0, "int16")

    @property
    def qmin(self) -> int:
        """Smallest code of the type."""
        return int(np.iinfo(self.dtype).min)

    @property
    def qmax(self) -> int:
        """Largest code of the type."""
        return int(np.iinfo(self.dtype).max)

    def code(self, real: float) -> int:
        """The code of one real number, as QuantizeLinear gives it; infinities saturate."""
        if math.isinf(real):
            return self.qmax if real > 0 else self.qmin
        return int(self.quantize(np.float32(real).reshape(1))[0])

    def quantize(self, real: Array) -> Array:
        """Codes of an array: half to even, saturating; NaN becomes the code of 0."""
        values = np.asarray(real, np.float32)
        codes = np.empty(values.shape, self.dtype)
        flat, target = values.reshape(-1), codes.reshape(-1)
        for start in range(0, flat.size, _CHUNK):  # the steps take eight bytes each
            target[start : start + _CHUNK] = self._codes(flat[start : start + _CHUNK])
        return codes

    def _codes(self, real: Array) -> Array:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            steps = np.rint(real / np.float32(self.scale)).astype(np.float64)
        steps = np.nan_to_num(steps, nan=0.0, posinf=1e9, neginf=-1e9)
        codes: Array = np.clip(steps + self.zero_point, self.qmin, self.qmax).astype(self.dtype)
        return codes

    def dequantize(self, codes: Array) -> Array:
        """float32 values of codes."""
        result: Array = (np.asarray(codes, np.int64) - self.zero_point).astype(np.float32) * np.float32(self.scale)
        return result

    def all_codes(self) -> Array:
        """Every code in ascending order: 256 or 65536."""
        return np.arange(self.qmin, self.qmax + 1).astype(self.dtype)


@dataclass(frozen=True)
class Coded:
    """A code tensor of the integer graph, its grid, and the smallest and largest code that can occur in it.

    ``row_sum`` is known of probabilities: along the last axis, codes that were not rounded would be at least 0 and sum
    to at most that.
    """

    tensor: Tensor
    grid: CodeGrid
    lo: int
    hi: int
    row_sum: int | None = None

    @property
    def magnitude(self) -> int:
        """Largest ``|code - zero_point|``."""
        return max(abs(self.lo - self.grid.zero_point), abs(self.hi - self.grid.zero_point))

    def row_magnitude(self, depth: int) -> int:
        """The most that ``|code - zero_point|`` can sum to over ``depth`` elements of the last axis."""
        largest = depth * self.magnitude
        # each code is off by at most 1/2
        return largest if self.row_sum is None else min(largest, self.row_sum + (depth + 1) // 2)

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest real value."""
        return self.grid.scale * (self.lo - self.grid.zero_point), self.grid.scale * (self.hi - self.grid.zero_point)


@dataclass(frozen=True)
class Target:
    """What a value is wanted as: the grid, the clamp on its codes (a fused Relu or Clip), a name for the tensor."""

    grid: CodeGrid
    lo: int
    hi: int
    name: str

    @staticmethod
    def whole(grid: CodeGrid, name: str) -> Target:
        """No clamp beyond the range of the code type."""
        return Target(grid, grid.qmin, grid.qmax, name)

    def clamped(self, low: float, high: float) -> Target:
        """The same target behind a clamp to the real interval [low, high]."""
        lo = min(max(self.lo, self.grid.code(low)), self.hi)
        hi = max(min(self.hi, self.grid.code(high)), lo)
        return Target(self.grid, lo, hi, self.name)

    @property
    def key(self) -> tuple[CodeGrid, int, int]:
        """What decides the codes: all but the name."""
        return self.grid, self.lo, self.hi

    def attributes(self) -> dict[str, int | str]:
        """The attributes with which an integer operator describes its output."""
        return {"y_zp": self.grid.zero_point, "lo": self.lo, "hi": self.hi, "dtype": self.grid.dtype}


def common_factors(factors: list[float], bits: int = _FACTOR_BITS, most: int = 40) -> tuple[list[int], int]:
    """Integers m_i and one n (at most ``most``) with ``factor_i ~ m_i / 2^n`` and every ``|m_i| < 2^bits``.

    Raises:
        UnsupportedError: a factor of 2^(bits-1) and more has no such form.
    """
    largest = max((abs(f) for f in factors), default=0.0)
    if largest == 0.0:
        return [0] * len(factors), 1
    n = min(bits - math.frexp(largest)[1], most)
    if round(largest * 2.0**n) >= 2**bits:
        n -= 1
    if n < 1:
        raise UnsupportedError(
            f"a scale ratio of {largest:.3g} is too large for a fixed-point factor; its grids do not fit each other"
        )
    return [round(f * 2.0**n) for f in factors], n
