"""A detector of shapes, trained in seconds: boxes in pixels and scores in one output, as YOLO's exporters write it.

docs/tutorials/detector.md goes through it step by step.

    python -m examples.tutorials.detector make build/detector
    python -m examples.tutorials.detector score build/detector/model.onnx build/detector/out.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from examples.tutorials.shared import Arrays, Run, model_of, open_model, train_layers

SIDE, CELLS, STRIDE, ANCHOR = 48, 6, 8, 10.0
"""Pixels of an image's side, cells along it, pixels of a cell's side, and of a usual object's."""
SHAPES = ("disc", "square", "cross")
Object = tuple[int, float, float, float]
"""Shape, centre (x, y) and side, in pixels."""


def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[Object]]:
    """An image [1, 48, 48] with one to three shapes on noise, and what is on it."""
    image = rng.normal(0.2, 0.05, (SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    objects: list[Object] = []
    first = rng.integers(1, 3, 2)
    for place in rng.permutation(4)[: rng.integers(1, 4)]:
        shape, side = int(rng.integers(3)), float(rng.uniform(8, 13))
        x, y = (STRIDE * cell + rng.uniform(1.5, 6.5) for cell in first + 2 * np.array([place % 2, place // 2]))
        across, down, reach = np.abs(columns + 0.5 - x), np.abs(rows + 0.5 - y), side / 2
        inside = np.maximum(across, down) < reach
        if shape == 0:
            inside = np.hypot(across, down) < reach
        if shape == 2:
            inside &= np.minimum(across, down) < side / 6
        image[inside] = rng.uniform(0.6, 1.0)
        objects.append((shape, x, y, side))
    return np.clip(image, 0, 1).astype(np.float32)[None], objects


def drawings(seed: int, count: int) -> tuple[np.ndarray, list[list[Object]]]:
    """Images [count, 1, 48, 48] and their objects."""
    rng = np.random.default_rng(seed)
    images, objects = zip(*(draw(rng) for _ in range(count)), strict=True)
    return np.stack(images), list(objects)


BACKBONE = """
    c0 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, w0, b0)  r0 = Relu(c0)
    c1 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r0, w1, b1)  r1 = Relu(c1)
    c2 = Conv <strides = [2, 2], pads = [2, 2, 2, 2]> (r1, w2, b2)  r2 = Relu(c2)"""

HEAD = """
    c3 = Conv <pads = [1, 1, 1, 1]> (r2, neck, neck_bias)  r3 = Relu(c3)
    raw = Conv(r3, head, head_bias)
    flat = Reshape(raw, cells)  rows = Transpose <perm = [0, 2, 1]> (flat)
    place, extent, object, shape = Split <axis = 2> (rows, parts)
    moved = Add(place, corners)  centre = Mul(moved, stride)
    grown = Exp(extent)  size = Mul(grown, anchor)
    there = Sigmoid(object)  which = Sigmoid(shape)  scores = Mul(there, which)
    detections = Concat <axis = 2> (centre, size, scores)"""


def train() -> onnx.ModelProto:
    """Three layers of random filters, and two on top of them that are trained on 1,200 drawings."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {}
    for layer, (out, of, taps) in enumerate([(16, 1, 3), (32, 16, 3), (64, 32, 5)]):
        filters = rng.standard_normal((out, of, taps, taps)) * np.sqrt(2 / (of * taps * taps))
        filters -= filters.mean((2, 3), keepdims=True) * (layer == 0)
        constants |= {f"w{layer}": filters.astype(np.float32), f"b{layer}": rng.normal(0, 0.05, out).astype(np.float32)}
    signature = "backbone (float[batch, 1, 48, 48] image) => (float[batch, 64, 6, 6] r2)"
    backbone = onnxruntime.InferenceSession(model_of(signature, BACKBONE, constants).SerializeToString())
    images, objects = drawings(1, 1200)
    (maps,) = backbone.run(None, {"image": images})
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # [N, 64, 6, 6, 3, 3]
    inputs = around.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 64 * 9)
    targets = np.zeros((len(images), CELLS, CELLS, 8), np.float32)
    for target, found in zip(targets, objects, strict=True):
        for shape, x, y, side in found:
            column, row = int(x // STRIDE), int(y // STRIDE)
            extent = np.log(side / ANCHOR)
            target[row, column, :5] = x / STRIDE - column, y / STRIDE - row, extent, extent, 1
            target[row, column, 5 + shape] = 1
    wanted = targets.reshape(-1, 8)
    chosen = (wanted[:, 4] == 1) | (rng.random(len(wanted)) < 0.25)  # most cells are empty
    inputs, wanted = inputs[chosen], wanted[chosen]

    def slopes(rows: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Of squares for boxes and of logistic losses for the rest; where no object is, only its absence counts."""
        truth = wanted[rows]
        there = np.r_[np.ones(4) * 4, 0, np.ones(3)] * truth[:, 4:5] + np.eye(8)[4]
        return there * (np.c_[answers[:, :4], 1 / (1 + np.exp(-answers[:, 4:]))] - truth)

    neck, neck_bias, head, head_bias = train_layers(inputs, slopes, hidden=64, outputs=8, steps=2500)
    column, row = np.meshgrid(np.arange(CELLS), np.arange(CELLS))
    constants |= {
        "neck": np.ascontiguousarray(neck.T).reshape(64, 64, 3, 3),
        "neck_bias": neck_bias,
        "head": np.ascontiguousarray(head.T).reshape(8, 64, 1, 1),
        "head_bias": head_bias,
        "cells": np.array([0, 8, CELLS * CELLS]),
        "parts": np.array([2, 2, 1, 3]),
        "corners": np.stack([column.ravel(), row.ravel()], 1).astype(np.float32),
        "stride": np.float32(STRIDE),
        "anchor": np.float32(ANCHOR),
    }
    signature = "detector (float[batch, 1, 48, 48] image) => (float[batch, 36, 7] detections)"
    return model_of(signature, BACKBONE + HEAD, constants)


def feeds() -> Iterator[Arrays]:
    """Calibration feeds: 32 drawings that are neither trained on nor tested with."""
    for image in drawings(2, 32)[0]:
        yield {"image": image[None]}


def test_feeds() -> Iterator[Arrays]:
    """The drawings that models are scored on, for qdiff and qrun."""
    for image in drawings(3, 200)[0]:
        yield {"image": image[None]}


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    low = np.maximum(first[:2] - first[2:] / 2, second[:2] - second[2:] / 2)
    high = np.minimum(first[:2] + first[2:] / 2, second[:2] + second[2:] / 2)
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (np.prod(first[2:]) + np.prod(second[2:]) - shared))


def kept(detections: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Shapes and boxes of the detections [36, 7] above one half, without those that overlap a better one."""
    found: list[tuple[int, np.ndarray]] = []
    for row in detections[np.argsort(-detections[:, 4:].max(1))]:
        if row[4:].max() > 0.5 and all(overlap(row[:4], box) < 0.3 for _, box in found):
            found.append((int(row[4:].argmax()), row[:4]))
    return found


def score(run: Run) -> float:
    """F1 on 200 drawings: an object is found by a box of its shape that overlaps it by more than one half."""
    images, objects = drawings(3, 200)
    right = told = there = 0
    for detections, wanted in zip(run({"image": images})["detections"], objects, strict=True):
        found = kept(detections)
        told, there = told + len(found), there + len(wanted)
        for shape, x, y, side in wanted:
            truth = np.array([x, y, side, side])
            right += any(shape == other and overlap(truth, box) > 0.5 for other, box in found)
    return 2 * right / (told + there)


def main(action: str, *paths: str) -> None:
    """Make the model in a folder, or score model files."""
    if action == "make":
        Path(paths[0]).mkdir(parents=True, exist_ok=True)
        onnx.save(train(), Path(paths[0]) / "model.onnx")
    for path in paths if action == "score" else ():
        print(f"{path}: F1 {score(open_model(path)):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
