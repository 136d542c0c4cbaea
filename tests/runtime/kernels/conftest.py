"""Every instruction that these tests run is also run as C: some of each test's, together, when a file is through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.c_output.compiled import HAS_COMPILER, TARGETS, CaseInC, check_in_c
from tests.runtime import checked

EXAMPLES = (0, 1, 2, 5, 9, 14, 20)
"""Which runs of a test are taken: hypothesis begins with simple ones."""


@pytest.fixture(scope="module", autouse=True)
def recorded_cases(request: pytest.FixtureRequest) -> Iterator[list[CaseInC]]:
    """The programs that the tests of a file ran, which C then runs too."""
    cases: list[CaseInC] = []
    yield cases
    if cases:
        check_in_c(cases, TARGETS[request.config.getoption("--c-target")])


@pytest.fixture(autouse=True)
def _record(
    request: pytest.FixtureRequest, recorded_cases: list[CaseInC], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Keep some of the programs that a test runs."""
    if not HAS_COMPILER:
        yield
        return
    seen: Counter[str] = Counter()

    def keep(program: checked.Program, feeds: dict[str, checked.Array], outputs: dict[str, checked.Array]) -> None:
        seen[request.node.name] += 1
        if seen[request.node.name] - 1 in EXAMPLES:
            recorded_cases.append(CaseInC(program, feeds, outputs, request.node.name))

    monkeypatch.setattr(checked, "on_result", keep)
    yield
