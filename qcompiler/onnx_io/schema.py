"""Which opset a graph needs, told from the operator schemas that the onnx package ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.defs

from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, Variable, constant_of, is_float
from qcompiler.onnx_io.opset import CHANGES, OLDEST, NotConvertibleError, plan_node


def _has(attribute: str, *values: str) -> Callable[[Node], bool]:
    return lambda node: node.attrs.get(attribute) in values


def _is_float_remainder(node: Node) -> bool:
    return not node.attrs.get("fmod", 0) and is_float(node.inputs[0])


NEW_MEANINGS: dict[tuple[str, int], Callable[[Node], bool]] = {
    ("Pad", 19): _has("mode", "wrap"),
    ("Resize", 19): _has("coordinate_transformation_mode", "half_pixel_symmetric"),
    ("ScatterElements", 18): _has("reduction", "max", "min"),
    ("ScatterND", 18): _has("reduction", "max", "min"),
    ("Mod", 28): _is_float_remainder,
}
"""(operator, version) -> whether a node uses what that version allowed without its schema telling."""


@cache
def _histories() -> dict[str, list[onnx.defs.OpSchema]]:
    """Schemas of every standard operator, oldest first, those from before opset 13 only as far as they hold there."""
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    for schemas in found.values():
        schemas.sort(key=lambda schema: schema.since_version)
        while len(schemas) > 1 and schemas[1].since_version <= OLDEST:
            del schemas[0]
    return found


def history(op: str) -> list[onnx.defs.OpSchema]:
    """The schemas of ``op`` that hold in opset 13 or later, oldest first; empty for what is no standard operator."""
    return _histories().get(op, [])


def _type_string(tensor: Tensor) -> str | None:
    if tensor.dtype is None or (isinstance(tensor, Variable) and tensor.type != "tensor_type"):
        return None
    number = (
        tensor.dtype if isinstance(tensor.dtype, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    )
    return f"tensor({onnx.TensorProto.DataType.Name(number).lower()})"


def _types_fit(tensors: list[Tensor], formals: Sequence[onnx.defs.OpSchema.FormalParameter]) -> bool:
    for index, tensor in enumerate(tensors):
        kind = _type_string(tensor) if tensor.name else None
        if kind is not None and kind not in formals[min(index, len(formals) - 1)].types:
            return False
    return True


def default_of(schema: onnx.defs.OpSchema, attribute: str) -> Any:
    """The default value of an attribute, None without one."""
    if attribute not in schema.attributes:
        return None
    default = schema.attributes[attribute].default_value
    if not default.name:
        return None
    value = onnx.helper.get_attribute_value(default)
    return value.decode() if isinstance(value, bytes) else value


def unknown_attributes(node: Node, schema: onnx.defs.OpSchema) -> list[str]:
    """Attributes that ``schema`` does not have, though they have more than their default to say."""
    newest = history(node.op)[-1]
    extra = [name for name in node.attrs if name not in schema.attributes]
    return [name for name in extra if default_of(newest, name) != node.attrs[name]]


def _changed_attributes(op: str, version: int) -> tuple[str, ...]:
    """Attributes that a planned rewrite removes when it goes below ``version``."""
    dropped = {"Split": ("num_outputs",), "RoiAlign": ("coordinate_transformation_mode",)}
    return dropped.get(op, ("noop_with_empty_axes",)) if (op, version) in CHANGES else ()


def _fits(node: Node, schema: onnx.defs.OpSchema, newer: list[onnx.defs.OpSchema], opset: int) -> bool:
    """Whether ``schema`` can express ``node``, with the rewrites of `qcompiler.onnx_io.opset` across ``newer`` ones."""
    crossed = [step.since_version for step in newer]
    handled = {name for version in crossed for name in _changed_attributes(node.op, version)}
    if any(name not in handled for name in unknown_attributes(node, schema)):
        return False
    if any((node.op, version) in NEW_MEANINGS and NEW_MEANINGS[node.op, version](node) for version in crossed):
        return False
    rewritten = any((node.op, version) in CHANGES for version in crossed)
    if not rewritten and (len(node.inputs) > schema.max_input or len(node.outputs) > schema.max_output):
        return False
    try:
        plan_node(node, opset, schema.since_version)
    except NotConvertibleError:
        return False
    return _types_fit(node.inputs[: schema.max_input], schema.inputs) and _types_fit(node.outputs, schema.outputs)


def needed_version(node: Node, opset: int) -> int:
    """The lowest version (at least 13) of the standard domain in which ``node``, now of ``opset``, can be expressed."""
    schemas = [schema for schema in history(node.op) if schema.since_version <= opset]
    if not schemas:
        return opset
    needed = len(schemas) - 1
    while needed > 0 and _fits(node, schemas[needed - 1], schemas[needed:], opset):
        needed -= 1
    return max(OLDEST, int(schemas[needed].since_version))


def needed_opset(graph: Graph) -> int:
    """The lowest opset (at least 13) in which ``graph`` can be expressed."""
    bodies = [graph, *graph.subgraphs(recursive=True)]
    versions = [
        needed_version(node, graph.opset) for body in bodies for node in body.nodes if node.domain in STANDARD_DOMAINS
    ]
    return max(versions, default=OLDEST)


def _has_implied_zero(node: Node) -> bool:
    if node.op != "DequantizeLinear" or len(node.inputs) < 3 or node.inputs[0].dtype != np.int32:
        return False
    zero = constant_of(node.inputs[2])
    return zero is not None and not zero.any()


def drop_defaults(graph: Graph, version: int) -> None:
    """Remove what says nothing: attributes that operators do not have yet at ``version``, which hold their defaults
    (`needed_opset`), and zero points of int32 codes, which ONNX wants to be 0.
    """
    for node in graph.nodes:
        if _has_implied_zero(node):
            del node.inputs[2]
        known = [step for step in history(node.op) if step.since_version <= version]
        if node.domain in STANDARD_DOMAINS and known:
            for name in [name for name in node.attrs if name not in known[-1].attributes]:
                del node.attrs[name]
