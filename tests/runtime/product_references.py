"""What the tiles of products compute, in plain Python on checked memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcompiler.runtime import requant as spec
from qcompiler.runtime.instructions.instruction import SCALE_VECTORS
from qcompiler.runtime.vector.add_multiply import MOST_BYTES
from qcompiler.runtime.vector.sum_tiles import Flavour
from tests.runtime.checked_memory import CheckedMemory


def tile_reference(checked: CheckedMemory, layout: str, tile_rows: int, panels: int) -> Callable[..., None]:
    """What a register tile computes, on checked memory."""
    load_a = checked.loader(8, False) if layout == "quad" else checked.loader(16, True)
    load_b = checked.loader(16, True) if layout == "wide" else checked.loader(8, True)
    load_bias, load_pointer, store = checked.loader(32, True), checked.loader(64, True), checked.storer(32)
    group, step_bytes = (4 if layout == "quad" else 2), (32 if layout == "pair" else 64)

    def tile(
        pointers: int,
        offsets: int,
        segments: int,
        b: int,
        panel_bytes: int,
        steps: int,
        fetch: int,
        bias: int,
        acc: int,
    ) -> None:
        for r in range(tile_rows):
            sources = [load_pointer(pointers, r) + load_pointer(offsets, s) for s in range(segments)]
            left = [load_a(source + 4 * s, g) for source in sources for s in range(steps) for g in range(group)]
            for column in range(16 * panels):
                panel, lane = b + column // 16 * panel_bytes, column % 16
                right = [
                    load_b(panel + s * step_bytes, lane * group + g)
                    for s in range(segments * steps)
                    for g in range(group)
                ]
                total = sum(x * y for x, y in zip(left, right, strict=True))
                store(acc, r * 16 * panels + column, load_bias(bias, column) + total)

    return tile


def product_reference(checked: CheckedMemory, flavour: Flavour, rows: int, panels: int) -> Callable[..., None]:
    """What a product tile computes, on checked memory."""
    load_a = checked.loader(8, False) if flavour.layout == "quad" else checked.loader(16, True)
    load_b, load_head, load_pointer = checked.loader(8, True), checked.loader(32, True), checked.loader(64, True)
    group, step_bytes = (4, 64) if flavour.layout == "quad" else (2, 32)
    together, load_byte = 8 // flavour.weight_bits, checked.loader(8, False)

    def weight(b: int, panel_bytes: int, column: int, step: int, place: int) -> int:
        """The weight of a column at one place of a step."""
        if together == 1:
            return load_b(b + column // 16 * panel_bytes + step * step_bytes, column % 16 * group + place)
        block = b + 64 + (step // together * panels + column // 16) * step_bytes
        byte = load_byte(block, column % 16 * group + place)
        return load_b(b, byte >> (step % together * flavour.weight_bits) & ((1 << flavour.weight_bits) - 1))

    def tile(
        blocks: int,
        pointers: int,
        offsets: int,
        segments: int,
        b: int,
        panel_bytes: int,
        steps: int,
        fetch: int,
        fetches: int,
        heads: int,
        head_bytes: int,
        y: int,
        y_stride: int,
        count: int,
        wide: int,
        y_zp: int,
        lo: int,
        hi: int,
        shared: int,
    ) -> None:
        store, out = checked.storer(16 if wide else 8), spec.Range(y_zp, lo, hi)
        for r in range(blocks * rows):
            sources = [load_pointer(pointers, r) + load_pointer(offsets, s) for s in range(segments)]
            left = [load_a(source + 4 * s, g) for source in sources for s in range(steps) for g in range(group)]
            for column in range(16 * panels):
                right = [weight(b, panel_bytes, column, s, g) for s in range(segments * steps) for g in range(group)]
                total = load_head(heads, column) + sum(x * y for x, y in zip(left, right, strict=True))
                code = out.code(
                    scaled(total, [load_head(heads + (1 + i) * head_bytes, column) for i in range(SCALE_VECTORS)])
                )
                if column < count:
                    store(y + r * y_stride, column, code)

    return tile


def byte_reference(checked: CheckedMemory, flavour: Flavour, rows: int) -> Callable[..., None]:
    """What a tile of byte products computes, on checked memory; the sums that it keeps in int16 fit."""
    tile = product_reference(checked, flavour, rows, 1)
    load_x, load_w, load_pointer = checked.loader(8, False), checked.loader(8, True), checked.loader(64, True)

    def check(fitting: int, x: int, w: int, steps: int) -> None:
        for column in range(16):
            for pair in (0, 2):
                total = 0
                for step in range(steps):
                    total = 0 if step % fitting == 0 else total
                    total += sum(
                        load_x(x, 4 * step + i) * load_w(w, 64 * step + 4 * column + i) for i in (pair, pair + 1)
                    )
                    assert -(1 << 15) <= total < 1 << 15

    def run(fitting: int, memory: int, *arguments: int) -> None:
        blocks, pointers, offsets, segments, b, _, steps = arguments[:7]
        checked.storer(32)(memory, rows * 16 - 1, 0)
        if flavour.weight_bits == 8:
            for r in range(blocks * rows):
                for s in range(segments):
                    x = load_pointer(pointers, r) + load_pointer(offsets, s)
                    check(fitting, x, b + s * steps * 64, steps)
        tile(*arguments)

    return run


def scaled(total: int, scale: Sequence[int]) -> int:
    """What `codes.Scale` computes, in unbounded integers."""
    m, _, _, shift, left = scale
    return spec.requant(total << left, m, shift + 32)


def wide_product_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `multiply_wide` computes, on checked memory."""
    load, store = checked.loader(16, True), checked.storer(16)

    def multiply(
        y: int, a: int, b: int, blocks: int, a_zp: int, b_zp: int, m: int, c: int, n: int, lo: int, hi: int
    ) -> None:
        for i in range(16 * blocks):
            total = (load(a, i) - a_zp) * (load(b, i) - b_zp) * m + c
            assert -(2**63) <= total < 2**63
            store(y, i, min(max(total >> n, lo), hi))

    return multiply


def byte_products_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `multiply_bytes` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def multiply(
        y: int, a: int, b: int, blocks: int, a_zp: int, b_zp: int, m: int, half: int, shift: int, y_zp: int, lo: int,
        hi: int,
    ) -> None:  # fmt: skip
        for i in range(MOST_BYTES * blocks):
            upper = (load(a, i) - a_zp) * (load(b, i) - b_zp) * m >> 32
            store(y, i, min(max((upper + half >> shift) + y_zp, lo), hi))

    return multiply
