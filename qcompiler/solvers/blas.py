"""How many threads numpy's matrix products take while layers are solved.

With more threads a product adds in another order, and the last bits of a sum decide about codes: the same model would become another file on a
machine with more cores. Matrices of the usual sizes are also faster on one thread than on several that wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

__all__ = ["LARGE", "steady_blas"]

LARGE = 2048
"""Products of a row from which all threads are worth it."""


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  scipy brings a library of its own, loaded only now

    return ThreadpoolController()


@contextmanager
def steady_blas(products: int) -> Iterator[None]:
    """One thread inside, unless rows have ``LARGE`` products or more."""
    if products >= LARGE:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield
