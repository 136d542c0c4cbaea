"""The one door into compiled code: a single function, so that the kernels are compiled once whoever calls them."""

from __future__ import annotations

from .conversion import convert
from .jit import jit
from .machine import execute
from .sharing import attend, run

RUN, ATTEND, EXECUTE, CONVERT = range(4)


@jit
def enter(what: int, a: int, b: int, c: int, d: int) -> int:
    """`sharing.run` (a), `sharing.attend` (a, b, c), `machine.execute` (a, b, c, d) or `conversion.convert` (a, b)."""
    if what == RUN:
        return run(a)
    if what == ATTEND:
        return attend(a, b, c)
    if what == EXECUTE:
        return execute(a, b, c, d)
    return convert(a, b)
