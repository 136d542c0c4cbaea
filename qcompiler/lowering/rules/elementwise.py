"""Elementwise operators: a chain over one varying tensor becomes a table; two varying tensors a binary operator.

A chain is every elementwise node between a tensor and the one tensor it varies with, all other inputs being scalar
constants; ``x * Sigmoid(x)`` and ``x * (Erf(x / c) + 1)`` are chains. It is evaluated in float for every code, so its
table is as exact as the float graph. Where the chain is only a clamp or a positive factor and its leaf has no codes of
its own (a layer, say), nothing is left of it: it changes the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import STANDARD_DOMAINS, Node, Tensor, consumers, is_float, producer, read_spec
from qcompiler.graph.operators import lowered_by
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.constants import Array, evaluate
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.rules.binary import binary_bounds, lower_binary
from qcompiler.lowering.rules.operands import has_codes, integer_grid, scalar_factor

UNARY = lowered_by("unary")
ELEMENTWISE = lowered_by("unary", "joint")

_SAMPLES = 4097
"""Points of an interval at which a chain is evaluated to find its range."""


@dataclass(frozen=True)
class Chain:
    """Elementwise nodes between ``leaf``, the one tensor they vary with, and a result."""

    leaf: Tensor
    nodes: list[Node]


def find_chain(lw: Lowering, tensor: Tensor) -> Chain | None:
    """The longest chain behind ``tensor``; None when it varies with two tensors, or with none."""
    nodes: dict[int, Node] = {}
    leaves: dict[int, Tensor] = {}
    stack = [tensor]
    while stack:
        current = stack.pop()
        node = producer(current)
        if not current.name or lw.constants.is_constant(current):
            continue
        if node is None or not _pointwise(lw, node):
            leaves[id(current)] = current
        elif id(node) not in nodes:
            nodes[id(node)] = node
            stack.extend(node.inputs)
    if len(leaves) != 1 or not nodes:
        return None
    return Chain(next(iter(leaves.values())), list(nodes.values()))


_TRUTHS = CodeGrid(2.0**-8, 0, "int16")
"""Grid of an input of which only matters whether it is 0: what is beyond its ends is not."""


def _pointwise(lw: Lowering, node: Node) -> bool:
    if node.op not in ELEMENTWISE or node.domain not in STANDARD_DOMAINS or _is_narrowing(node):
        return False
    values = [lw.constants.value(tensor) for tensor in node.inputs]
    return all(value is None or value.size == 1 for value in values)


def _is_narrowing(node: Node) -> bool:
    """True for a Cast that may drop high bits of integers."""
    if node.op != "Cast" or is_float(node.inputs[0]) or is_float(node.outputs[0]):
        return False
    wide, narrow = np.dtype(node.inputs[0].dtype), np.dtype(node.outputs[0].dtype)
    return bool(narrow.itemsize < wide.itemsize and narrow.kind != "b")


def _run_chain(lw: Lowering, chain: Chain, result: Tensor, values: Array) -> Array:
    feed = {chain.leaf.name: values.astype(chain.leaf.dtype)}
    return evaluate(lw.source, chain.nodes, result, feed, lw.constants.value).reshape(-1)


def lower_elementwise(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of every elementwise operator."""
    result = node.outputs[0]
    chain = find_chain(lw, result)
    if chain is None:
        return _lower_joint(lw, node, target)
    if not is_float(chain.leaf):
        return _lower_integer_chain(lw, node, chain, target)
    pulled = _pull(lw, node, target)
    if pulled is not None and not (has_codes(chain.leaf) and lw.natural_grid(chain.leaf).dtype == "uint8"):
        inner, wanted = pulled
        return replace(lw.value(inner, wanted), grid=target.grid)
    return _table(lw, chain, result, lw.natural(chain.leaf), target)


