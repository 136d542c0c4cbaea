"""Options of the test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--c-target armv7``; ``--graphs 1000``: so many random networks of each kind, where the suite takes a few."""
    parser.addoption(
        "--c-target",
        default="host",
        help="where the kernels' cases run as C: host, or emulated: aarch64, armv7, cortex-m4",
    )
    parser.addoption(
        "--graphs", type=int, default=None, help="random networks of each kind that exact passes are tried on"
    )
