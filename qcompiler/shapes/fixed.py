"""Symbolic sizes that the user fixes, or bounds: ``--dim batch=1``, ``--dim length=1..512``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from qcompiler.errors import DataError, OptionError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.origin import origin_of
from qcompiler.shapes.infer import annotate

__all__ = ["Sizes", "check_sizes", "fix_sizes", "parse_sizes"]

Sizes = Mapping[str, tuple[int, int]]
"""Smallest and largest size by the name of the symbol; a fixed size is both."""

_ITEM = re.compile(r"(?P<name>[^=]+)=(?P<low>\d+)(\.\.(?P<high>\d+))?")


def parse_sizes(texts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Sizes from ``name=size`` and ``name=smallest..largest``.

    Raises:
        OptionError: an item of another form, an empty range, or one name twice.
    """
    found: dict[str, tuple[int, int]] = {}
    for text in texts:
        match = _ITEM.fullmatch(text.strip())
        if match is None:
            raise OptionError(
                f"--dim {text}: write NAME=SIZE or NAME=SMALLEST..LARGEST, such as batch=1 or length=1..512"
            )
        low = int(match["low"])
        high = low if match["high"] is None else int(match["high"])
        if not 1 <= low <= high:
            raise OptionError(f"--dim {text}: sizes begin at 1, and the smallest comes first")
        if match["name"] in found:
            raise OptionError(f"--dim {text}: '{match['name']}' has a size already")
        found[match["name"]] = low, high
    return found


def fix_sizes(graph: Graph, sizes: Sizes) -> None:
    """Write the fixed sizes into ``graph``, wherever their symbols stand; a range leaves its symbol.

    Raises:
        OptionError: no input of the graph has a dimension of that name.
    """
    symbols = {size: None for tensor in graph.inputs for size in tensor.shape or () if isinstance(size, str)}
    unknown = next((name for name in sizes if name not in symbols), None)
    if unknown is not None:
        known = ", ".join(symbols) or "none: all of its sizes are numbers"
        raise OptionError(
            f"--dim {unknown}: no input has a dimension of that name; the model's symbolic dimensions are {known}"
        )
    fixed = {name: low for name, (low, high) in sizes.items() if low == high}
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.shape is not None:
            tensor.shape = [fixed.get(size, size) if isinstance(size, str) else size for size in tensor.shape]
    for value in origin_of(graph).values.values():
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in fixed:
                dim.dim_value = fixed[dim.dim_param]
    if fixed:
        annotate(graph)


def check_sizes(graph: Graph, feed: Feed, sizes: Sizes) -> None:
    """DataError where a feed has a size outside of the range that was promised."""
    for tensor in graph.inputs:
        for name, have in zip(tensor.shape or (), feed[tensor.name].shape, strict=False):
            low, high = sizes.get(name, (have, have)) if isinstance(name, str) else (have, have)
            if not low <= have <= high:
                raise DataError(
                    f"input '{tensor.name}': '{name}' is {have} in a calibration feed, outside of --dim "
                    f"{name}={low}..{high}"
                )
