"""SmoothQuant with divisors 2^k (pre-shifted exponent bias, Liu et al., "LLM-FP4", 2023): exact in float.

Every weight, bias and gain is multiplied by a power of two, so every product and every sum keeps its bits: the float
outputs are unchanged to the last one (as long as nothing leaves float32's range of exponents). The divisors are those
of `smooth-activations`, rounded in the exponent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.noise import RegionNoise
from .smooth_activations import SmoothActivations

Array = NDArray[Any]

LARGEST_SHIFT = 15
"""Exponents lie between this and its negative."""


def power_of_two(divisors: Array) -> Array:
    """The nearest powers of two, in the exponent."""
    return np.asarray(np.exp2(np.clip(np.rint(np.log2(divisors)), -LARGEST_SHIFT, LARGEST_SHIFT)))


@dataclass(frozen=True)
class Preshift(SmoothActivations):
    """Channels scaled by powers of two: bit-exact in float. Options as `SmoothActivations`."""

    name: ClassVar[str] = "preshift"

    def divisors(self, noise: RegionNoise) -> Iterator[Array]:
        """Those of `SmoothActivations`, as powers of two."""
        yield from (power_of_two(divisors) for divisors in super().divisors(noise))
