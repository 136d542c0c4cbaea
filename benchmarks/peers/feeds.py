"""Feeds as `benchmarks.accuracy_peers` writes them; needs numpy alone, for it is imported in other people's environments."""

from __future__ import annotations

import numpy as np


def read_feeds(path):
    """A list of dictionaries of arrays by input name."""
    arrays = np.load(path)
    parts = [(key.split("|", 1), arrays[key]) for key in arrays.files]
    count = 1 + max(int(index) for (index, _), _ in parts)
    return [{name: array for (index, name), array in parts if int(index) == wanted} for wanted in range(count)]
