"""What the speed benchmarks run: models compiled by us, and quantized by onnxruntime's own tools."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import qcompiler
from benchmarks.tools.arguments import task_of
from qcompiler.api import Options

LIGHT = {
    "resnet50": "light_resnet50",
    "densenet121": "light_densenet121",
    "inception_v1": "light_inception_v1",
    "inception_v2": "light_inception_v2",
    "shufflenet": "light_shufflenet",
    "squeezenet": "light_squeezenet",
    "vgg19": "light_vgg19",
    "zfnet512": "light_zfnet512",
    "alexnet": "light_bvlc_alexnet",
}
"""Architectures without trained weights that come with the package onnx: for speed only."""

OLDEST_OPSET, NEW_OPSET = 13, 17
"""Opsets before the first know no scale for each channel; models that have one are brought to the second for
onnxruntime's quantizer."""

MACHINE, FEW_BITS = MACHINES = ("machine", "machine few bits")
ENGINES = (
    "onnxruntime float",
    "onnxruntime int8",
    "onnxruntime out.onnx",
    "openvino float",
    "openvino int8",
    "openvino out.onnx",
    *MACHINES,
)
"""The columns; the last is the machine with the weights that are asked for; *int8* is a file of onnxruntime's
``quantize_static``, *out.onnx* ours.
"""

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model with what each engine loads for it, and the file of one feed."""

    name: str
    files: dict[str, Path]
    feed: Path


def light_model(name: str) -> tuple[Path, list[Feed]]:
    """One of the `LIGHT` architectures and two random feeds."""
    path = Path(onnx.__file__).parent / "backend/test/data/light" / f"{LIGHT[name]}.onnx"
    model = onnx.load(path)
    known = {tensor.name for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    inputs = [info for info in model.graph.input if info.name not in known]
    shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in inputs}
    return path, [{key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()} for _ in range(2)]


def prepare(name: str, zoo: Path | None, folder: Path, weights: str = "") -> Case:
    """Compile and quantize ``name`` into ``folder``; for the last column with a grid of weights, if one is named."""
    if name in LIGHT:
        model, feeds = light_model(name)
        feed = feeds[0]
    else:
        task = task_of(name, zoo)
        model, feeds = task.model, [dict(feed) for feed in task.calibration[:8]]
        feed = {key: array[:1] for key, array in dict(task.feeds[0]).items()}
    result, program = folder / f"{name}.onnx", folder / f"{name}.qprog"
    qcompiler.compile(model, data=feeds).save(result)
    qcompiler.compile(model, data=feeds, for_onnx=False).save(program)
    files = {"onnxruntime float": model, "onnxruntime out.onnx": result, MACHINE: program}
    if weights:
        files[FEW_BITS] = folder / f"{name}-{weights}.qprog"
        options = Options(weights=weights)
        qcompiler.compile(model, data=feeds, options=options, for_onnx=False).save(files[FEW_BITS])
    peer = quantized_by_onnxruntime(model, feeds, folder / f"{name}-ort.onnx")
    if peer is not None:
        files["onnxruntime int8"] = peer
    if find_spec("openvino"):
        files |= {
            engine.replace("onnxruntime", "openvino"): path for engine, path in files.items() if engine not in MACHINES
        }
    np.savez(folder / f"{name}.npz", allow_pickle=False, **feed)
    return Case(name, files, folder / f"{name}.npz")


def quantized_by_onnxruntime(model: Path, feeds: list[Feed], target: Path) -> Path | None:
    """onnxruntime's own static quantization, MinMax and by channel; None where it fails or its result does not load."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static, shape_inference

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._left, None)

    try:
        prepared = target.with_suffix(".pre.onnx")
        shape_inference.quant_pre_process(
            str(folded_by_onnxruntime(model, target)), str(prepared), skip_symbolic_shape=True
        )
        quantize_static(
            str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )
        ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    except Exception as error:  # a peer may fail in any way; the table then shows a dash
        print(f"{model.name}: onnxruntime's quantizer: {str(error).splitlines()[0][:150]}", file=sys.stderr)
        return None
    return target


def folded_by_onnxruntime(path: Path, target: Path) -> Path:
    """The model in a form that the quantizer takes: a recent opset, weights that are constants and no inputs."""
    import onnxruntime as ort

    model = onnx.load(path)
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [info for info in model.graph.input if info.name not in known]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if any(entry.domain == "" and entry.version < OLDEST_OPSET for entry in model.opset_import):
        model.ir_version = max(model.ir_version, 8)
        model = onnx.version_converter.convert_version(model, NEW_OPSET)
    raised, folded = target.with_suffix(".opset.onnx"), target.with_suffix(".folded.onnx")
    onnx.save(model, raised)
    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 4, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    ort.InferenceSession(str(raised), options, providers=["CPUExecutionProvider"])
    return folded
