"""Random small models in which a fill is joined to data, padded around them or moved with them; either may be empty."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers.exact_members import FILLS, WIDTH, Feed, Member, data_of, model_of, weight_of

_PART = {
    "after": "y = Concat <axis = AXIS> (h, p)",
    "before": "y = Concat <axis = AXIS> (p, h)",
    "moved": "j = Concat <axis = AXIS> (h, p)  t = Transpose <perm = [1, 0, 2]> (j)  y = Reshape(t, flat)",
    "split": "j = Concat <axis = AXIS> (h, p)  y, z = Split <axis = 2> (j, halves)",
    "picked": "j = Concat <axis = AXIS> (h, p)  y = ReduceMax <axes = [AXIS], keepdims = 0> (j)",
    "behind": "j = Concat <axis = AXIS> (h, p)  m = ReduceMax <axes = [AXIS], keepdims = 1> (j)  y = MatMul(m, u)",
}
_COMPUTED = {
    "product": "ones = ConstantOfShape <value = float[1] {1}> (sizes)  p = Mul(ones, low)",
    "expanded": "p = Expand(low, sizes)",
    "constant": "p = ConstantOfShape <value = float[1] {LOW}> (sizes)",
}


def _used(text: str, constants: dict[str, Any]) -> dict[str, Any]:
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: value for name, value in constants.items() if name in words}


JOINED = tuple(_PART)


def joined(rng: np.random.Generator, how: str) -> Member:
    """What a layer gives, filled up to a fixed size along some axis; often there is nothing to fill."""
    low, axis, full = float(rng.choice([-100.0, *FILLS])), int(rng.integers(0, 2)), 9
    written = _COMPUTED[str(rng.choice(list(_COMPUTED) if low > -1e30 else ["product", "expanded"]))]
    sizes = ["one_i", "rows" if axis else "missing", "missing" if axis else "rows", "width"][1:]
    results = {"split": f"float[A, B, {WIDTH // 2}] y, float[A, B, {WIDTH // 2}] z"}.get(how, "float[] y")
    text = f"""g (float[N, T, {WIDTH}] x) => ({results}) {{
        h = MatMul(x, w)  s = Shape(h)  rows = Gather(s, other_i)  there = Gather(s, axis_i)  missing = Sub(full, there)
        sizes = Concat <axis = 0> ({", ".join(sizes)})  {written}  {_PART[how]} }}"""
    text = text.replace("AXIS", str(axis)).replace("LOW", repr(low))
    constants = {
        "w": weight_of(rng, WIDTH, WIDTH), "low": np.float32(low), "axis_i": np.array([axis]), "full": np.array([full]),
        "other_i": np.array([1 - axis]), "width": np.array([WIDTH]), "flat": np.array([-1, WIDTH]),
        "halves": np.array([WIDTH // 2, WIDTH // 2]), "u": weight_of(rng, WIDTH, 4),
    }  # fmt: skip

    def feed(rows: int, length: int) -> Feed:
        return {"x": data_of(rng, *((rows, length) if axis else (length, rows)), WIDTH)}

    calibration = [feed(3, int(length)) for length in (full, *rng.integers(1, full + 1, 23))]
    trial = [feed(2, full), feed(2, 1), feed(4, int(rng.integers(2, full)))]
    wanted = dict.fromkeys(("y", "z") if how == "split" else ("y",), 22.0)
    return Member(model_of(text, _used(text, constants)), calibration, trial, wanted)


def padded(rng: np.random.Generator, how: str) -> Member:
    """What a layer gives, with a fill around it, or fills of both signs among it."""
    low = float(rng.choice([*FILLS, -np.inf]))
    part = {
        "pad": "y = Pad(h, pads, low)",
        "both signs": "a = Where(first, high, h)  y = Where(second, low, a)",
    }[how]
    masks = "" if how == "pad" else f", bool[N, T, {WIDTH}] first, bool[N, T, 1] second"
    text = f"g (float[N, T, {WIDTH}] x{masks}) => (float[] y) {{ h = MatMul(x, w)  {part} }}"
    constants: dict[str, Any] = {"w": weight_of(rng, WIDTH, WIDTH), "low": np.float32(low), "high": np.float32(1e9)}
    constants["pads"] = np.array([0, *rng.integers(0, 3, 1), 0, 0, *rng.integers(0, 3, 1), 1])

    def feed(rows: int, length: int) -> Feed:
        found: Feed = {"x": data_of(rng, rows, length, WIDTH)}
        chosen = {"first": rng.random((rows, length, WIDTH)) < 0.2, "second": rng.random((rows, length, 1)) < 0.3}
        return found if how == "pad" else found | chosen

    feeds = [feed(int(rng.integers(1, 4)), int(rng.integers(1, 9))) for _ in range(27)]
    return Member(model_of(text, _used(text, constants)), feeds[:24], feeds[24:], {"y": 22.0})


PADDED = ("pad", "both signs")
