"""Which bytes an instruction touches, which rules its numbers obey, how much scratch memory its kernel needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..cpu.isa import LANES
from .conv_windows import SLACK, band_bytes, is_banded, is_summed, summed_bytes
from .depthwise_layout import depthwise_bytes, is_depthwise, is_depthwise_size
from .instruction import (
    BLOCK,
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    ELEMENT_SIZE,
    HUGE,
    MAX_RANK,
    TILE_BYTES,
    ZERO_BYTES,
    Access,
    Element,
    Limit,
    Values,
)
from .winograd import can_transform, transformed_bytes

_TERMS = 1 << 15
"""Of softmax, that are kept at a time."""


def element_size(f: Values, operand: str) -> int:
    """Bytes of an element of an operand."""
    return ELEMENT_SIZE[Element(f[f"{operand}_type"])]


def dense(f: Values, operand: str, count: int, write: bool = False, offset: int = 0) -> list[Access]:
    """``count`` elements from ``offset`` on."""
    if count <= 0:
        return []
    size = element_size(f, operand)
    return [Access(operand, offset * size, (offset + count) * size, write)]


def inout(f: Values, operand: str, count: int) -> list[Access]:
    """``count`` elements, read and written."""
    return [*dense(f, operand, count), *dense(f, operand, count, write=True)]


def constant(operand: str, size: int, count: int) -> list[Access]:
    """``count`` elements of ``size`` bytes."""
    return [Access(operand, 0, size * count, False)] if count > 0 else []


def strided(
    f: Values, operand: str, dims: Sequence[int], strides: Sequence[int], write: bool = False, offset: int = 0
) -> list[Access]:
    """A walk over ``dims`` with element ``strides``, negative ones too."""
    if any(d <= 0 for d in dims):
        return []
    reach = [(d - 1) * s for d, s in zip(dims, strides, strict=True)]
    first = offset + sum(min(r, 0) for r in reach)
    last = offset + sum(max(r, 0) for r in reach)
    size = element_size(f, operand)
    return [Access(operand, first * size, (last + 1) * size, write)]


def pitched(f: Values, operand: str, lines: int, run: int) -> list[Access]:
    """``lines`` of ``run`` elements are written, a pitch of its own apart (0: densely), from an offset of its
    own on.
    """
    pitch = f[f"{operand}_pitch"] or run
    return strided(f, operand, [lines, run], [pitch, 1], True, f[f"{operand}_offset"])


def walked(f: Values, operand: str, write: bool = False, offset: int = 0) -> list[Access]:
    """The walk over d0..d5 with an operand's own strides."""
    dims = [f[f"d{i}"] for i in range(MAX_RANK)]
    return strided(f, operand, dims, [f[f"{operand}_s{i}"] for i in range(MAX_RANK)], write, offset)


def walk_count(f: Values) -> int:
    """Elements of the walk over d0..d5."""
    count = 1
    for i in range(MAX_RANK):
        count *= f[f"d{i}"]
    return count


def walk_rules(f: Values) -> list[str]:
    """A walk is of a sane length."""
    return [] if walk_count(f) <= HUGE else ["more than 2^40 elements"]


def requant_constants(f: Values, count: int) -> list[Access]:
    """One multiplier and shift each."""
    return [*constant("m", 4, count), *constant("n", 4, count)]


def shift_limits(*names: str) -> Callable[[Values], list[Limit]]:
    """Shifts that the arithmetic allows."""
    return lambda _: [Limit(name, 1, 62) for name in names]


def image(f: Values, channels: str) -> int:
    """Elements of the output image."""
    return f["batch"] * f["out_h"] * f["out_w"] * f[channels]