def _lower_integer_chain(lw: Lowering, node: Node, chain: Chain, target: Target) -> Coded:
    """A chain that begins with a Cast of integers (token ids, a mask)."""
    if node.op == "Cast" and len(chain.nodes) == 1:
        return lw.integer_codes(chain.leaf, target)
    pulled = _pull(lw, node, target)
    if pulled is not None:
        inner, wanted = pulled
        return replace(lw.value(inner, wanted), grid=target.grid)
    codes = lw.integer_codes(chain.leaf, Target.whole(integer_grid(chain.leaf), f"{chain.leaf.name}_codes"))
    return _table(lw, chain, node.outputs[0], codes, target)


def _table(lw: Lowering, chain: Chain, result: Tensor, source: Coded, target: Target) -> Coded:
    if result.shape is not None and chain.leaf.shape is not None and len(result.shape) != len(chain.leaf.shape):
        raise UnsupportedError(
            f"a scalar constant raises the rank of '{chain.leaf.name}'; give that constant the shape []"
        )
    with np.errstate(all="ignore"):
        real = _run_chain(lw, chain, result, source.grid.dequantize(source.grid.all_codes()))
    entries = np.clip(target.grid.quantize(real.astype(np.float64)), target.lo, target.hi).astype(target.grid.dtype)
    table = lw.out.constant(f"{target.name}_table", entries)
    codes = lw.out.op(
        "Table", target.name, [source.tensor, table], {"dtype": target.grid.dtype}, target.grid.dtype, result.shape
    )
    reached = entries[source.lo - source.grid.qmin : source.hi - source.grid.qmin + 1]
    return Coded(codes, target.grid, int(reached.min()), int(reached.max()))


def _pull(lw: Lowering, node: Node, target: Target) -> tuple[Tensor, Target] | None:
    """Merge ``node`` into the target: (its input, that input's target); None beyond a clamp or a positive factor."""
    if node.op in ("Identity", "Dropout"):
        return node.inputs[0], target
    if node.op == "Relu":
        return node.inputs[0], target.clamped(0.0, math.inf)
    if node.op == "Clip":
        return _pull_clip(lw, node, target)
    inner, factor = scalar_factor(lw, node)
    if inner is None or factor <= 0.0 or not math.isfinite(factor):
        return None
    grid = replace(target.grid, scale=target.grid.scale / factor)
    return inner, replace(target, grid=grid)


def _pull_clip(lw: Lowering, node: Node, target: Target) -> tuple[Tensor, Target] | None:
    limits = [*node.inputs[1:3], None, None][:2]
    values = [lw.constants.scalar(tensor) for tensor in limits]
    if any(value is None and tensor is not None and tensor.name for value, tensor in zip(values, limits, strict=True)):
        return None
    low, high = values
    return node.inputs[0], target.clamped(-math.inf if low is None else low, math.inf if high is None else high)


def _lower_joint(lw: Lowering, node: Node, target: Target) -> Coded:
    pulled = _pull(lw, node, target) if node.op in UNARY or scalar_factor(lw, node)[0] is not None else None
    if pulled is not None:
        inner, wanted = pulled
        return replace(lw.value(inner, wanted), grid=target.grid)
    if node.op in UNARY or scalar_factor(lw, node)[0] is not None:
        return _table_of_joint(lw, node, target)
    return lower_binary(lw, node, target)


def _table_of_joint(lw: Lowering, node: Node, target: Target) -> Coded:
    """A unary operator behind operators on two varying tensors: their result gets codes of its own first."""
    leaf = next(tensor for tensor in node.inputs if tensor.name and lw.constants.value(tensor) is None)
    chain = Chain(leaf, [node])
    if not is_float(leaf):
        return _lower_integer_chain(lw, node, chain, target)
    return _table(lw, chain, node.outputs[0], lw.natural(leaf), target)


