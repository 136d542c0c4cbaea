"""Operators of computed indices as their parts, and on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.api import Options, compile
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Session
from tests.helpers.expanding import Feed, check_on_machine, check_same, model_of, real

RNG = np.random.default_rng(0)
array = np.array
seeds = st.integers(0, 2**32 - 1)
FIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "GatherElements": ("y = GatherElements <axis = 1> (x, i)", {"i": RNG.integers(-5, 5, (2, 3, 6))}),
    "GatherND": ("y = GatherND(x, i)", {"i": array([[0, 1], [1, -2], [0, 0]])}),
    "ScatterElements": (
        "y = ScatterElements <axis = 1> (x, i, u)", {"i": array([[[0, -1, 2]], [[3, 4, 1]]]), "u": real(1, 2, 1, 3)},
    ),
    "ScatterND": ("y = ScatterND(x, i, u)", {"i": array([[0, 1], [1, -2], [0, 0]]), "u": real(1, 3, 6)}),
    "ScatterND of single elements": ("y = ScatterND(x, i, u)", {"i": array([[0, 1, 5], [1, -2, 0]]), "u": real(1, 2)}),
    "Hardmax": ("y = Hardmax <axis = 1> (x)", {}),
}  # fmt: skip


ON_MACHINE = ("GatherElements", "ScatterND", "Hardmax")
"""One of each kind of parts."""


@pytest.mark.parametrize("case", FIXED)
def test_of_known_sizes(case: str) -> None:
    body, constants = FIXED[case]
    model = model_of("float[2, 5, 6] x", body, **constants)
    check_same(model, {"x": real(0, 2, 5, 6)})
    if case in ON_MACHINE:
        check_on_machine(model, [{"x": real(seed, 2, 5, 6)} for seed in range(12)], 35)


@pytest.mark.parametrize(("op", "shape", "axis"), [("GatherElements", (2, 4, 3), -1), ("GatherND", (2, 3, 1), None)])
def test_indices_that_are_inputs(op: str, shape: tuple[int, ...], axis: int | None) -> None:
    attrs = "axis = -1" if axis else "batch_dims = 1"
    sizes = ", ".join(map(str, shape))
    model = model_of(f"float[2, 5, 6] x, int64[{sizes}] i", f"y = {op} <{attrs}> (x, i)")
    feeds: list[Feed] = [
        {"x": real(seed, 2, 5, 6), "i": np.random.default_rng(seed).integers(-5, 5, shape)} for seed in range(12)
    ]
    check_same(model, feeds[0])
    check_on_machine(model, feeds, 30)


@pytest.mark.parametrize("axis", [1, -1])
def test_one_hot(axis: int) -> None:
    body = f"h = OneHot <axis = {axis}> (i, d, v)  y = Mul(h, x)"
    model = model_of("int64[4, 4] i, float[4, 4, 4] x", body, d=array(4), v=array([0.5, 2], np.float32))
    feeds: list[Feed] = [
        {"i": np.random.default_rng(seed).integers(-4, 4, (4, 4)), "x": real(seed, 4, 4, 4)} for seed in range(12)
    ]
    check_on_machine(model, feeds, 30)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("last", [0, 1])
def test_arg_min(axis: int, last: int) -> None:
    body = f"y = ArgMin <axis = {axis}, select_last_index = {last}, keepdims = 0> (x)"
    check_same(model_of("float[2, 5, 6] x", body, "int64 y"), {"x": np.round(real(0, 2, 5, 6))})


def places(rng: np.random.Generator, shape: tuple[int, ...], taken: tuple[int, ...], axis: int) -> np.ndarray:
    """Indices along an axis, each of them once, some counted from the end."""
    found = np.argsort(rng.random(shape), axis=axis)[tuple(slice(size) for size in taken)]
    return found - shape[axis] * rng.integers(0, 2, taken)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, rank=st.integers(1, 4), known=st.booleans(), of=st.sampled_from(["float", "int64"]))
def test_elements_are_taken_and_put_along_an_axis(seed: int, rank: int, known: bool, of: str) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, 6, rank))
    axis = int(rng.integers(rank))
    taken = tuple(int(rng.integers(1, size + 1)) for size in shape)
    wide = ", ".join(map(str, shape)) if known else ", ".join(f"X{i}" for i in range(rank))
    few = ", ".join(map(str, taken)) if known else ", ".join(f"I{i}" for i in range(rank))
    x = rng.standard_normal(shape).astype(np.float32) if of == "float" else rng.integers(-9, 9, shape)
    updates = rng.permutation(x.reshape(-1))[: int(np.prod(taken))].reshape(taken)
    inputs = f"{of}[{wide}] x, int64[{few}] i"
    feed = {"x": x, "i": places(rng, shape, taken, axis)}
    check_same(model_of(inputs, f"y = GatherElements <axis = {axis}> (x, i)", f"{of} y"), feed)
    if rank == 1 and of == "int64":
        return  # the machine has this ScatterElements
    put = model_of(f"{inputs}, {of}[{few}] u", f"y = ScatterElements <axis = {axis}> (x, i, u)", f"{of} y")
    remaining = 1 if rank > 1 or of == "float" else 0
    check_same(put, {**feed, "u": updates}, remaining=remaining)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, depth=st.integers(1, 3), known=st.booleans())
def test_rows_are_put_at_computed_places(seed: int, depth: int, known: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, 5, 3))
    count = int(rng.integers(1, int(np.prod(shape[:depth])) + 1))
    flat = rng.permutation(int(np.prod(shape[:depth])))[:count]
    rows = np.stack(np.unravel_index(flat, shape[:depth]), -1)
    sizes = [str(size) if known or axis >= depth else f"X{axis}" for axis, size in enumerate(shape)]
    rest = [str(size) for size in shape[depth:]]
    inputs = f"float[{', '.join(sizes)}] x, int64[M, {depth}] i, float[{', '.join(['M', *rest])}] u"
    model = model_of(inputs, "y = ScatterND(x, i, u)")
    feed = {"x": real(seed % 99, *shape), "i": rows, "u": real(seed % 98, count, *shape[depth:])}
    check_same(model, feed)


def agreed(model: Any, feeds: list[Feed], least_db: float) -> None:
    """The program is near the float model, on feeds that calibration did not see, and integers are equal."""
    result = compile(model, data=feeds[:-3], options=Options(2), for_onnx=False)
    session, reference = Session(result.program), Runner(model)
    for feed in feeds[-3:]:
        expected, got = reference.run(feed), session.run(feed)
        for name, values in expected.items():
            if values.dtype.kind != "f":
                np.testing.assert_array_equal(got[name], values)
                continue
            noise = float(np.square(values - got[name]).sum())
            assert 10 * np.log10(float(np.square(values).sum()) / max(noise, 1e-12)) >= least_db


def apart(seed: int, *shape: int) -> np.ndarray:
    """Numbers of which no two are within a step of a grid of 8 bits."""
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(np.linspace(-1, 1, count, dtype=np.float32)).reshape(shape)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("sizes", ["4, 5, 6", "N, 5, M"])
def test_the_largest_and_what_goes_with_them(sizes: str, axis: int, largest: int) -> None:
    """As detectors choose: scores by value, other features by the places of these."""
    body = f"""v, i = TopK <axis = {axis}, largest = {largest}> (x, k)  y = Mul(v, two)
        z = GatherElements <axis = {axis}> (b, i)"""
    model = model_of(
        f"float[{sizes}] x, float[{sizes}] b", body, "float y, float z, int64 i", k=array([3]), two=np.float32(2)
    )
    agreed(model, [{"x": apart(seed, 4, 5, 6), "b": real(seed, 4, 5, 6)} for seed in range(12)], 35)


def test_sequences_sorted_by_their_lengths_and_back() -> None:
    """As PyTorch exports a packed sequence: TopK of the lengths, and the inverse of that order by a ScatterElements."""
    body = """n = Shape <start = 0, end = 1> (l)  s, i = TopK(l, n)  h = Gather <axis = 0> (x, i)  one_n = Squeeze(n)
        c = Range(zero, one_n, one)  e = Shape(i)  d = ConstantOfShape <value = int64[1] {0}> (e)
        b = ScatterElements <axis = 0> (d, i, c)  g = Mul(h, two)  y = Gather <axis = 0> (g, b)"""
    model = model_of(
        "float[N, 3] x, int64[N] l", body, "float y, int64 s", two=np.float32(2), zero=array(0), one=array(1)
    )
    feeds: list[Feed] = [
        {"x": real(seed, 2 + seed % 4, 3), "l": np.random.default_rng(seed).integers(1, 9, 2 + seed % 4)}
        for seed in range(12)
    ]
    agreed(model, feeds, 35)


def test_a_cache_is_written_at_a_computed_place() -> None:
    """As static caches of decoders are: rows of keys put at the position of the step."""
    body = "c = ScatterND(past, at, k)  s = Mul(c, two)  y = Relu(s)"
    model = model_of("float[8, 4] past, int64[1, 1] at, float[1, 4] k", body, "float c, float y", two=np.float32(2))
    feeds: list[Feed] = [
        {"past": real(seed, 8, 4), "at": array([[seed % 8 - 8 * (seed % 2)]]), "k": real(seed + 50, 1, 4)}
        for seed in range(12)
    ]
    agreed(model, feeds, 35)


@pytest.mark.parametrize("op", ["ScatterElements <axis = 1, reduction = \"add\">", "ScatterND <reduction = \"max\">"])
def test_reductions_are_declined(op: str) -> None:
    depth = "1" if "ND" in op else "2"
    model = model_of(f"float[4, 2] x, int64[3, {depth}] i, float[3, 2] u", f"h = {op} (x, i, u)  y = Relu(h)")
    feeds = [{"x": real(0, 4, 2), "i": np.zeros((3, int(depth)), np.int64), "u": real(1, 3, 2)}] * 3
    result = compile(model, data=feeds, options=Options(0), for_onnx=False)
    with pytest.raises(Exception, match="Scatter"):
        assert result.program


SUMS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "elements of a vector": (
        "float[N] x, int64[E] i, float[E] u",
        'z = ConstantOfShape(s)  q = Mul(u, two)  y = ScatterElements <reduction = "add"> (z, i, q)', (),
    ),
    "rows": (
        "float[N, 3] x, int64[E] i, float[E, 3] u",
        'i1 = Unsqueeze(i, one)  t = Shape(u)  i2 = Expand(i1, t)  y = ScatterElements <reduction = "add"> (x, i2, u)',
        (3,),
    ),
    "rows of matrices": (
        "float[N, 2, 3] x, int64[E] i, float[E, 2, 3] u",
        'i1 = Unsqueeze(i, both)  t = Shape(u)  i2 = Expand(i1, t)  y = ScatterElements <reduction = "add"> (x, i2, u)',
        (2, 3),
    ),
    "rows by ScatterND": (
        "float[N, 3] x, int64[E] i, float[E, 3] u",
        'i1 = Unsqueeze(i, one)  y = ScatterND <reduction = "add"> (x, i1, u)', (3,),
    ),
}  # fmt: skip


def graph_feed(seed: int, rest: tuple[int, ...]) -> Feed:
    """Nodes with features, edges that end at them, messages."""
    rng = np.random.default_rng(seed)
    nodes, edges = int(rng.integers(3, 9)), int(rng.integers(1, 25))
    return {"x": real(seed, nodes, *rest), "i": rng.integers(-nodes, nodes, edges), "u": real(seed + 1, edges, *rest)}


@pytest.mark.parametrize("case", SUMS)
def test_messages_summed_at_the_nodes_of_a_graph(case: str) -> None:
    inputs, body, rest = SUMS[case]
    model = model_of(inputs, f"s = Shape(x)  {body}", one=array([1]), both=array([1, 2]), two=array(2, np.float32))
    feeds = [graph_feed(seed, rest) for seed in range(30)]
    for feed in feeds[:4]:
        check_same(model, feed)
    check_on_machine(model, feeds, 30)


def test_sums_along_another_axis_at_constant_places() -> None:
    places = np.broadcast_to(array([2, 0, 2, -1]), (3, 4))
    body = 'y = ScatterElements <axis = 1, reduction = "add"> (x, i, u)'
    check_same(model_of("float[3, 5] x, float[3, 4] u", body, i=places), {"x": real(0, 3, 5), "u": real(1, 3, 4)})


@pytest.mark.parametrize(("reduction", "columns"), [("max", 3), ("mul", 3), ("add", 2)])
def test_other_reductions_and_partial_rows_stay(reduction: str, columns: int) -> None:
    body = f'i1 = Expand(i, t)  y = ScatterElements <reduction = "{reduction}"> (x, i1, u)'
    model = model_of(f"float[4, 3] x, float[5, {columns}] u", body, i=RNG.integers(0, 4, (5, 1)), t=array([5, columns]))
    check_same(model, {"x": real(0, 4, 3), "u": real(1, 5, columns)}, remaining=1)
