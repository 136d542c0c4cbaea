"""Instruction sets that kernels are written for."""

from __future__ import annotations

from enum import IntEnum

from ..errors import MachineError
from .features import cpu_features

LANES = 16
"""Columns in a panel of packed weights."""

TABLE_BYTES = 64
"""Levels in front of a panel of codes, repeated."""


class Isa(IntEnum):
    """Instruction sets with a kernel of their own; PLAIN is the reference without packing."""

    PLAIN = 0
    PORTABLE = 1
    AVX2 = 2
    AVX_VNNI = 3
    AVX512_VNNI = 4

    @property
    def needs(self) -> frozenset[str]:
        """CPU features without which the kernels cannot run."""
        return {
            Isa.AVX2: frozenset({"avx2"}), Isa.AVX_VNNI: frozenset({"avx2", "avxvnni"}),
            Isa.AVX512_VNNI: frozenset({"avx512f", "avx512bw", "avx512vl", "avx512vnni"}),
        }.get(self, frozenset())

    @property
    def supported(self) -> bool:
        """True when this CPU can run it."""
        return self.needs <= cpu_features()

    @property
    def has_quads(self) -> bool:
        """uint8 activations are multiplied as they are, four at a time."""
        return self in (Isa.AVX_VNNI, Isa.AVX512_VNNI)

    @property
    def has_byte_pairs(self) -> bool:
        """uint8 activations are multiplied as they are with small weights, two at a time, in int16."""
        return self is Isa.AVX2

    @property
    def has_lookup(self) -> bool:
        """Tiles look up levels by one instruction, and are faster for it than those that read twice as many bytes."""
        return self >= Isa.AVX2


def coded_panels(isa: int, left: int) -> int:
    """Panels of codes that lie together when ``left`` remain; the kernels compile this function."""
    return 4 if isa == Isa.AVX512_VNNI and left >= 4 else 1


def best_isa() -> Isa:
    """The fastest instruction set of this CPU."""
    return max(isa for isa in Isa if isa.supported)


def chosen_isa(isa: Isa | str | None) -> Isa:
    """An instruction set by itself or its name; None: the fastest.

    Raises:
        MachineError: there is no such set, or this CPU lacks it.
    """
    if isinstance(isa, str):
        names = [item.name.lower() for item in Isa]
        if isa.lower() not in names:
            raise MachineError(f"there is no instruction set '{isa}'; choose {', '.join(names)}")
        isa = Isa[isa.upper()]
    chosen = best_isa() if isa is None else isa
    if not chosen.supported:
        raise MachineError(f"this CPU has no {chosen.name.lower()}; the best it can do is {best_isa().name.lower()}")
    return chosen