def whole_numbers(lw: Lowering, node: Node) -> Coded:
    """Codes of step 1 of a Cast from floats to integers or truth values, which a table cuts off as the model does."""
    result = node.outputs[0]
    chain = find_chain(lw, result) or Chain(node.inputs[0], [node])
    if producer(chain.leaf) is None and is_float(chain.leaf) and np.dtype(result.dtype) == np.dtype(bool):
        codes = lw.value(chain.leaf, Target.whole(_grid_of_input(chain.leaf), f"{chain.leaf.name}_codes"))
    elif is_float(chain.leaf):
        codes = lw.natural(chain.leaf)
    else:
        codes = lw.integer_codes(chain.leaf, Target.whole(integer_grid(chain.leaf), f"{chain.leaf.name}_codes"))
    return _table(lw, chain, result, codes, Target.whole(CodeGrid(1.0, 0, "int16"), f"{result.name}_codes"))


def _grid_of_input(tensor: Tensor) -> CodeGrid:
    """The grid on which others read an input; one that tells what is 0 where nobody else does."""
    specs = [read_spec(node) for node in consumers(tensor) if node.op == "QuantizeLinear"]
    known = [CodeGrid.from_spec(spec) for spec in specs if spec is not None and spec.axis is None]
    return known[0] if known else _TRUTHS


def elementwise_bounds(lw: Lowering, node: Node) -> Bounds:
    """Range of an elementwise operator's output: over all codes for a chain, by interval arithmetic else."""
    result = node.outputs[0]
    chain = find_chain(lw, result)
    if chain is None and node.op in UNARY:
        chain = Chain(node.inputs[0], [node])
    if chain is None:
        return binary_bounds(lw, node)
    real = _run_chain(lw, chain, result, np.fromiter(_points(lw, chain.leaf), np.float64)).astype(np.float64)
    finite = real[np.isfinite(real)]
    if not finite.size:
        raise UnsupportedError("none of its values is finite")
    return float(finite.min()), float(finite.max())


def _points(lw: Lowering, leaf: Tensor) -> Iterator[float]:
    if not is_float(leaf):
        grid = integer_grid(leaf)
        return iter([0.0, 1.0] if np.dtype(leaf.dtype) == np.dtype(bool) else grid.all_codes().astype(np.float64))
    if has_codes(leaf):
        codes = lw.natural(leaf)
        return iter(codes.grid.dequantize(np.arange(codes.lo, codes.hi + 1)).astype(np.float64))
    low, high = lw.bounds(leaf)
    return iter([*np.linspace(low, high, _SAMPLES), *([0.0] if low < 0.0 < high else [])])


def elementwise_grid(lw: Lowering, node: Node) -> CodeGrid:
    """The natural grid: a Cast of integers keeps them exact."""
    if node.op == "Cast" and not is_float(node.inputs[0]):
        return integer_grid(node.inputs[0])
    if node.op in ("Identity", "Dropout"):
        return lw.natural_grid(node.inputs[0])
    return CodeGrid.covering(*elementwise_bounds(lw, node))


def looked_up(lw: Lowering, node: Node) -> Coded | None:
    """QuantizeLinear -> Cast -> Gather(uint8 [256]) -> DequantizeLinear as a Table (a power curve); else None."""
    gather, spec = producer(node.inputs[0]), read_spec(node)
    cast = producer(gather.inputs[1]) if gather is not None and gather.op == "Gather" else None
    quantize = producer(cast.inputs[0]) if cast is not None and cast.op == "Cast" else None
    if (
        gather is None
        or spec is None
        or quantize is None
        or quantize.op != "QuantizeLinear"
        or quantize.outputs[0].dtype != np.uint8
    ):
        return None
    entries = lw.constants.value(gather.inputs[0])
    if entries is None or entries.dtype != np.uint8 or entries.shape != (256,) or spec.dtype != np.uint8:
        return None
    source, name = lw.stored_codes(quantize.outputs[0]), node.inputs[0].name
    codes = lw.out.op(
        "Table",
        name,
        [source.tensor, lw.out.constant(f"{name}_table", entries)],
        {"dtype": "uint8"},
        "uint8",
        node.inputs[0].shape,
    )
    reached = entries[source.lo : source.hi + 1]
    return Coded(codes, CodeGrid.from_spec(spec), int(reached.min()), int(reached.max()))
