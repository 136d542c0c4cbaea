"""Reads ONNX files: decoding, external data (memory-mapped), and setting the weights apart from the model.

A model without its weights is small, so checking, converting and inferring shapes cost nothing even for models above
protobuf's limit of 2 GiB.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from qcompiler.errors import ModelError

SMALL = 1024
"""Constants of at most this many elements also stay in the model, where conversion and shape inference look at them."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Detached:
    """A model and its weights.

    Attributes:
        model: nodes, inputs and outputs; a large weight is an input of the model, a small one still an initializer.
        weights: arrays of plain numpy types by name; from external data they are read-only memory maps.
    """

    model: onnx.ModelProto
    weights: dict[str, Array]


def read_proto(path: Path) -> onnx.ModelProto:
    """The decoded file, external data not loaded.

    Raises:
        ModelError: no such file, a folder, unreadable, or not an ONNX model.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file")
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; give the .onnx file inside it")
    model = onnx.ModelProto()
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelError(f"{path}: the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                model.ParseFromString(memoryview(data))
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or truncated (protobuf: {error})") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not model.HasField("graph") or not (model.opset_import or model.ir_version < 3):
        raise ModelError(f"{path}: not an ONNX model, or truncated: it has no graph or no opset")
    return model


def _external_array(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """A memory map of one tensor's external data."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    if folder is None:
        raise ModelError(
            f"weight '{tensor.name}' lies in external data '{location}': pass the path of the model, not "
            "the loaded model"
        )
    path = folder / location
    if not location or Path(location).is_absolute() or folder.resolve() not in path.resolve().parents:
        raise ModelError(f"weight '{tensor.name}': external data '{location}' is not a file in the model's own folder")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    size, offset = int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize, int(fields.get("offset", 0))
    if not path.is_file():
        raise ModelError(f"weight '{tensor.name}': its external data file '{location}' is missing beside the model")
    if int(fields.get("length", size)) != size:
        raise ModelError(
            f"weight '{tensor.name}': its external data has {fields['length']} bytes, its shape and type need {size}"
        )
    if offset < 0 or path.stat().st_size < offset + size:
        raise ModelError(
            f"weight '{tensor.name}': external data file '{location}' is truncated: it ends before byte {offset + size}"
        )
    if size == 0:
        return np.empty(tuple(tensor.dims), dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=tuple(tensor.dims))


def _inline_array(tensor: onnx.TensorProto) -> Array:
    """The values inside the model; read-only and without a further copy where they are stored raw."""
    try:
        if tensor.HasField("raw_data"):
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"weight '{tensor.name}': its data does not fit its shape {list(tensor.dims)}; the file is damaged"
        ) from error


def is_plain(tensor: onnx.TensorProto) -> bool:
    """True for types that numpy knows or that become float32: not strings, 4-bit or 8-bit floats."""
    kinds = onnx.TensorProto
    return tensor.data_type in (
        kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16, kinds.BOOL, kinds.INT8, kinds.INT16, kinds.INT32,
        kinds.INT64,
        kinds.UINT8, kinds.UINT16, kinds.UINT32, kinds.UINT64,
    )  # fmt: skip


def tensor_array(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The values of a tensor, wherever they lie.

    Raises:
        ModelError: missing, truncated or foreign external data; data that does not fit the shape.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external_array(tensor, folder)
    return _inline_array(tensor)


def _dense(sparse: onnx.SparseTensorProto) -> Array:
    values = np.asarray(onnx.numpy_helper.to_array(sparse.values))
    indices = np.asarray(onnx.numpy_helper.to_array(sparse.indices))
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(sparse.dims))
    result = np.zeros(int(np.prod(sparse.dims)), values.dtype)
    result[flat] = values
    return result.reshape(tuple(sparse.dims))


