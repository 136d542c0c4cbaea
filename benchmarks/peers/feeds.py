"""Feeds as `benchmarks.accuracy_peers` writes them; needs numpy alone, for it is imported in other people's environments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_feeds(path: str) -> list[dict[str, NDArray[Any]]]:
    """A list of dictionaries of arrays by input name."""
    arrays = np.load(path)
    parts = [(key.split("|", 1), arrays[key]) for key in arrays.files]
    count = 1 + max(int(index) for (index, _), _ in parts)
    return [{name: array for (index, name), array in parts if int(index) == wanted} for wanted in range(count)]
