"""Which way a program's runs go, by how long they took."""

from __future__ import annotations

from collections.abc import Callable

from qcompiler.runtime.run.pace import Pace


def asked(pace: Pace, runs: int, time_of: Callable[[bool], int]) -> list[bool]:
    """What so many runs did that took as long as ``time_of`` says."""
    choices = []
    for _ in range(runs):
        choices.append(pace.asks())
        pace.took(choices[-1], time_of(choices[-1]))
    return choices


def test_helpers_are_asked_while_that_is_faster() -> None:
    choices = asked(Pace(), 10_000, lambda shared: 600 if shared else 1000)
    assert choices[0]
    assert sum(choices) > 9900


def test_helpers_that_only_cost_are_hardly_asked() -> None:
    choices = asked(Pace(), 10_000, lambda shared: 1100 if shared else 1000)
    assert sum(choices) < 100
    assert any(choices[1000:])  # but now and then: the machine may be less busy


def test_a_machine_that_gets_busy_and_free_again() -> None:
    pace = Pace()
    asked(pace, 1000, lambda shared: 600 if shared else 1000)
    assert sum(asked(pace, 1000, lambda shared: 5000 if shared else 1000)) < 50
    assert sum(asked(pace, 3000, lambda shared: 600 if shared else 1000)) > 2000
    assert all(asked(pace, 50, lambda shared: 600 if shared else 1000)[-10:])


def test_the_first_shared_run_does_not_count() -> None:
    first = iter([1_000_000])
    choices = asked(Pace(), 200, lambda shared: next(first, 600) if shared else 1000)
    assert sum(choices) > 150
