"""Ratios of energies as people read them."""

from __future__ import annotations

import math

__all__ = ["SAME_DB", "decibels"]

SAME_DB = 200.0
"""SQNR that stands for "no difference at all"."""


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within ±`SAME_DB`; noise that is not finite counts as the worst."""
    if not math.isfinite(noise):
        return -SAME_DB
    if noise <= 0.0:
        return SAME_DB
    if signal <= 0.0:
        return -SAME_DB
    return max(-SAME_DB, min(SAME_DB, 10.0 * math.log10(signal / noise)))