def _constant_array(node: onnx.NodeProto, folder: Path | None) -> Array | None:
    """The value of a Constant node; None for kinds that stay nodes (strings, sparse, odd types)."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value" and is_plain(attribute.t):
        attribute.t.name = attribute.t.name or node.output[0]
        return tensor_array(attribute.t, folder)
    scalars: dict[str, Any] = {
        "value_float": np.float32(attribute.f), "value_int": np.int64(attribute.i),
        "value_floats": np.asarray(attribute.floats, np.float32), "value_ints": np.asarray(attribute.ints, np.int64),
    }  # fmt: skip
    return np.asarray(scalars[attribute.name]) if attribute.name in scalars else None


def _load_inner(graph: onnx.GraphProto, folder: Path | None) -> None:
    """Bring external data of the bodies of control flow into the model."""
    for tensor in _tensors_in(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            array = _external_array(tensor, folder)
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = array.tobytes()


def _tensors_in(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _tensors_of(node)


def _tensors_of(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _tensors_in(attribute.g)
        for graph in attribute.graphs:
            yield from _tensors_in(graph)


def _add_weight(light: onnx.GraphProto, name: str, array: Array, data_type: int) -> None:
    if array.size <= SMALL:
        light.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return
    light.input.append(onnx.helper.make_tensor_value_info(name, data_type, list(array.shape)))


def check(light: onnx.ModelProto, *, full: bool = False) -> None:
    """Run onnx's checker; for it, shapes that it wants at the border are filled in.

    Raises:
        onnx.checker.ValidationError: the model breaks a rule of ONNX.
        onnx.shape_inference.InferenceError: with ``full``, types or shapes contradict each other.
    """
    border = [
        value.type.tensor_type
        for value in (*light.graph.input, *light.graph.output)
        if value.type.HasField("tensor_type")
    ]
    bare = [kind for kind in border if not kind.HasField("shape")]
    for kind in bare:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(light)
    finally:
        for kind in bare:
            kind.ClearField("shape")
    if full:
        onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True)


def detach(model: onnx.ModelProto, folder: Path | None) -> Detached:
    """Set the weights of ``model`` (initializers and Constant nodes) apart; ``model`` itself is not changed.

    Args:
        model: decoded file.
        folder: where its external data lies; None for a model from memory.

    Raises:
        ModelError: external data is missing or truncated, or a weight is damaged.
    """
    light, graph = onnx.ModelProto(), onnx.GraphProto()
    for field, value in model.ListFields():
        if field.name not in ("graph", "training_info"):
            _copy_field(light, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name not in ("node", "initializer", "sparse_initializer", "input"):
            _copy_field(graph, field.name, value)
    weights: dict[str, Array] = {}
    outputs = {value.name for value in model.graph.output}
    _take_nodes(model.graph, graph, weights, outputs, folder)
    for tensor in model.graph.initializer:
        if not is_plain(tensor):
            graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor_array(tensor, folder)
    for sparse in model.graph.sparse_initializer:
        weights[sparse.values.name] = _dense(sparse)
    constants = {*weights, *(tensor.name for tensor in graph.initializer)}
    graph.input.extend(value for value in model.graph.input if value.name not in constants)
    for name, array in weights.items():
        _add_weight(graph, name, array, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    light.graph.CopyFrom(graph)
    return Detached(light, weights)


def _copy_field(target: Any, name: str, value: Any) -> None:
    if isinstance(value, str | int | float | bytes):
        setattr(target, name, value)
    elif hasattr(value, "CopyFrom"):
        getattr(target, name).CopyFrom(value)
    else:
        getattr(target, name).extend(value)


def _take_nodes(
    source: onnx.GraphProto, target: onnx.GraphProto, weights: dict[str, Array], outputs: set[str], folder: Path | None
) -> None:
    for node in source.node:
        array = None if node.op_type == "Constant" and node.output[0] in outputs else _constant_array(node, folder)
        if array is not None:
            weights[node.output[0]] = array
            continue
        target.node.append(node)
        for attribute in target.node[-1].attribute:
            if attribute.HasField("g"):
                _load_inner(attribute.g, folder)
