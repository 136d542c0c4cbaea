"""Resize of symbolic sizes on the machine, on sizes that calibration did not show; onnxruntime's float is the judge."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler.api import Options
from qcompiler.graph.runner import Runner
from qcompiler.lowering import to_integer_onnx
from tests.helpers.graphs import graph_of

Feed = dict[str, np.ndarray]

TRANSFORMS = ("align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")
BY_SCALES = "y = Resize <mode = {mode}, coordinate_transformation_mode = {transform}{more}> (r, , scales)"
BY_SIZES = """
    s = Shape(z)  c = Slice(s, two, four)  f = Shape <end = 2> (r)  sizes = Concat <axis = 0> (f, c)
    y = Resize <mode = {mode}, coordinate_transformation_mode = {transform}{more}> (r, , , sizes)"""


def feed(rng: np.random.Generator, size: tuple[int, int], other: tuple[int, int]) -> Feed:
    smooth = rng.uniform(-1, 1, (1, 2, *size)).astype(np.float32)
    return {"x": smooth, "z": rng.uniform(-1, 1, (1, 2, *other)).astype(np.float32)}


def compare(body: str, constants: dict[str, np.ndarray], seed: int, least_db: float, same: float = 1.0) -> None:
    """``least_db`` where the outputs agree, which they do for a share ``same`` of the elements."""
    graph = graph_of(
        "g (float[N, 2, H, W] x, float[N, 2, P, Q] z) => (float[N, 2, H2, W2] y, float[N, 2, P, Q] t) {"
        f" r = Relu(x)  t = Relu(z) {body} }}", opset=19, **constants,
    )  # fmt: skip
    model = gs.export_onnx(graph)
    rng = np.random.default_rng(seed)
    data = [feed(rng, (5, 6), (9, 8)), feed(rng, (7, 7), (8, 12)), feed(rng, (4, 9), (5, 5))]
    result = qcompiler.compile(model, data=data, options=Options(level=0), for_onnx=False)
    machine, written, real = result.session(), Runner(to_integer_onnx(result.integer_graph)), Runner(model)
    for _ in range(6):
        fresh = feed(rng, *[(int(a), int(b)) for a, b in rng.integers(2, 14, (2, 2))])  # type: ignore[misc]
        got, wanted = machine.run(fresh)["y"], real.run(fresh)["y"]
        np.testing.assert_array_equal(got, written.run(fresh)["y"])
        assert got.shape == wanted.shape
        near = np.abs(got - wanted) < 0.05
        assert near.mean() >= same
        noise = float(np.square((got - wanted)[near]).sum())
        assert float(np.square(wanted[near]).sum()) >= noise * 10 ** (least_db / 10)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_by_sizes(transform: str) -> None:
    body = BY_SIZES.format(mode='"linear"', transform=f'"{transform}"', more="")
    compare(body, {"two": np.array([2]), "four": np.array([4])}, 1, 35)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0, 2.75])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_by_scales(transform: str, scale: float) -> None:
    body = BY_SCALES.format(mode='"linear"', transform=f'"{transform}"', more="")
    compare(body, {"scales": np.array([1, 1, scale, 3 - scale / 2], np.float32)}, 2, 35)


NEAREST = [
    (transform, how)
    for transform in TRANSFORMS
    for how in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    if (transform, how) != ("half_pixel_symmetric", "floor")  # float32 puts most places just below whole numbers
]


@pytest.mark.parametrize(("transform", "how"), NEAREST)
def test_nearest(transform: str, how: str) -> None:
    names = {"mode": '"nearest"', "transform": f'"{transform}"', "more": f', nearest_mode = "{how}"'}
    ties = 0.9 if transform == "half_pixel_symmetric" else 1.0  # where float32 rounds a place away from an integer
    compare(BY_SCALES.format(**names), {"scales": np.array([1, 1, 1.5, 0.5], np.float32)}, 3, 35, ties)
    compare(BY_SIZES.format(**names), {"two": np.array([2]), "four": np.array([4])}, 4, 35, same=0.7)
