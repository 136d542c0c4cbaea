"""File to graph: the only door into the compiler.

What comes in: any ONNX model of opset 7 and up. What comes out: a graph of opset 21 in topological order, in which
weights are constants, every node and every dimension has a name, and float tensors are float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_graphsurgeon.util.exception import OnnxGraphSurgeonException

from qcompiler.errors import ModelError, one_line
from qcompiler.graph.ir import ORIGIN, STANDARD_DOMAINS, Constant, Graph, Node, Tensor, Variable, names_in, unique_name
from qcompiler.graph.origin import Origin
from qcompiler.graph.runner import ORT_ERRORS
from qcompiler.onnx_io import opset, schema, single
from qcompiler.onnx_io.dequantize import undo_quantization
from qcompiler.onnx_io.model_file import Detached, check, detach, is_plain, read_proto
from qcompiler.onnx_io.packed_constants import StoredConstant
from qcompiler.onnx_io.unpacked import unpack
from qcompiler.shapes import infer

_OLDEST_OPSET = 7
_NEWEST_OPSET = int(onnx.defs.onnx_opset_version())
_IR_VERSION = 10
_RESIZE_WITH_MODES = 11
_PARAMETERS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1), "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2), "GroupNormalization": (1, 2), "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3),
    "PRelu": (1,),
}  # fmt: skip
"""Inputs that hold learned numbers, where an infinity is damage and not a mask."""
_WRITTEN_OUT = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "SwiGLU")
"""Operators that ONNX defines by others and that nothing here knows as a whole."""
_CHUNK = 1 << 20


def load_graph(source: str | os.PathLike[str] | onnx.ModelProto) -> Graph:
    """Import a model.

    Args:
        source: path of an ``.onnx`` file (external data is found beside it), or a model, which is not changed.

    Raises:
        ModelError: the file is missing or damaged, is not ONNX, is too old or too new, or holds NaN or infinite
            weights.
    """
    where = "model" if isinstance(source, onnx.ModelProto) else str(source)
    try:
        return _import(source, where)
    except ModelError as error:
        raise ModelError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error


def _import(source: str | os.PathLike[str] | onnx.ModelProto, where: str) -> Graph:
    folder = None if isinstance(source, onnx.ModelProto) else Path(source).parent
    detached = detach(source if isinstance(source, onnx.ModelProto) else read_proto(Path(source)), folder)
    origin = Origin.of(detached.model)
    light = _prepared(detached.model)
    graph = _to_graph(light, detached)
    graph.__dict__[ORIGIN] = origin
    unpack(graph)
    _drop_indices(graph)
    _name_everything(graph)
    _sort(graph)
    _check_weights(graph)
    single.to_single(graph)
    _to_internal_opset(graph)
    undo_quantization(graph)
    _name_dims(graph)
    infer.annotate(graph)
    return graph


def _default_opset(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else (1 if model.ir_version < 3 else opset.INTERNAL_OPSET)


def _refuse_types(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.WhichOneof("value")
        if kind not in (None, "tensor_type", "sequence_type"):
            raise ModelError(
                f"tensor '{value.name}' has the type {kind}, which is not supported; only tensors and sequences are"
            )


def _prepared(light: onnx.ModelProto) -> onnx.ModelProto:
    """Functions inlined, checked, of opset 13 or later, types of all tensors inferred."""
    version = _default_opset(light)
    _refuse_types(light.graph)
    if not light.graph.output:
        raise ModelError("the model has no outputs, so there is nothing to compute")
    if version < _OLDEST_OPSET:
        raise ModelError(
            f"opset {version} is too old; export the model again with opset {_OLDEST_OPSET} or later (best: 17 to 21)"
        )
    if version > _NEWEST_OPSET:
        raise ModelError(
            f"opset {version} is newer than the installed onnx package knows ({_NEWEST_OPSET}); upgrade onnx"
        )
    light.ir_version = max(light.ir_version, _IR_VERSION) if version <= opset.INTERNAL_OPSET else light.ir_version
    if light.functions:
        light = onnx.inliner.inline_local_functions(light)
    light = _written_out(light)
    light.graph.name = light.graph.name or "graph"
    _sort_nodes(light.graph)
    try:
        check(light)
    except onnx.checker.ValidationError as error:
        if not _runs(light):
            raise ModelError(f"not a valid ONNX model: {one_line(error)}") from error
    if version < opset.OLDEST:
        light = _converted(light, version)
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return light  # types of some tensors stay unknown; what needs them declines


def _written_out(light: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what ONNX defines by other operators written out; these may be such operators again."""
    for _ in _WRITTEN_OUT:
        wholes = {("", node.op_type) for node in light.graph.node if not node.domain and node.op_type in _WRITTEN_OUT}
        if not wholes:
            return light
        try:
            typed = onnx.shape_inference.infer_shapes(light, data_prop=True)
            light = onnx.inliner.inline_selected_functions(typed, sorted(wholes), inline_schema_functions=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return light  # they stay float
    return light


def _runs(light: onnx.ModelProto) -> bool:
    """Whether onnxruntime loads a model that onnx's checker refuses: it is the more lenient of the two."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(light.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS:
        return False
    return True


def _converted(light: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model at opset 13, by onnx's own converter."""
    if any(node.op_type == "Scan" for node in light.graph.node) and version < 9:
        raise ModelError(
            f"Scan of opset {version} has another meaning than today's; export the model again with opset 13 or later"
        )
    domains = [entry for entry in light.opset_import if entry.domain not in ("", "ai.onnx")]
    try:
        typed = onnx.shape_inference.infer_shapes(light, data_prop=True)  # the converter of Softmax wants ranks
        result = onnx.version_converter.convert_version(typed, opset.OLDEST)
    except (onnx.version_converter.ConvertError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"opset {version} cannot be converted to {opset.OLDEST} ({one_line(error)}); export the model again with "
            "opset 13 or later"
        ) from error
    if version < _RESIZE_WITH_MODES:
        _restore_resizing(light.graph, result.graph)
    known = {entry.domain for entry in result.opset_import}
    result.opset_import.extend(entry for entry in domains if entry.domain not in known)
    return result


def _restore_resizing(old: onnx.GraphProto, new: onnx.GraphProto) -> None:
    """Say what Upsample and the first Resize meant, which onnx's converter leaves to other defaults.

    They scale by ``x_in = x_out / scale``, rounded down (up where the image shrinks).
    """
    scaled = {node.output[0] for node in old.node if node.op_type in ("Upsample", "Resize")}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in new.initializer}
    stored = [node for node in new.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    constants |= {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in stored}
    for node in new.node:
        if node.op_type == "Resize" and node.output[0] in scaled:
            scales = constants.get(node.input[2]) if len(node.input) > 2 else None
            shrinks = scales is not None and bool(np.any(scales < 1))
            node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil" if shrinks else "floor"))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {name for inner in body.node for name in inner.output}
            yield from (name for inner in body.node for name in _reads(inner) if name not in own)
            yield from (value.name for value in body.output if value.name not in own)


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes into topological order, keeping the order of independent ones; exporters exist that do not."""
    written = {name for node in graph.node for name in node.output if name}
    pending, done, ordered = list(graph.node), set[str](), list[onnx.NodeProto]()
    while pending:
        waiting = []
        for node in pending:
            if all(name in done or name not in written for name in _reads(node)):
                ordered.append(node)
                done.update(node.output)
            else:
                waiting.append(node)
        if len(waiting) == len(pending):
            raise ModelError(
                f"node '{waiting[0].name}' ({waiting[0].op_type}) depends on its own output: the graph has a cycle"
            )
        pending = waiting
    if any(a is not b for a, b in zip(ordered, graph.node, strict=True)):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del graph.node[:]
        graph.node.extend(copies)


def _to_graph(light: onnx.ModelProto, detached: Detached) -> Graph:
    """A graph whose constants hold the detached weights."""
    try:
        graph = gs.import_onnx(light)
    except OnnxGraphSurgeonException as error:
        raise ModelError(f"cannot be imported: {one_line(error)}") from error
    plain = {tensor.name for tensor in light.graph.initializer if is_plain(tensor)}
    for tensor in graph.tensors().values():
        _attach(tensor, detached.weights, plain)
    graph.inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, Constant)]
    for body in _bodies(graph):
        _constants_for_nodes(body)
    return graph


def _constants_for_nodes(graph: Graph) -> None:
    """Turn the Constant nodes that are left (the converter's, and those in bodies) into constant tensors."""
    border = {id(tensor) for tensor in graph.outputs}
    for node in list(graph.nodes):
        value = node.attrs.get("value")
        if (
            node.op != "Constant"
            or not isinstance(value, Constant)
            or isinstance(value.dtype, int)
            or id(node.outputs[0]) in border
        ):
            continue
        if value.dtype.kind in "fiub":
            output = node.outputs[0]
            graph.nodes.remove(node)
            output.inputs.clear()
            output.to_constant(np.asarray(value.values))


def _attach(tensor: Tensor, weights: dict[str, NDArray[Any]], plain: set[str]) -> None:
    array = weights.get(tensor.name)
    if isinstance(tensor, Variable) and array is not None and not tensor.inputs:
        tensor.to_constant(array)
    elif isinstance(tensor, Constant) and array is not None:
        tensor.values = array
    elif isinstance(tensor, Constant) and tensor.name in plain:
        tensor.values = np.asarray(tensor.values)  # made by the converter
    elif isinstance(tensor, Constant) and not isinstance(tensor.dtype, int):
        tensor.__class__ = StoredConstant


def _sort(graph: Graph) -> None:
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def _drop_indices(graph: Graph) -> None:
    """Cut off the indices of pools that nobody reads: onnxruntime cannot run such a pool between codes."""
    for body in _bodies(graph):
        left = {id(tensor) for tensor in body.outputs}
        for node in (node for node in body.nodes if node.op == "MaxPool" and len(node.outputs) == 2):
            if not node.outputs[1].outputs and id(node.outputs[1]) not in left:
                node.outputs.pop()


def _bodies(graph: Graph) -> Iterable[Graph]:
    return [graph, *graph.subgraphs(recursive=True)]


def _name_everything(graph: Graph) -> None:
    """Give every node a name of its own."""
    tensors: set[str] = set()
    for body in _bodies(graph):
        tensors |= names_in(body)
    taken: set[str] = tensors - {node.name for body in _bodies(graph) for node in body.nodes}
    for body in _bodies(graph):
        for node in body.nodes:
            node.name = _node_name(node, taken)


def _node_name(node: Node, taken: set[str]) -> str:
    base = node.name or next((f"{node.op}_{t.name}" for t in node.outputs if t.name), node.op)
    if base in taken and node.name:
        base = f"{node.name}_{node.op}"  # tensors often bear the name of the node that writes them
    return unique_name(taken, base)


def _to_internal_opset(graph: Graph) -> None:
    """Move to opset 21; a model that cannot be moved (or needs more) stays where it is."""
    too_new = graph.opset > opset.INTERNAL_OPSET and schema.needed_opset(graph) > opset.INTERNAL_OPSET
    if graph.opset == opset.INTERNAL_OPSET or too_new:
        return
    try:
        opset.convert(graph, opset.INTERNAL_OPSET)
    except opset.NotConvertibleError:
        return
    for body in _bodies(graph):
        schema.drop_defaults(body, opset.INTERNAL_OPSET)


def _name_dims(graph: Graph) -> None:
    """Every unknown dimension of an input gets a symbol; negative sizes and names without a letter are unknown, too."""
    for tensor in graph.inputs:
        if tensor.shape is not None:
            tensor.shape = [_named(tensor.name, axis, size) for axis, size in enumerate(tensor.shape)]


def _named(tensor: str, axis: int, size: Any) -> int | str:
    if isinstance(size, int) and size >= 0:
        return size
    return size if isinstance(size, str) and any(letter.isalpha() for letter in size) else infer.dim_name(tensor, axis)


def _check_weights(graph: Graph) -> None:
    """NaN is refused everywhere, infinity in learned parameters; a mask of -inf is fine."""
    for body in _bodies(graph):
        for node in body.nodes:
            learned = _PARAMETERS.get(node.op, ()) if node.domain in STANDARD_DOMAINS else ()
            for index, tensor in enumerate(node.inputs):
                if isinstance(tensor, Constant):
                    _check_weight(tensor, node, index in learned)


def _check_weight(tensor: Constant, node: Node, learned: bool) -> None:
    if not (
        isinstance(tensor.dtype, np.dtype) and np.issubdtype(tensor.dtype, np.floating)
    ) and not single.is_other_float(tensor.dtype):
        return
    flat = np.asarray(tensor.values).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        bad = np.isnan(part) if not learned else ~np.isfinite(part)
        if bad.any():
            kind = "NaN" if np.isnan(part).any() else "infinite values"
            raise ModelError(
                f"weight '{tensor.name}' of node '{node.name}' ({node.op}) holds {kind}; the model is "
                "damaged or badly trained"
            )
