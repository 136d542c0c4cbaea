"""Runs a graph on onnxruntime: the reference for everything the compiler claims.

onnxruntime replaces quantized layers by integer kernels of its own, and those saturate on x86 CPUs without VNNI
(``vpmaddubsw``): the same file then gives other answers there. The compiler judges quantized graphs with these
replacements switched off: layers are computed in float between DequantizeLinear and QuantizeLinear, on every CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnxruntime.capi import onnxruntime_pybind11_state as state

from qcompiler.errors import ModelError, one_line
from qcompiler.graph.ir import STANDARD_DOMAINS, Constant, Graph, Variable
from qcompiler.graph.origin import restore_sequences
from qcompiler.graph.steady_kernels import FUSIONS_BY_CPU, make_steady

__all__ = ["ORT_ERRORS", "PROVIDERS", "Runner", "light_model"]

ORT_ERRORS = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""What onnxruntime raises; its errors share no base class of their own."""

_SHARED_FROM = 1 << 16
"""Bytes from which a weight is handed to onnxruntime where it lies, instead of in the model's bytes (which end at 2
GiB)."""

PROVIDERS = ["CPUExecutionProvider"]


@cache
def _known_operators() -> frozenset[tuple[str, str]]:
    return frozenset((schema.domain, schema.name) for schema in state.get_all_operator_schema())


def refuse_unknown_operators(graph: Graph) -> None:
    """ModelError, naming the node, where onnxruntime does not know an operator and so cannot run the model."""
    for body in (graph, *graph.subgraphs(recursive=True)):
        for node in body.nodes:
            if node.domain not in STANDARD_DOMAINS and (node.domain, node.op) not in _known_operators():
                inputs = ", ".join(
                    f"'{tensor.name}'" for tensor in node.inputs if isinstance(tensor, Variable) and tensor.name
                )
                raise ModelError(
                    f"node '{node.name}' ({node.domain}.{node.op}): onnxruntime has no such operator, so the model "
                    "cannot be run here; "
                    f"cut the model in front of it (at {inputs}) and run that node outside"
                )


Weights = Mapping[str, NDArray[Any]]


class Runner:
    """An onnxruntime session over a graph. Large weights of a graph are shared with it, not copied.

    Args:
        model: a graph or a model.
        weights: with a model: the weights that `light_model` took out of it.
        outputs: names of the tensors to return; any tensor of the graph may be asked for. Default: its outputs.
        fusions: False runs every operator as written, without onnxruntime's optimizer.
        integer_kernels: True runs quantized layers on onnxruntime's integer kernels,
        as a session of default options does. They saturate on
            CPUs without VNNI: for showing what a user of the file gets on this CPU, never for a decision.
        threads: 1 by default, so that two runs of a program give the same bits.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """

    def __init__(
        self, model: Graph | onnx.ModelProto, outputs: Sequence[str] | None = None, *, weights: Weights | None = None,
        fusions: bool = True, integer_kernels: bool = False, threads: int = 1,
    ) -> None:  # fmt: skip
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if fusions else level.ORT_DISABLE_ALL
        if not integer_kernels:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if isinstance(model, onnx.ModelProto):
            proto, self._shared = onnx.ModelProto(), weights or {}
            proto.CopyFrom(model)
        else:
            proto, self._shared = light_model(model)
        known = {out.name for out in proto.graph.output}
        self._wanted = list(outputs) if outputs is not None else [out.name for out in proto.graph.output]
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(self._wanted) if name not in known
        )
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in self._shared.values()]
        options.add_external_initializers(list(self._shared), values)
        if not integer_kernels:
            make_steady(proto)
        left_out = [] if integer_kernels else FUSIONS_BY_CPU
        serialized = proto.SerializeToString()

        def opened() -> ort.InferenceSession:
            return ort.InferenceSession(serialized, options, providers=PROVIDERS, disabled_optimizers=left_out)

        try:
            self._session = opened()
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime cannot load the model: {one_line(error, 400)}") from error
        self._options, self._opened, self._is_optimized = options, opened, fusions
        self._sequences = {entry.name for entry in self._session.get_inputs() if entry.type.startswith("seq(")}

    @property
    def types(self) -> dict[str, str]:
        """The types of the wanted tensors as onnxruntime names them: ``tensor(float)``,
        ``seq(map(int64,tensor(float)))``.
        """
        return {output.name: output.type for output in self._session.get_outputs()}

    def run(self, feed: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Values of the wanted tensors, or of ``outputs`` among them, for one feed; only what these need is computed.

        Raises:
            ModelError: onnxruntime cannot run the model on this feed.
        """
        wanted, how = self._wanted if outputs is None else list(outputs), ort.RunOptions()
        how.only_execute_path_to_fetches = outputs is not None
        given = {name: self._given(name, value) for name, value in feed.items()}
        try:
            values = self._session.run(wanted, given, how)
        except ORT_ERRORS as error:
            values = self._run_as_written(wanted, given, how, error)
        return dict(zip(wanted, (_as_array(value) for value in values), strict=True))

    def _run_as_written(self, wanted: list[str], given: dict[str, Any], how: ort.RunOptions, error: Exception) -> Any:
        """What the optimizer broke, without it: onnxruntime 1.32 moves a Transpose away from Q/DQ nodes whose codes or
        values are asked for, and then cannot run what reads them.
        """
        if not self._is_optimized:
            raise ModelError(f"onnxruntime cannot run the model: {one_line(error, 400)}") from error
        self._options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = self._opened()
            values = session.run(wanted, given, how)
        except ORT_ERRORS:
            raise ModelError(f"onnxruntime cannot run the model: {one_line(error, 400)}") from error
        self._session, self._is_optimized = session, False
        return values

    def _given(self, name: str, value: NDArray[Any]) -> Any:
        """An input as onnxruntime takes it: a sequence, told as `run` tells one, as a list; arithmetic makes scalars of
        arrays of rank 0.
        """
        return list(value) if name in self._sequences else np.asarray(value)


def _as_array(value: Any) -> NDArray[Any]:
    """A tensor as it is; a sequence as an array of objects."""
    if isinstance(value, np.ndarray):
        return value
    items = value if isinstance(value, list) else [value]
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def light_model(graph: Graph) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """The model without its large weights, and those by name."""
    large = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            stored = isinstance(tensor, Constant) and isinstance(tensor._values, LazyValues)
            # strings, 4-bit integers: as they came
            if isinstance(tensor, Constant) and not stored and tensor.values.nbytes >= _SHARED_FROM:
                large[tensor.name] = tensor
    with _stubs(list(large.values())) as arrays:
        model = gs.export_onnx(graph, do_type_check=False)
        restore_sequences(model.graph, graph)
        return model, arrays


@contextmanager
def _stubs(constants: Sequence[Constant]) -> Iterator[dict[str, NDArray[Any]]]:
    """Lets the constants export as references to external data; gives their values by name."""
    arrays = {constant.name: np.ascontiguousarray(constant.values) for constant in constants}
    kept = [constant._values for constant in constants]
    try:
        for constant in constants:
            constant._values = LazyValues(_reference(constant.name, arrays[constant.name]))
        yield arrays
    finally:
        for constant, values in zip(constants, kept, strict=True):
            constant._values = values


def _reference(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=array.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "in_memory"), ("offset", 0), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
