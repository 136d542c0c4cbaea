"""The one door into compiled code: a single function, so that the kernels are compiled once whoever calls them."""

from __future__ import annotations

from ..cpu.jit import jit
from .border_loops import convert
from .interpreter import execute
from .shared_run import attend, run

RUN, ATTEND, EXECUTE, CONVERT = range(4)


@jit
def enter(what: int, a: int, b: int, c: int, d: int) -> int:
    """`shared_run.run` (a), `shared_run.attend` (a, b, c), `interpreter.execute` (a, b, c, d) or
    `border_loops.convert` (a, b).
    """
    if what == RUN:
        return run(a)
    if what == ATTEND:
        return attend(a, b, c)
    if what == EXECUTE:
        return execute(a, b, c, d)
    return convert(a, b)
