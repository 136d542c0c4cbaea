"""Attention, rotary positions and grouped queries as their parts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.expanding import Feed, check_on_machine, check_same, model_of, real

OF_HEADS = "float[2, S, 24] q, float[2, T, 12] k, float[2, T, 12] v"
BOOLS = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
ATTENTION = {
    "plain": ("", "", {}), "causal": (", is_causal = 1", "", {}), "scaled": (", scale = 0.7", "", {}),
    "capped, masked": (", softcap = 0.5", ", m", {"m": real(3, 3, 5)}), "masked by truth": ("", ", m", {"m": BOOLS}),
    "nothing to see": (", is_causal = 1", ", m", {"m": np.arange(5) > np.array([[0], [1], [0]])}),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case: str) -> None:
    attrs, mask, constants = ATTENTION[case]
    body = f"y = Attention <q_num_heads = 4, kv_num_heads = 2{attrs}> (q, k, v{mask})"
    feed = {"q": real(0, 2, 3, 24), "k": real(1, 2, 5, 12), "v": real(2, 2, 5, 12)}
    check_same(model_of(OF_HEADS, body, opset=23, **constants), feed, machine=False)


@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("shown", [0, 3])
def test_attention_behind_a_cache(past: int, shown: int) -> None:
    inputs = "float[2, 4, S, 6] q, float[2, 2, T, 6] k, float[2, 2, T, 7] v, float[2, 2, P, 6] pk, float[2, 2, P, 7] pv"
    body = f"y, a, b, z = Attention <is_causal = 1, qk_matmul_output_mode = {shown}> (q, k, v, , pk, pv)"
    feed = {
        "q": real(0, 2, 4, 3, 6), "k": real(1, 2, 2, 3, 6), "v": real(2, 2, 2, 3, 7), "pk": real(4, 2, 2, past, 6),
        "pv": real(5, 2, 2, past, 7),
    }  # fmt: skip
    check_same(model_of(inputs, body, "float y, float a, float b, float z", 23), feed, machine=False)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turned", [0, 4])
def test_rotary_positions(interleaved: int, turned: int) -> None:
    half, attrs = (turned or 8) // 2, f"interleaved = {interleaved}, rotary_embedding_dim = {turned}"
    places = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    tables = {"c": real(1, 20, half), "s": real(2, 20, half)}
    body = f"y = RotaryEmbedding <{attrs}> (x, c, s, p)"
    by_heads = model_of("float[2, 3, S, 8] x, int64[2, S] p", body, opset=23, **tables)
    check_same(by_heads, {"x": real(0, 2, 3, 4, 8), "p": places}, machine=False)
    body = f"y = RotaryEmbedding <{attrs}, num_heads = 3> (x, c, s)"
    flat = model_of("float[2, S, 24] x", body, opset=23, c=real(1, 2, 4, half), s=real(2, 2, 4, half))
    check_same(flat, {"x": real(0, 2, 4, 24)}, machine=False)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_positions_of_onnxruntime(interleaved: int) -> None:
    body = f"y = com.microsoft.RotaryEmbedding <interleaved = {interleaved}> (x, p, c, s)"
    tables, places = {"c": real(1, 20, 4), "s": real(2, 20, 4)}, np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    given = model_of("float[2, S, 24] x, int64[2, S] p", body, **tables)
    check_same(given, {"x": real(0, 2, 4, 24), "p": places}, machine=False)
    counted = model_of("float[2, 3, S, 8] x", body, p=np.array([5]), **tables)
    check_same(counted, {"x": real(0, 2, 3, 4, 8)}, machine=False)


GROUPED = {
    "plain": "", "turned": ", do_rotary = 1", "turned in pairs": ", do_rotary = 1, rotary_interleaved = 1",
    "windowed": ", local_window_size = 3", "capped": ", softcap = 2.0, scale = 0.3",
}  # fmt: skip


@pytest.mark.parametrize("sizes", [(1, 0, 4), (2, 0, 4), (2, 5, 1), (1, 4, 3)], ids=str)
@pytest.mark.parametrize("case", GROUPED)
def test_grouped_queries(case: str, sizes: tuple[int, int, int]) -> None:
    batch, past, length = sizes
    tables = {"c": real(5, 20, 8), "s": real(6, 20, 8)} if "turned" in case else {}
    body = f"""y, a, b = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2{GROUPED[case]}>
        (q, k, v, pk, pv, l, t{", c, s" if tables else ""})"""
    inputs = "float[B, S, 64] q, float[B, S, 32] k, float[B, S, 32] v, float[B, 2, P, 16] pk, float[B, 2, P, 16] pv"
    feed = {
        "q": real(0, batch, length, 64), "k": real(1, batch, length, 32), "v": real(2, batch, length, 32),
        "pk": real(3, batch, 2, past, 16), "pv": real(4, batch, 2, past, 16),
    }  # fmt: skip
    lengths = {"l": np.full(batch, past + length - 1, np.int32), "t": np.array(past + length, np.int32)}
    model = model_of(inputs, body, "float y, float a, float b", **tables, **lengths)
    check_same(model, feed, machine=False)


def test_packed_grouped_queries() -> None:
    body = "y, a, b = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2> (x, , , pk, pv, l, t)"
    inputs = "float[1, S, 128] x, float[1, 2, P, 16] pk, float[1, 2, P, 16] pv"
    lengths = {"l": np.array([4], np.int32), "t": np.array(5, np.int32)}
    feed = {"x": real(0, 1, 3, 128), "pk": real(3, 1, 2, 2, 16), "pv": real(4, 1, 2, 2, 16)}
    check_same(model_of(inputs, body, "float y, float a, float b", **lengths), feed, machine=False)


def test_attention_on_the_machine_at_other_lengths() -> None:
    body = """t = MatMul(x, w)  q, k, v = Split <axis = -1> (t, n)
        y = Attention <q_num_heads = 4, kv_num_heads = 2, is_causal = 1> (q, k, v)"""
    model = model_of(
        "float[B, S, 16] x", body, "float[B, S, 24] y", 23, w=real(7, 16, 48), n=np.array([24, 12, 12])
    )
    feeds: list[Feed] = [{"x": real(seed, 2, 3 + seed % 4, 16)} for seed in range(12)]
    check_on_machine(model, feeds, 28)
