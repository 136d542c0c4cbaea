"""What each stage admits. One function a stage; the manager calls `check` after every pass.

A rule that is broken raises `VerifyError` naming the node or tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompiler.errors import VerifyError
from qcompiler.graph.ir import (
    INTEGER_DOMAIN,
    STANDARD_DOMAINS,
    Constant,
    Graph,
    Node,
    Stage,
    Tensor,
    Variable,
    constant_of,
    is_float,
    producer,
    read_spec,
    spec_of,
    subgraphs,
)
from qcompiler.graph.operators import LAYERS

QDQ = ("QuantizeLinear", "DequantizeLinear")


def check(graph: Graph, stage: Stage) -> None:
    """Raise `VerifyError` unless ``graph`` is a sound graph of ``stage``."""
    for where, rule in _violations(graph, stage):
        raise VerifyError(stage.name, where, rule)


def _violations(graph: Graph, stage: Stage) -> Iterator[tuple[str, str]]:
    yield from _structure(graph)
    if stage == Stage.INTEGER:
        yield from _integer(graph)
        return
    for node in graph.nodes:
        if node.domain == INTEGER_DOMAIN:
            yield _label(node), "an integer operator may only occur after 'lower'"
        if node.op in QDQ:
            yield from _qdq(node)
    if stage == Stage.QUANTIZED:
        yield from _quantized(graph)


def _label(node: Node) -> str:
    return f"node '{node.name}' ({node.op})"


def _structure(graph: Graph) -> Iterator[tuple[str, str]]:
    """Every name once, every tensor written once and before it is read."""
    seen: dict[str, Tensor] = {}
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.name and tensor.name in seen:
                yield _label(node), f"tensor '{tensor.name}' is written twice"
            seen[tensor.name] = tensor
    written = {id(tensor) for tensor in seen.values()} | {id(tensor) for tensor in graph.inputs}
    ready = {id(tensor) for tensor in graph.inputs}
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, Constant) or not tensor.name or id(tensor) in ready:
                continue
            if id(tensor) in written:
                yield _label(node), f"reads '{tensor.name}' before it is written"
            elif not subgraphs(node):
                yield _label(node), f"reads '{tensor.name}', which nothing writes"
        ready.update(id(tensor) for tensor in node.outputs)
    for tensor in graph.outputs:
        if not isinstance(tensor, Constant) and id(tensor) not in written:
            yield f"output '{tensor.name}'", "nothing writes it"


def _qdq(node: Node) -> Iterator[tuple[str, str]]:
    """Constant, positive, finite scales; zero points of the codes' own type."""
    scale = constant_of(node.inputs[1])
    if scale is None:
        return  # a foreign model may compute its scales; such a pair stays float
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        yield _label(node), "its scale must be finite and positive"
    spec = read_spec(node)
    stored = node.inputs[0] if node.op == "DequantizeLinear" else node.outputs[0]
    if spec is not None and stored.dtype is not None and np.dtype(stored.dtype) != spec.dtype:
        yield _label(node), f"its zero point is {spec.dtype}, its codes are {np.dtype(stored.dtype)}"


def _convolves_by_data(node: Node) -> bool:
    """True for a convolution whose weights are computed while the model runs: it is float, whatever it reads."""
    if node.op not in ("Conv", "ConvTranspose"):
        return False
    source = producer(node.inputs[1])
    stored = source.inputs[0] if source is not None and source.op == "DequantizeLinear" else node.inputs[1]
    return constant_of(stored) is None


def _quantized(graph: Graph) -> Iterator[tuple[str, str]]:
    """A layer is integer with all its operands, or float with all of them; integer weights are initializers."""
    for node in graph.nodes:
        if node.op not in LAYERS or node.domain not in STANDARD_DOMAINS or _convolves_by_data(node):
            continue
        operands = [tensor for tensor in node.inputs[:2] if is_float(tensor) or spec_of(tensor) is not None]
        coded = [tensor for tensor in operands if spec_of(tensor) is not None]
        if coded and len(coded) != len(operands):
            loose = next(tensor for tensor in operands if spec_of(tensor) is None)
            yield _label(node), f"'{loose.name}' comes without Q/DQ while its other operand is quantized"


def _integer(graph: Graph) -> Iterator[tuple[str, str]]:
    """Nothing but integer operators; floats only as graph inputs and outputs."""
    borders = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        if node.domain != INTEGER_DOMAIN:
            yield _label(node), "is not an integer operator"
        for tensor in (*node.inputs, *node.outputs):
            if isinstance(tensor, Variable | Constant) and is_float(tensor) and id(tensor) not in borders:
                yield _label(node), f"'{tensor.name}' is a float tensor inside the integer graph"
        for tensor in node.inputs:
            if node.op not in ("Quantize", "Shape") and is_float(tensor) and producer(tensor) is None:
                yield _label(node), f"reads the float tensor '{tensor.name}'"
