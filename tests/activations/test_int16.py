"""Where 16-bit inputs are proven to fit, and what they are worth where states are fed back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler.activations.int16 import gemm_slots, is_state, slot_fits
from qcompiler.graph.ir import Graph, copy_of
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of

Feed = dict[str, np.ndarray]
Run = Callable[[Feed], dict[str, np.ndarray]]


def lstm(weights: np.ndarray, bias: np.ndarray) -> Graph:
    return graph_of(
        f"""g (float[T, 1, {weights.shape[2]}] x, float[1, 1, 2] h, float[1, 1, 2] c) => (float[T, 1, 1, 2] y) {{
            y = LSTM <hidden_size = 2> (x, w, r, b, , h, c) }}""",
        w=weights, r=np.ones((1, 8, 2), np.float32), b=bias,
    )  # fmt: skip


@pytest.mark.parametrize(("inputs", "bias", "fits"), [(64, 1.0, True), (512, 1.0, False), (4, 1e4, False)])
def test_a_sequence_of_16_bits_fits_what_its_products_and_biases_leave(inputs: int, bias: float, *, fits: bool) -> None:
    weights, scale = np.full((1, 8, inputs), 0.5, np.float32), 1 / 32767
    node = lstm(weights, np.full((1, 16), bias, np.float32)).nodes[-1]
    assert slot_fits(node, 0, {}, scale) == fits
    worst = 127 * inputs * 2**15 + bias / (scale * 0.5 / 127)
    assert not fits or worst < 2**31


def test_states_are_not_multiplied_as_they_come() -> None:
    node = lstm(np.ones((1, 8, 4), np.float32), np.zeros((1, 16), np.float32)).nodes[-1]
    assert gemm_slots(node.inputs) == [(node, 0)]
    assert [is_state(node, slot) for slot in (0, 5, 6)] == [False, True, True]


def network(rng: np.random.Generator, kind: str, *, stacked: bool) -> Graph:
    """One step of a recurrent network with its state as input and output; the LSTM remembers for long."""
    inputs, hidden = int(rng.integers(4, 12)), int(rng.integers(8, 24))
    gates = 4 if kind == "LSTM" else 3
    bias = rng.normal(0, 0.3, (1, 2 * gates * hidden)).astype(np.float32)
    if kind == "LSTM":
        bias[0, 2 * hidden : 3 * hidden] += rng.uniform(1, 4, hidden)
    cell = f"y, hn{', cn' if kind == 'LSTM' else ''} = {kind} <hidden_size = {hidden}> "
    if kind == "GRU":
        state, names = f"float[1, 1, {hidden}] s", "float[1, 1, H] sn"
        body = f"{cell}(x, w, r, b, , s)  sn = Identity(hn)"
    elif stacked:
        state, names = f"float[2, 1, {hidden}] s", "float[2, 1, H] sn"
        body = f"h = Slice(s, zero, one)  c = Slice(s, one, two)  {cell}(x, w, r, b, , h, c)  "
        body += "sn = Concat <axis = 0> (hn, cn)"
    else:
        state, names = f"float[1, 1, {hidden}] h, float[1, 1, {hidden}] c", "float[1, 1, H] hs, float[1, 1, H] cs"
        body = f"{cell}(x, w, r, b, , h, c)  hs = Identity(hn)  cs = Identity(cn)"
    constants = {
        "w": rng.normal(0, 1 / np.sqrt(inputs), (1, gates * hidden, inputs)).astype(np.float32),
        "r": rng.normal(0, 1 / np.sqrt(hidden), (1, gates * hidden, hidden)).astype(np.float32),
        "b": bias, "v": rng.normal(0, 2 / np.sqrt(hidden), (hidden, 1)).astype(np.float32), "axes": np.array([0, 1]),
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
    }  # fmt: skip
    text = f"""g (float[1, 1, {inputs}] x, {state}) => (float[1, 1] p, {names.replace("H", str(hidden))}) {{ {body}
        f = Squeeze(hn, axes)  u = Unsqueeze(f, zero)  l = MatMul(u, v)  p = Sigmoid(l) }}"""
    read = {name: value for name, value in constants.items() if f"{name})" in text or f" {name}," in text}
    return graph_of(text, **read)


def chain(run: Run, graph: Graph, steps: int, rng: np.random.Generator, seen: list[Feed] | None = None) -> np.ndarray:
    """Answers of so many steps, each with the state of the one before."""
    size = graph.inputs[0].shape[-1]
    state = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in graph.inputs[1:]}
    answers, level = [], np.zeros(size)
    for _ in range(steps):
        level = 0.9 * level + rng.normal(0, 0.6, size)
        feed = {"x": level.astype(np.float32)[None, None], **state}
        if seen is not None:
            seen.append(feed)
        got = run(feed)
        after = [np.asarray(got[tensor.name], np.float32) for tensor in graph.outputs[1:]]
        state = dict(zip(state, after, strict=True))
        answers.append(float(got["p"].reshape(())))
    return np.array(answers)


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize(("kind", "stacked"), [("LSTM", True), ("LSTM", False), ("GRU", False)])
@pytest.mark.parametrize("seed", range(2))
def test_a_chain_of_steps_keeps_to_the_float_one(seed: int, kind: str, *, stacked: bool, for_onnx: bool) -> None:
    rng = np.random.default_rng([seed, len(kind), stacked])
    graph, seen = network(rng, kind, stacked=stacked), list[Feed]()
    real = Runner(graph).run
    for _ in range(3):
        chain(real, graph, 30, rng, seen)
    compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=seen, for_onnx=for_onnx)
    run: Run = Runner(compiled.graph).run if for_onnx else compiled.session().run
    wanted, got = (chain(each, graph, 400, np.random.default_rng(seed)) for each in (real, run))
    errors = np.square(got - wanted)
    assert np.sqrt(errors.mean()) < 0.01
    assert np.sqrt(errors[-100:].mean()) < 0.01


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("seed", range(2))
def test_a_first_state_beyond_1_is_not_clipped(seed: int, kind: str) -> None:
    rng = np.random.default_rng([seed, 5])
    graph, most = network(rng, kind, stacked=False), 5.0 if kind == "LSTM" else 1.9

    def feed() -> Feed:
        return {tensor.name: rng.uniform(-most, most, tensor.shape).astype(np.float32) for tensor in graph.inputs}

    model, feeds = gs.export_onnx(copy_of(graph)), [feed() for _ in range(60)]
    session = qcompiler.compile(model, data=feeds, for_onnx=False).session()
    real, errors = Runner(graph).run, list[float]()
    for given in (feed() for _ in range(20)):
        wanted, got = real(given), session.run(given)
        errors += [float(np.abs(wanted[name] - got[name]).max() / np.abs(wanted[name]).max()) for name in list(got)[1:]]
    assert np.median(errors) < 0.02
    assert max(errors) < 0.1
