"""Runs a graph on onnxruntime: the reference for everything the compiler claims."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from qcompiler.errors import ModelError
from qcompiler.ir import Graph

ORT_ERRORS = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
"""What onnxruntime raises; its errors share no base class of their own."""

_PROTO_LIMIT = 1_800_000_000
"""Bytes from which a model travels by external data; protobuf itself ends at 2 GiB."""


class Runner:
    """An onnxruntime session over a graph.

    Args:
        model: a graph or a model.
        outputs: names of the tensors to return; any tensor of the graph may be asked for. Default: its outputs.
        fusions: False runs every operator as written, without onnxruntime's optimizer.
        threads: 1 by default, so that two runs of a program give the same bits.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """

    def __init__(
        self, model: Graph | onnx.ModelProto, outputs: Sequence[str] | None = None, *, fusions: bool = True, threads: int = 1
    ) -> None:
        proto = model if isinstance(model, onnx.ModelProto) else gs.export_onnx(model, do_type_check=False)
        known = {out.name for out in proto.graph.output}
        self._wanted = list(outputs) if outputs is not None else [out.name for out in proto.graph.output]
        extra = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(self._wanted) if name not in known]
        proto.graph.output.extend(extra)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if fusions else level.ORT_DISABLE_ALL
        self._session = _session(proto, options)
        for _ in extra:
            proto.graph.output.pop()

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Values of the wanted tensors for one feed.

        Raises:
            ModelError: onnxruntime cannot run the model on this feed.
        """
        try:
            values = self._session.run(self._wanted, dict(feed))
        except ORT_ERRORS as error:
            raise ModelError(f"onnxruntime cannot run the model: {_one_line(error)}") from error
        return dict(zip(self._wanted, (np.asarray(value) for value in values), strict=True))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _session(proto: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return _open(proto, options)
    except ORT_ERRORS as error:
        raise ModelError(f"onnxruntime cannot load the model: {_one_line(error)}") from error


def _open(proto: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    providers = ["CPUExecutionProvider"]
    if proto.ByteSize() < _PROTO_LIMIT:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path, save_as_external_data=True, location="weights.bin")
        return ort.InferenceSession(str(path), options, providers=providers)
