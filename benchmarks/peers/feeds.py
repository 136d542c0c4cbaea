"""Feeds and answers as `benchmarks.accuracy_peers` exchanges them; needs numpy alone, for it is imported in other
people's environments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_feeds(path: str) -> list[dict[str, NDArray[Any]]]:
    """A list of dictionaries of arrays by input name."""
    arrays = np.load(path)
    parts = [(key.split("|", 1), arrays[key]) for key in arrays.files]
    count = 1 + max(int(index) for (index, _), _ in parts)
    return [{name: array for (index, name), array in parts if int(index) == wanted} for wanted in range(count)]


def write_answers(path: str, session: Any, test: str, seconds: float, model: Path | None = None) -> None:
    """Run a session on every test feed; the first outputs by index, ``seconds``, and ``bytes`` of the quantized model
    where it is a file.
    """
    found = {str(index): session.run(None, feed)[0] for index, feed in enumerate(read_feeds(test))}
    size = {} if model is None else {"bytes": sum(part.stat().st_size for part in model.parent.glob(f"{model.name}*"))}
    np.savez(path, seconds=seconds, **size, **found)
