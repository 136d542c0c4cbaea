"""Graph to file: the only door out.

A model leaves at the lowest opset (13 or later) and IR version that its content needs, and only after onnxruntime has
loaded and run it. The same graph always gives the same bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from qcompiler.errors import ExportError, OptionError, one_line
from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Variable, copy_of
from qcompiler.graph.origin import restore
from qcompiler.graph.runner import ORT_ERRORS, light_model
from qcompiler.onnx_io import opset, packed_constants, schema
from qcompiler.onnx_io.gelu_parts import without_gelu
from qcompiler.onnx_io.model_file import check, detach
from qcompiler.onnx_io.sharing import hoist_initializers, share_constants
from qcompiler.shapes import infer
from qcompiler.version import __version__

EXTERNAL_FROM = 1_800_000_000
"""Bytes from which weights go to a file beside the model; protobuf itself ends at 2 GiB."""
_INLINE = 1024
"""Bytes up to which a weight stays in the model all the same."""

Feed = Mapping[str, NDArray[Any]]


def to_model(graph: Graph, *, pack: bool = True) -> onnx.ModelProto:
    """``graph`` as a checked model of the lowest opset that can express it; ``graph`` is not changed.

    Args:
        graph: what to write.
        pack: store few-valued constants in fewer bits, which may ask for a newer opset.

    Raises:
        ExportError: onnx's checker refuses it.
    """
    graph = without_gelu(packed_constants.packed(graph) if pack else graph)
    lowest = min(schema.needed_opset(graph), graph.opset)
    for version in sorted({lowest, graph.opset}):
        model, weights = _at_opset(graph, version)
        if _refusal(model, full=True) is None:
            return _filled(model, weights)
    # onnx's inference has its own faults: models exist that only onnxruntime accepts
    model, weights = _at_opset(graph, lowest)
    refusal = _refusal(model, full=False)
    if refusal is not None:
        raise ExportError(f"the compiled graph is not a valid model: {one_line(refusal)}")
    return _filled(model, weights)


def _refusal(light: onnx.ModelProto, *, full: bool) -> Exception | None:
    """What onnx's checker says of a model whose large weights are elsewhere: to it they are inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(light)
    elsewhere = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in elsewhere:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        model.graph.initializer.remove(tensor)
    try:
        check(model, full=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return error
    return None


def _filled(light: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """The model with its weights in it."""
    for tensor in light.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = weights[tensor.name].tobytes()
    return light


def _at_opset(graph: Graph, version: int) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model without its large weights, and those by name."""
    copy = copy_of(graph)
    if version != copy.opset:
        opset.convert(copy, version)
    for body in (copy, *copy.subgraphs(recursive=True)):
        schema.drop_defaults(body, version)
    infer.annotate(copy)
    share_constants(copy)
    domains = _domains(copy, version)
    model, weights = light_model(copy)
    hoist_initializers(model.graph)
    _drop_implied_types(model.graph)
    del model.opset_import[:]
    model.opset_import.extend(domains)
    model.ir_version = onnx.helper.find_min_ir_version_for(domains, ignore_unknown=True)
    restore(model, graph, ("qcompiler", __version__))
    return model, weights


def _drop_implied_types(graph: onnx.GraphProto) -> None:
    """Forget the types of what Q/DQ nodes write: those of what they read tell them."""
    implied = {
        name for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear") for name in node.output
    }
    kept = [value for value in graph.value_info if value.name not in implied]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _domains(graph: Graph, version: int) -> list[onnx.OperatorSetIdProto]:
    """The domains that are used, in alphabetical order."""
    declared = {entry.domain: entry.version for entry in graph.import_domains or []}
    bodies = [graph, *graph.subgraphs(recursive=True)]
    used = {node.domain for body in bodies for node in body.nodes if node.domain not in STANDARD_DOMAINS}
    return [
        onnx.helper.make_opsetid("", version),
        *(onnx.helper.make_opsetid(name, declared.get(name, 1)) for name in sorted(used)),
    ]


def save(
    model: Graph | onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    reference_feed: Feed | None = None,
    force: bool = False,
    pack: bool = True,
) -> None:
    """Write a model once onnxruntime has loaded it and run it on the feed, if any. All or nothing is written.

    Args:
        model: a graph, exported by `to_model`, or a finished model.
        path: target; weights above 1.8 GB in total go to ``<path>.data`` beside it.
        reference_feed: inputs to run the model on before it is written.
        force: replace an existing file.
        pack: see `to_model`.

    Raises:
        OptionError: the target is a folder, exists without ``force``, or its folder does not exist.
        ExportError: the model does not load or run, or gives infinite numbers or other shapes than it should.
    """
    target = Path(path)
    check_target(target, force=force)
    shapes_of = (
        _expected_shapes(model, reference_feed) if isinstance(model, Graph) and reference_feed is not None else {}
    )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            # gone before onnxruntime loads its own
            _write(model if isinstance(model, onnx.ModelProto) else to_model(model, pack=pack), draft)
            _execute(draft, reference_feed, shapes_of)
            for file in sorted(Path(folder).iterdir(), reverse=True):  # the weights before the model that names them
                file.replace(target.parent / file.name)
    except OSError as error:
        raise OptionError(f"{target}: cannot be written: {error.strerror or error}") from error


def check_target(target: Path, *, force: bool, option: str = "") -> None:
    """Refuse a place where no file may be written.

    Args:
        target: path of the file.
        force: it may exist.
        option: of the command line that named it; "" for none.

    Raises:
        OptionError: it is a folder, its folder does not exist, or it exists without ``force``.
    """
    where = f"{option} {target}".lstrip()
    if target.is_dir():
        raise OptionError(f"{where}: is a folder; name a file in it")
    if not target.parent.is_dir():
        raise OptionError(f"{where}: folder '{target.parent}' does not exist; create it first")
    if target.exists() and not force:
        raise OptionError(f"{where}: exists; {'add --force' if option else 'pass force=True'} to replace it")


def _write(model: onnx.ModelProto, path: Path) -> None:
    if model.ByteSize() >= EXTERNAL_FROM:
        model = _externalised(model, path.with_name(path.name + ".data"))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _externalised(model: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    """A model whose larger weights lie in the file ``data``, each on a page of its own so that it can be mapped."""
    light = onnx.ModelProto()
    light.CopyFrom(detach(model, None).model)
    del light.graph.input[len(model.graph.input) :]
    del light.graph.initializer[:]
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            light.graph.initializer.append(_moved(tensor, file, data.name))
    return light


def _moved(tensor: onnx.TensorProto, file: Any, location: str) -> onnx.TensorProto:
    if len(tensor.raw_data) <= _INLINE:
        return tensor
    offset = -(-file.tell() // 4096) * 4096
    file.seek(offset)
    file.write(tensor.raw_data)
    moved = onnx.TensorProto(
        name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", offset), ("length", len(tensor.raw_data))):
        moved.external_data.add(key=key, value=str(value))
    return moved


def _expected_shapes(graph: Graph, feed: Feed) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs for one feed, as far as inference tells."""
    sizes = {
        size: length
        for tensor in graph.inputs
        for size, length in zip(
            tensor.shape or (), feed[tensor.name].shape if tensor.name in feed else (), strict=False
        )
        if isinstance(size, str)
    }
    return dict(_evaluated(graph, sizes))


def _evaluated(graph: Graph, sizes: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    known = infer.infer_shapes(graph)
    for tensor in graph.outputs:
        shape = known.get(tensor.name)
        if shape is None or not isinstance(tensor, Variable):
            continue
        if all(isinstance(dim, int) or {symbol.name for symbol in dim.free_symbols} <= set(sizes) for dim in shape):
            yield tensor.name, tuple(infer.evaluate(dim, sizes) for dim in shape)


def _execute(path: Path, feed: Feed | None, expected: Mapping[str, tuple[int, ...]]) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # one run: not worth a second copy of the weights
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if feed is None:
            return
        names = [output.name for output in session.get_outputs()]
        results = dict(zip(names, session.run(names, dict(feed)), strict=True))
    except ORT_ERRORS as error:
        raise ExportError(
            f"onnxruntime cannot run the compiled model, so it was not written: {one_line(error)}"
        ) from error
    for name, result in results.items():
        if isinstance(result, np.ndarray) and result.dtype.kind == "f" and not np.isfinite(result).all():
            raise ExportError(
                f"output '{name}' of the compiled model is not finite on the given feed, so it was not written"
            )
        if name in expected and np.shape(result) != expected[name]:
            raise ExportError(
                f"output '{name}' of the compiled model has shape {np.shape(result)} instead of "
                f"{expected[name]}; it was not written"
            )
