"""Random small decoders: rotary positions, grouped heads, a cache of keys and values; calibrated on few tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.graph.runner import Runner
from tests.helpers.exact_members import Feed, Member, model_of, weight_of

HEAD = 8
WAYS = ("steps", "prompts and steps")
"""Calibrated on single tokens behind a cache, or on whole prompts (an empty cache), too."""


def decoder(rng: np.random.Generator, how: str) -> Member:
    """A decoder with the feeds that it gives itself, a random token after the other."""
    layers, groups, tokens = int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(60, 200))
    heads = groups * int(rng.integers(1, 4))
    width = heads * HEAD
    table = (weight_of(rng, tokens, width) * np.sqrt(tokens) / 2).astype(np.float32)
    constants = {"table": table, **_shared(heads, groups)}
    body = [_START]
    for index in range(layers):
        body.append(_layer(index, "t" if not index else f"r{index - 1}"))
        constants |= _weights(rng, index, width, heads, groups)
    constants["n"] = rng.uniform(0.7, 1.4, width).astype(np.float32)
    body.append(_norm("z", f"r{layers - 1}", "n"))
    body.append("head = Transpose <perm = [1, 0]> (table)  logits = MatMul(z, head)")
    model = model_of(_signature(layers, groups, tokens) + "{" + "\n".join(body) + "}", constants)
    runner = Runner(model)
    told = [_conversation(runner, rng, layers, groups, tokens) for _ in range(8)]
    first = 1 if how == "steps" else 0
    calibration = [feed for feeds in told[:4] for feed in feeds[first:4]]
    wanted = {"logits": 20.0} | {f"present.{i}.{what}": 20.0 for i in range(layers) for what in ("key", "value")}
    return Member(model, calibration, [feed for feeds in told[4:] for feed in feeds], wanted)


_START = """t = Gather(table, ids)  f = Cast <to = 1> (positions)  u = Unsqueeze(f, two_i)  a = Mul(u, frequencies)
e = Concat <axis = -1> (a, a)  c0 = Cos(e)  s0 = Sin(e)  cos = Unsqueeze(c0, one_i)  sin = Unsqueeze(s0, one_i)
zi = Shape(ids)  li = Gather(zi, one_i)  length = Squeeze(li)  zm = Shape(mask)  lm = Gather(zm, one_i)
total = Squeeze(lm)  columns = Range(zero_s, total, one_s)  begin = Sub(total, length)
rows = Range(begin, total, one_s)  column = Unsqueeze(columns, zero_i)  row = Unsqueeze(rows, one_i)
allowed = LessOrEqual(column, row)  kept = Cast <to = 9> (mask)  k3 = Unsqueeze(kept, twelve)
all3 = Unsqueeze(allowed, zero_one)  both = And(all3, k3)  bias = Where(both, zero, low)"""


def _norm(result: str, source: str, gain: str) -> str:
    i = result
    return f"""q_{i} = Pow({source}, two)  m_{i} = ReduceMean <axes = [-1], keepdims = 1> (q_{i})
        a_{i} = Add(m_{i}, small)  s_{i} = Sqrt(a_{i})  d_{i} = Div(one, s_{i})  p_{i} = Mul({source}, d_{i})
        {result} = Mul({gain}, p_{i})"""


def _rotated(result: str, source: str) -> str:
    i = result
    return f"""l_{i}, h_{i} = Split <axis = -1> ({source})  n_{i} = Neg(h_{i})
        t_{i} = Concat <axis = -1> (n_{i}, l_{i})  x_{i} = Mul({source}, cos)  y_{i} = Mul(t_{i}, sin)
        {result} = Add(x_{i}, y_{i})"""


def _repeated(result: str, source: str) -> str:
    i = result
    return f"""z_{i} = Shape({source})  b_{i} = Gather(z_{i}, zero_i)  g_{i} = Gather(z_{i}, two_i)
        u_{i} = Unsqueeze({source}, two_i)
        e_{i} = Concat <axis = 0> (b_{i}, group_each, g_{i}, head_i)  x_{i} = Expand(u_{i}, e_{i})
        f_{i} = Concat <axis = 0> (b_{i}, all_heads, g_{i}, head_i)  {result} = Reshape(x_{i}, f_{i})"""


def _layer(i: int, source: str) -> str:
    return f"""{_norm(f"b{i}", source, f"n{i}")}
        qa{i} = MatMul(b{i}, wq{i})  qb{i} = Reshape(qa{i}, by_heads)  qc{i} = Transpose <perm = [0, 2, 1, 3]> (qb{i})
        ka{i} = MatMul(b{i}, wk{i})  kb{i} = Reshape(ka{i}, by_groups)  kc{i} = Transpose <perm = [0, 2, 1, 3]> (kb{i})
        va{i} = MatMul(b{i}, wv{i})  vb{i} = Reshape(va{i}, by_groups)  vc{i} = Transpose <perm = [0, 2, 1, 3]> (vb{i})
        {_rotated(f"qd{i}", f"qc{i}")}
        {_rotated(f"kd{i}", f"kc{i}")}
        "present.{i}.key" = Concat <axis = 2> ("past.{i}.key", kd{i})
        "present.{i}.value" = Concat <axis = 2> ("past.{i}.value", vc{i})
        {_repeated(f"ke{i}", f'"present.{i}.key"')}
        {_repeated(f"ve{i}", f'"present.{i}.value"')}
        kt{i} = Transpose <perm = [0, 1, 3, 2]> (ke{i})  sa{i} = MatMul(qd{i}, kt{i})  sb{i} = Mul(sa{i}, temper)
        sc{i} = Add(sb{i}, bias)  sd{i} = Softmax <axis = -1> (sc{i})  oa{i} = MatMul(sd{i}, ve{i})
        ob{i} = Transpose <perm = [0, 2, 1, 3]> (oa{i})  oc{i} = Reshape(ob{i}, flat)  od{i} = MatMul(oc{i}, wo{i})
        h{i} = Add({source}, od{i})  {_norm(f"j{i}", f"h{i}", f"o{i}")}
        ga{i} = MatMul(j{i}, wg{i})  gb{i} = Sigmoid(ga{i})  gc{i} = Mul(ga{i}, gb{i})  up{i} = MatMul(j{i}, wu{i})
        ma{i} = Mul(gc{i}, up{i})  mb{i} = MatMul(ma{i}, wd{i})  r{i} = Add(h{i}, mb{i})"""


def _shared(heads: int, groups: int) -> dict[str, Any]:
    low = np.float32(np.finfo(np.float32).min)
    return {
        "frequencies": (100.0 ** (-np.arange(HEAD // 2) / (HEAD // 2))).astype(np.float32)[None, None],
        "zero_i": np.array([0]), "one_i": np.array([1]), "two_i": np.array([2]), "twelve": np.array([1, 2]),
        "zero_one": np.array([0, 1]), "zero_s": np.array(0), "one_s": np.array(1), "zero": np.float32(0), "low": low,
        "two": np.float32(2), "one": np.float32(1), "small": np.float32(1e-6), "head_i": np.array([HEAD]),
        "by_heads": np.array([0, 0, heads, HEAD]), "by_groups": np.array([0, 0, groups, HEAD]),
        "group_each": np.array([groups, heads // groups]), "all_heads": np.array([heads]),
        "temper": np.float32(HEAD**-0.5), "flat": np.array([0, 0, heads * HEAD]),
    }  # fmt: skip


def _weights(rng: np.random.Generator, i: int, width: int, heads: int, groups: int) -> dict[str, Any]:
    found = {
        f"wq{i}": 1.5 * weight_of(rng, width, heads * HEAD), f"wk{i}": 1.5 * weight_of(rng, width, groups * HEAD),
        f"wv{i}": weight_of(rng, width, groups * HEAD), f"wo{i}": weight_of(rng, width, width),
        f"wg{i}": weight_of(rng, width, 2 * width), f"wu{i}": weight_of(rng, width, 2 * width),
        f"wd{i}": weight_of(rng, 2 * width, width),
    }  # fmt: skip
    gains = {f"{name}{i}": rng.uniform(0.7, 1.4, width).astype(np.float32) for name in "no"}
    return {name: value.astype(np.float32) for name, value in found.items()} | gains


def _signature(layers: int, groups: int, tokens: int) -> str:
    pasts = [f'float[B, {groups}, P, {HEAD}] "past.{i}.{what}"' for i in range(layers) for what in ("key", "value")]
    news = [f'float[B, {groups}, A, {HEAD}] "present.{i}.{what}"' for i in range(layers) for what in ("key", "value")]
    inputs = ", ".join(["int64[B, S] ids", "int64[B, A] mask", "int64[B, S] positions", *pasts])
    return f"g ({inputs}) => ({', '.join([f'float[B, S, {tokens}] logits', *news])}) "


def _conversation(runner: Runner, rng: np.random.Generator, layers: int, groups: int, tokens: int) -> list[Feed]:
    """A prompt, and three tokens behind it."""
    length, past = int(rng.integers(4, 9)), 0
    names = [f"past.{i}.{what}" for i in range(layers) for what in ("key", "value")]
    cache = {name: np.zeros((1, groups, 0, HEAD), np.float32) for name in names}
    found: list[Feed] = []
    for count in (length, 1, 1, 1):
        found.append({
            "ids": rng.integers(0, tokens, (1, count)), "mask": np.ones((1, past + count), np.int64),
            "positions": np.arange(past, past + count)[None], **cache,
        })  # fmt: skip
        answer = runner.run(found[-1])
        cache = {name.replace("present", "past"): value for name, value in answer.items() if name != "logits"}
        past += count
    return found

