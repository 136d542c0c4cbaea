"""Whether a program's next run asks helpers, decided by how long its runs have taken.

Threads help only while a core is idle and the work is worth dividing; that depends on the program, the machine and what
else runs there now. So it is measured: an estimate of the time of a run is kept for either way, the faster way is
taken, and the other is tried now and then, ever more rarely while that changes nothing. The results are the same either
way.
"""

from __future__ import annotations

_MEMORY = 8
"""Number of past runs that an estimate averages over."""

_TRIAL = 4
"""Consecutive runs that try the other way."""

_SOONEST, _LATEST = 32, 4096
"""Least and largest number of runs between trials."""


class _Estimate:
    """A mean of the last times, the older the less."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0

    def add(self, time: int) -> None:
        self.count = min(self.count + 1, _MEMORY)
        self.mean += (time - self.mean) / self.count


class Pace:
    """Chooses between running alone and asking helpers; not safe to share between threads."""

    def __init__(self) -> None:
        self._alone, self._shared = _Estimate(), _Estimate()
        self._shares, self._tries = True, False
        self._left, self._pause = 1 + _TRIAL, _SOONEST
        self._has_begun = False

    def asks(self) -> bool:
        """Whether the next run should ask helpers."""
        return self._shares is not self._tries

    def took(self, asked: bool, nanoseconds: int) -> None:
        """Learn from a run."""
        if asked and not self._has_begun:  # threads start now
            self._has_begun = True
            return
        (self._shared if asked else self._alone).add(nanoseconds)
        self._left -= 1
        if self._tries:
            if self._left <= 0:
                self._end_trial()
        elif self._left <= 0 or self._is_slower():
            self._begin_trial()

    def _is_slower(self) -> bool:
        """Whether the way that is taken has become slower than the other was."""
        alone, shared = self._alone, self._shared
        return alone.count > 0 < shared.count and (shared.mean < alone.mean) is not self._shares

    def _begin_trial(self) -> None:
        self._tries, self._left = True, _TRIAL
        if self._shares:
            self._alone = _Estimate()
        else:
            self._shared = _Estimate()

    def _end_trial(self) -> None:
        self._tries = False
        if self._is_slower():
            self._shares, self._pause = not self._shares, _SOONEST
        else:
            self._pause = min(2 * self._pause, _LATEST)
        self._left = self._pause
