"""Types that shape inference cannot tell (operators of other domains, and what follows), from one run on a feed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from qcompiler.errors import ModelError
from qcompiler.graph.ir import Graph, Tensor, Variable
from qcompiler.graph.origin import origin_of
from qcompiler.graph.runner import Runner, light_model
from qcompiler.shapes.infer import annotate

__all__ = ["complete_types", "drop_wrong_shapes", "seen_shapes", "separate_sizes"]

_ELEMENT_TYPES: dict[str, Any] = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "string": np.object_, "bool": np.bool_,
    **{name: np.dtype(name).type for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64")},
}  # fmt: skip
"""numpy types by the name that onnxruntime gives them."""


def complete_types(graph: Graph, feed: Mapping[str, NDArray[Any]]) -> bool:
    """Give tensors without an element type the one (and the rank) of a run on ``feed``; True when there was one.

    Sizes stay unknown, except those that inference finds now: another feed may have others.
    """
    unknown = [
        t for node in graph.nodes for t in node.outputs if t.name and isinstance(t, Variable) and t.dtype is None
    ]
    if not unknown:
        return False
    by_name = {tensor.name: tensor for tensor in unknown}
    for tensor in graph.outputs:
        declared = origin_of(graph).values.get(tensor.name)
        if tensor.dtype is None and declared is not None and declared.type.WhichOneof("value") != "tensor_type":
            by_name.pop(tensor.name, None)
    types = Runner(graph, list(by_name), fusions=False).types
    plain = [name for name in by_name if types[name].startswith("tensor(") and types[name][7:-1] in _ELEMENT_TYPES]
    try:
        ranks = {name: len(shape) for name, shape in seen_shapes(graph, plain, feed).items()}
    except ModelError:  # the graph does not run on the feed
        ranks = {}
    for name, tensor in by_name.items():
        if types[name].startswith(("seq(", "optional(")):
            tensor.type = "sequence_type"
    for name in plain:
        tensor = by_name[name]
        tensor.dtype = np.dtype(_ELEMENT_TYPES[types[name][7:-1]])
        if tensor.shape is None and name in ranks:
            tensor.shape = [None] * ranks[name]
    annotate(graph)
    return True


def drop_wrong_shapes(
    graph: Graph, feed: Mapping[str, NDArray[Any]], answers: Mapping[str, NDArray[Any]]
) -> list[str]:
    """Forget what the model declares of its outputs' sizes where a run says otherwise; the names of these outputs.

    Args:
        graph: the float graph.
        feed: what it was run on.
        answers: its outputs.
    """
    sizes = {
        symbol: size
        for tensor in graph.inputs
        if tensor.name in feed
        for symbol, size in zip(tensor.shape or (), feed[tensor.name].shape, strict=False)
        if isinstance(symbol, str)
    }
    wrong = []
    for tensor in graph.outputs:
        value = answers.get(tensor.name)
        if tensor.shape is None or not isinstance(value, np.ndarray) or value.dtype == object:
            continue
        if len(tensor.shape) != value.ndim:
            kept = [None] * value.ndim
        else:
            kept = [
                None if sizes.get(declared, declared) != size and (isinstance(declared, int) or declared in sizes)
                else declared for declared, size in zip(tensor.shape, value.shape, strict=True)
            ]  # fmt: skip
        if kept != list(tensor.shape):
            tensor.shape = kept
            wrong.append(tensor.name)
    return wrong


def separate_sizes(graph: Graph, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> list[str]:
    """Give each input sizes of its own for the names that stand for several sizes at once; these names.

    onnxruntime runs a float model whose names of sizes are wrong; what trusts them (reuse of memory, programs that are
    bound by name) fails. Outputs with such a name have an unknown size there.
    """
    sizes: dict[tuple[int, str], set[int]] = {}
    for number, feed in enumerate(feeds):
        for tensor in graph.inputs:
            for symbol, size in zip(tensor.shape or (), feed[tensor.name].shape, strict=False):
                if isinstance(symbol, str):
                    sizes.setdefault((number, symbol), set()).add(size)
    wrong = sorted({symbol for (_, symbol), found in sizes.items() if len(found) > 1})
    for tensor in graph.inputs if wrong else ():
        _rename_sizes(graph, tensor, wrong, tensor.name)
    for tensor in graph.outputs if wrong else ():
        _rename_sizes(graph, tensor, wrong, None)
    if wrong:
        annotate(graph)
    return wrong


def _rename_sizes(graph: Graph, tensor: Tensor, wrong: Collection[str], own: str | None) -> None:
    """Replace names of sizes by names of the tensor's own, which begin with ``own``; None: by nothing."""
    declared = origin_of(graph).values.get(tensor.name)
    dims = [] if declared is None else list(declared.type.tensor_type.shape.dim)
    shape = list(tensor.shape or ())
    for axis, size in enumerate(shape):
        if size in wrong:
            shape[axis] = None if own is None else f"{own}_{size}_{axis}"
            for dim in dims[axis:axis + 1]:
                dim.Clear()
                dim.dim_param = shape[axis] or ""
    tensor.shape = None if tensor.shape is None else shape


def seen_shapes(graph: Graph, names: list[str], feed: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The shapes that tensors of these names have on ``feed``; their values are not kept.

    Raises:
        ModelError: the graph does not run on the feed.
    """
    proto, weights = light_model(graph)
    proto.graph.node.extend(helper.make_node("Shape", [name], [f"{name}//shape"]) for name in names)
    found = Runner(proto, [f"{name}//shape" for name in names], weights=weights, fusions=False).run(feed)
    return {name: tuple(found[f"{name}//shape"].tolist()) for name in names}


