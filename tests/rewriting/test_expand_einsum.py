"""Einsum as its parts: against onnxruntime's own kernel, and on the machine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.expand.expand_operators import ExpandOperators
from tests.helpers.expanding import check_on_machine, check_same, model_of, real

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1}


@st.composite
def equations(draw: st.DrawFn) -> tuple[list[str], str]:
    """The terms of one to three operands, and the result."""
    letters = st.lists(st.sampled_from([*SIZES]), min_size=1, max_size=4, unique=True).map("".join)
    terms = draw(st.lists(letters, min_size=1, max_size=3))
    everywhere = sorted(set("".join(terms)))
    result = draw(st.lists(st.sampled_from(everywhere), max_size=4, unique=True).map("".join))
    return terms, result


def operands(terms: list[str], seed: int) -> dict[str, np.ndarray]:
    return {f"x{i}": real(seed + i, *(SIZES[letter] for letter in term)) for i, term in enumerate(terms)}


@settings(max_examples=80, deadline=None)
@given(equation=equations(), seed=st.integers(0, 99), known=st.booleans(), stored=st.booleans(), data=st.data())
def test_any_equation(
    equation: tuple[list[str], str], seed: int, known: bool, stored: bool, data: st.DataObject
) -> None:
    terms, result = equation
    feed, constants = operands(terms, seed), {}
    if stored and len(terms) > 1:
        name = data.draw(st.sampled_from([*feed]))
        constants[name] = feed.pop(name)
    named = {letter: str(size) if known else f"S{letter}" for letter, size in SIZES.items()}
    sizes = {f"x{i}": ", ".join(named[letter] for letter in term) for i, term in enumerate(terms)}
    inputs = ", ".join(f"float[{sizes[name]}] {name}" for name in feed)
    body = f'y = Einsum <equation = "{",".join(terms)}->{result}"> ({", ".join(sizes)})'
    check_same(model_of(inputs, body, **constants), feed)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,...jk->...ik", [(2, 3, 4, 5), (2, 3, 5, 6)]),
        ("...ij,jk", [(2, 4, 5), (5, 6)]),
        ("ij...,jk->ik...", [(2, 3, 4), (3, 5)]),
        ("bij, bjk", [(2, 3, 4), (2, 4, 5)]),
        ("ba", [(2, 3)]),
        ("i,i", [(4,), (4,)]),
        ("...,...->...", [(3, 2), (1, 2)]),
    ],
)
def test_ellipsis_and_implied_results(equation: str, shapes: list[tuple[int, ...]]) -> None:
    feed = {f"x{i}": real(i, *shape) for i, shape in enumerate(shapes)}
    inputs = ", ".join(f"float[{', '.join(map(str, values.shape))}] {name}" for name, values in feed.items())
    model = model_of(inputs, f'y = Einsum <equation = "{equation}"> ({", ".join(feed)})')
    check_same(model, feed)


def test_a_diagonal_is_declined() -> None:
    graph = load_graph(model_of("float[3, 3] x", 'y = Einsum <equation = "ii->i"> (x)'))
    ctx = Context()
    Manager([ExpandOperators()]).run(graph, ctx)
    assert [each.reason for each in ctx.report.declined] == ["it takes a diagonal"]


@pytest.mark.parametrize("sizes", ["2, 5, 8", "N, T, 8"])
def test_attention_written_with_it(sizes: str) -> None:
    body = """q = Einsum <equation = "btd,dhk->bthk"> (x, wq)  k = Einsum <equation = "dhk,bsd->bhks"> (wk, x)
        v = Einsum <equation = "bsd,dhk->bshk"> (x, wv)  s = Einsum <equation = "bthk,bhks->bhts"> (q, k)
        p = Softmax <axis = -1> (s)  o = Einsum <equation = "bhts,bshk->bthk"> (p, v)
        y = Einsum <equation = "bthk,hkd->btd"> (o, wo)"""
    weights = {name: real(i + 70, 8, 2, 4) for i, name in enumerate(("wq", "wk", "wv"))}
    model = model_of(f"float[{sizes}] x", body, **weights, wo=real(79, 2, 4, 8))
    check_on_machine(model, [{"x": real(seed, 2, 5, 8)} for seed in range(12)], 27)


def test_positions_times_frequencies_are_exact_at_any_length() -> None:
    body = """n = Shape <start = 1, end = 2> (x)  l = Squeeze(n)  r = Range(zero, l, one)  p = Cast <to = 1> (r)
        a = Einsum <equation = "i, j -> i j"> (p, f)  s = Sin(a)  c = Cos(a)  e = Concat <axis = -1> (s, c)
        y = Add(x, e)"""
    constants = {"zero": np.array(0), "one": np.array(1), "f": np.array([1, 0.1, 0.01], np.float32)}
    model = model_of("float[N, T, 6] x", body, **constants)
    lengths = [*range(3, 12), 60, 200, 90]
    check_on_machine(model, [{"x": real(length, 1, length, 6)} for length in lengths], 33)


@pytest.mark.parametrize(
    "equation", ["ab,bc->ac", "ab,cb->ac", "abc,dc->abd", "abcd,acde->abce", "bc,abd->adc", "ab,ab->a"]
)
def test_letters_that_go_away_are_one_matrix_product(equation: str) -> None:
    feed = operands(equation.partition("->")[0].split(","), 0)
    inputs = ", ".join(f"float[{', '.join(map(str, values.shape))}] {name}" for name, values in feed.items())
    graph = load_graph(model_of(inputs, f'y = Einsum <equation = "{equation}"> (x0, x1)'))
    Manager([ExpandOperators()]).run(graph, Context())
    assert {node.op for node in graph.nodes} <= {"MatMul", "Transpose", "Reshape", "Unsqueeze"}
    assert sum(node.op == "MatMul" for node in graph.nodes) == 1
