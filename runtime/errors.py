"""Everything the machine may refuse, in one place: one clear line each."""

from __future__ import annotations


class MachineError(Exception):
    """Base of every error of the runtime."""


class ProgramError(MachineError):
    """A program (a file, or built in memory) is truncated, of another version, tampered with, or unsafe to run."""


class FeedError(MachineError):
    """The inputs of a run do not fit the program: a name, dtype, rank, dimension, NaN, or an index out of range."""
