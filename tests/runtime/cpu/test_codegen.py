"""The machine is compiled to the same code whatever else of Numba a process has used before."""

from __future__ import annotations

import re
import subprocess
import sys

_PROGRAM = """
import sys
import numba
import numpy as np

if sys.argv[1:]:
    numba.njit(lambda a: a[0] + a.sum())(np.ones(3))  # registers what Numba knows of tuples, arrays and floats
from qcompiler.runtime.cpu.jit import jit, linked

@jit
def pair(a):
    return a + 1, a > 2

@jit
def product(a):
    both = pair(a)
    return both[0] * 5 if both[1] else 0

print(linked(product))
"""


def instructions(*arguments: str) -> str:
    """What the program prints, without names and addresses: both count what a process has compiled before."""
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"[@%][\w.]+|\d{9,}", "", text)


def test_other_numba_code_in_the_process_changes_nothing() -> None:
    alone = instructions()
    assert "mul" in alone
    assert instructions("first") == alone