def conv_accesses(f: Values) -> list[Access]:
    """Of ``conv``."""
    outputs = f["out_c"]
    taps = f["kernel_h"] * f["kernel_w"]
    return [
        *dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *constant("w", 1, taps * (f["in_c"] // f["groups"]) * outputs), *constant("bias", 4, outputs),
        *requant_constants(f, outputs), *pitched(f, "y", f["batch"] * f["out_h"] * f["out_w"], outputs),
    ]


def conv_transpose_accesses(f: Values) -> list[Access]:
    """Of ``conv_transpose``."""
    taps = f["kernel_h"] * f["kernel_w"]
    return [
        *dense(f, "x", f["batch"] * f["in_h"] * f["in_w"] * f["in_c"]),
        *constant("w", 1, taps * f["in_c"] * (f["out_c"] // f["groups"])), *constant("bias", 4, f["out_c"]),
        *requant_constants(f, f["out_c"]), *dense(f, "y", image(f, "out_c"), write=True),
    ]


def group_rules(f: Values) -> list[str]:
    """Channels divide into groups."""
    broken = [name for name in ("in_c", "out_c") if f[name] % f["groups"]]
    return [f"{name} = {f[name]} is not a multiple of groups = {f['groups']}" for name in broken] + work_rules(f)


def work_rules(f: Values) -> list[str]:
    """A convolution is of a sane size."""
    work = image(f, "out_c") * f["kernel_h"] * f["kernel_w"]
    return [] if work <= 1 << 46 else ["more than 2^46 multiplications"]


def gemm_accesses(f: Values) -> list[Access]:
    """Of ``gemm``."""
    rows, k, cols = f["rows"], f["k"], f["cols"]
    return [
        *strided(f, "x", (rows, k), (f["x_row"], 1), offset=f["x_offset"]),
        *constant("w", 1, k * cols),
        *constant("bias", 4, cols),
        *requant_constants(f, cols),
        *strided(f, "y", (rows, cols), (f["y_row"], 1), True, f["y_offset"]),
    ]


def matmul_accesses(f: Values) -> list[Access]:
    """Of ``matmul``."""
    batch = [f[f"b{i}"] for i in range(4)]
    sides = (("a", ("rows", "k"), False), ("b", ("k", "cols"), False), ("y", ("rows", "cols"), True))
    result: list[Access] = []
    for name, inner, write in sides:
        strides = [*(f[f"{name}_s{i}"] for i in range(4)), f[f"{name}_row"], f[f"{name}_col"]]
        result += strided(f, name, [*batch, *(f[i] for i in inner)], strides, write, f[f"{name}_offset"])
    if f["k"] == 0:
        return [access for access in result if access.write]
    return result


def matmul_rules(f: Values) -> list[str]:
    """A product is of a sane size."""
    work = f["rows"] * max(f["k"], 1) * f["cols"]
    for i in range(4):
        work *= f[f"b{i}"]
    return [] if work <= 1 << 46 else ["more than 2^46 multiplications"]


def three(f: Values) -> int:
    """Elements of [outer, k, inner]."""
    return f["outer"] * f["k"] * f["inner"]


def reduced(f: Values) -> int:
    """Elements of [outer, inner]."""
    return f["outer"] * f["inner"]


def nonempty_axis(f: Values) -> list[str]:
    """There is something to reduce."""
    return ["the reduced axis is empty"] if f["k"] == 0 and reduced(f) > 0 else []


def resize_rules(f: Values) -> list[str]:
    """Every output pixel has an input image to be taken from."""
    empty = f["in_h"] * f["in_w"] == 0
    return ["the input image is empty, the output is not"] if empty and image(f, "in_c") > 0 else []


def norm_parameters(f: Values) -> int:
    """Length of gamma and beta."""
    return f["channels"] if f["per_row"] else f["k"]


def norm_rules(f: Values) -> list[str]:
    """A normalization whose sums cannot overflow."""
    broken = nonempty_axis(f)
    if f["k"] > 1 << 15:
        broken.append(f"{f['k']} normalized elements; at most 32768 are exact")
    if f["epsilon_q"] * f["k"] ** 2 >= 1 << 62:
        broken.append(f"epsilon_q = {f['epsilon_q']} overflows with {f['k']} elements")
    if f["per_row"] and f["channels"] == 0:
        broken.append("channels is 0")
    return broken


def pool_rules(f: Values) -> list[str]:
    """A pool is of a sane size."""
    area = f["in_c"] * f["batch"] * f["out_h"] * f["out_w"] * f["kernel_h"] * f["kernel_w"]
    return [] if area <= 1 << 46 else ["more than 2^46 window elements"]


def recurrent_accesses(gates: int) -> Callable[[Values], list[Access]]:
    """Of ``lstm`` (4 gates) and ``gru`` (3 gates)."""
    def accesses(f: Values) -> list[Access]:
        steps, batch, inputs, hidden = f["steps"], f["batch"], f["inputs"], f["hidden"]
        wide = gates * hidden
        result = [
            *dense(f, "x", steps * batch * inputs), *constant("w", 1, inputs * wide), *constant("r", 1, hidden * wide),
            *strided(f, "y", (steps, batch, hidden), (f["y_step"], f["y_row"], 1), True, f["y_offset"]),
            *inout(f, "h", batch * hidden), *constant("table_f", 2, 65536), *constant("table_g", 2, 65536),
        ]
        for name in ("bias_w", "m_w", "n_w", "bias_r", "m_r", "n_r"):
            result += constant(name, 4, wide)
        if f["has_lengths"]:
            result += dense(f, "lengths", batch)
        if gates == 4:
            result += [*inout(f, "c", batch * hidden), *constant("table_h", 2, 65536)]
        return result

    return accesses


def recurrent_rules(f: Values) -> list[str]:
    """The state is on the grid of the output."""
    return ["the hidden state h and the output y have different element types"] if f["h_type"] != f["y_type"] else []


def recurrent_scratch(f: Values, gates: int) -> int:
    """int32 sums of either product, gates and states, and a row of codes in whole steps."""
    return 4 * rounded(gates * f["hidden"] + LANES, 4) + rounded(max(f["inputs"], f["hidden"]) + 4, 2)


def rounded(count: int, size: int) -> int:
    """Bytes, rounded up to 64."""
    return -(-count * size // 64) * 64


def product_scratch(k: int, cols: int) -> int:
    """A block of rows of up to two bytes an element, padded to whole steps, and a tile's results; or plain
    accumulators.
    """
    return max(TILE_BYTES + 64 + rounded(BLOCK_ROWS * (k + 4), 2), rounded(cols, 4))


def matmul_scratch(f: Values) -> int:
    """Zeros, a tile's results, a block of rows and a block of columns as int16; or plain accumulators."""
    columns_at_once = -(-min(f["cols"], BLOCK_COLUMNS) // 16) * 16
    packed = TILE_BYTES + ZERO_BYTES + rounded((BLOCK_ROWS + columns_at_once) * (f["k"] + 2), 2)
    return max(packed, rounded(f["cols"], 8))


def conv_scratch(f: Values) -> int:
    """Scratch memory of ``conv``."""
    plain = rounded(f["out_c"], 4)
    if is_depthwise(f["groups"], f["in_c"], f["out_c"]):
        return max(plain, depthwise_bytes(f) if is_depthwise_size(f) else 0)
    taps = f["kernel_h"] * f["kernel_w"]
    if can_transform(f):
        plain = max(plain, transformed_bytes(f))
    return max(plain, TILE_BYTES + rounded(taps + 4, 8) + (rounded(band_bytes(f), 1) + SLACK if is_banded(f) else 0))


def conv_transpose_scratch(f: Values) -> int:
    """Scratch memory of ``conv_transpose``."""
    return max(rounded(f["out_c"], 4), summed_bytes(f) if is_summed(f) else 0)


def softmax_columns(k: int, inner: int) -> int:
    """Lines of a softmax, side by side, that are computed at a time: their terms stay in the second cache."""
    return min(inner, BLOCK, max(_TERMS // max(k, 1), LANES))


def softmax_scratch(f: Values) -> int:
    """int32 terms of the lines that are computed at a time, and codes of a block or a line."""
    return rounded(f["k"] * softmax_columns(f["k"], f["inner"]), 4) + rounded(max(BLOCK, f["k"]), 2)
