"""The limits that kernels are compared with."""

from __future__ import annotations

import pytest

from benchmarks.core_limits import CHAINS, ImpossibleError, peak_loop, possible
from benchmarks.kernels import flavours


def test_the_loop_of_the_peak_multiplies_in_every_round() -> None:
    for flavour in flavours().values():
        run = peak_loop(flavour)
        assert [run(rounds, 3, 5) for rounds in (1, 7)] == [
            rounds * CHAINS * 3 * 5 + sum(range(3, 3 + CHAINS)) for rounds in (1, 7)
        ]
        code = next(iter(run.inspect_llvm().values()))
        start = code.index("asm sideeffect")
        assert code.count("asm sideeffect", start) >= CHAINS  # an operand of its own for each product


def test_a_rate_beyond_the_ports_is_refused() -> None:
    assert possible(100.0, 109.0) == 100.0
    with pytest.raises(ImpossibleError, match="822 GMAC/s"):
        possible(822.0, 109.0)
