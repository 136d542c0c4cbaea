"""Register tiles of matrix products as LLVM vector code, and which of them this CPU can run.

A *tile* multiplies up to six rows of activations with one or more *panels* of 16 columns of weights. Four bytes of a row
make one step: four uint8 (layout *quad*, for the dot-product instructions) or two int16 (layout *pair*). A panel holds, step
after step, the weights of its 16 columns for that step: 64 bytes in quad layout, 32 in pair layout, 64 in *wide* layout
(pairs of int16, for products of two activations). All flavours give the same int32 sums, bit for bit.

Every tile has the signature ``tile(a, a_stride, rows, b, panel_bytes, steps, bias, acc)``: addresses of the first row, bytes
between rows, rows that exist (the others repeat the last one), address of the first panel, bytes between panels, steps,
address of int32 start values (16 a panel), and of the int32 results [tile rows, 16 * panels].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from .isa import LANES as LANES
from .isa import Isa as Isa
from .isa import best_isa as best_isa

TILE_ROWS = 6
STEP_BYTES = 4

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))


class Flavour(NamedTuple):
    """How a step of a tile is computed: vector width in bits, the dot-product intrinsic ('' for multiply-add), its layout."""

    isa: Isa
    layout: str  # quad, pair or wide
    bits: int


def _vector(element: Any, count: int) -> Any:
    return ir.VectorType(element, count)


def _typed_dots() -> bool:
    """Whether this LLVM declares the dot products on vectors of bytes (22 and later) rather than of int32."""
    return bool(binding.llvm_version_info >= (22, 0, 0))


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function = builder.module.declare_intrinsic(name, (), ir.FunctionType(result, [argument.type for argument in arguments]))
    return builder.call(function, arguments)


def _dot(builder: Any, name: str, acc: Any, a: Any, b: Any) -> Any:
    """An instruction that multiplies, sums and accumulates; ``a`` and ``b`` are vectors of bytes or int16."""
    if not _typed_dots():
        a, b = builder.bitcast(a, acc.type), builder.bitcast(b, acc.type)
    return _call(builder, name, acc.type, [acc, a, b])


def _quad_step(builder: Any, flavour: Flavour, acc: Any, a: Any, b: Any) -> Any:
    bytes_type = _vector(_I8, flavour.bits // 8)
    name = "llvm.x86.avx512.vpdpbusd.512" if flavour.bits == 512 else "llvm.x86.avx512.vpdpbusd.256"
    return _dot(builder, name, acc, builder.bitcast(a, bytes_type), b)


def _pair_step(builder: Any, flavour: Flavour, acc: Any, a: Any, b: Any) -> Any:
    a = builder.bitcast(a, b.type)
    if flavour.isa is Isa.AVX512_VNNI:
        return _dot(builder, "llvm.x86.avx512.vpdpwssd.512", acc, a, b)
    if flavour.isa is Isa.AVX2:
        return builder.add(acc, _call(builder, "llvm.x86.avx2.pmadd.wd", acc.type, [a, b]))
    wide = _vector(_I32, b.type.count)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    halves = [
        builder.shuffle_vector(products, products, ir.Constant(_vector(_I32, acc.type.count), [2 * i + odd for i in range(acc.type.count)]))
        for odd in (0, 1)
    ]
    return builder.add(acc, builder.add(*halves))


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    kind = _vector(scalar.type, count)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(_vector(_I32, count), [0] * count))


def _load(builder: Any, kind: Any, base: Any, offset: Any = None, align: int = 1) -> Any:
    if offset is not None:
        base = builder.gep(base, [offset])
    return builder.load(builder.bitcast(base, kind.as_pointer()), align=align)


class _TileBuilder:
    """Writes the LLVM code of one tile."""

    def __init__(self, builder: Any, flavour: Flavour, rows: int, panels: int, arguments: Any) -> None:
        self.builder, self.flavour, self.rows, self.panels = builder, flavour, rows, panels
        self.a, self.a_stride, self.valid, self.b, self.panel_bytes, self.steps, self.bias, self.acc = arguments
        self.lanes = flavour.bits // 32
        self.parts = panels * LANES // self.lanes  # vectors of int32 in a row
        self.acc_type = _vector(_I32, self.lanes)

    def emit(self) -> None:
        builder = self.builder
        sources = [self._row_pointer(r) for r in range(self.rows)]
        panels = [self._pointer(builder.add(self.b, builder.mul(self.panel_bytes, ir.Constant(_I64, p)))) for p in range(self.panels)]
        start = self._start()
        entry, body, end = builder.basic_block, builder.append_basic_block("step"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", self.steps, ir.Constant(_I64, 0)), body, end)
        builder.position_at_end(body)
        step = builder.phi(_I64)
        sums = [[builder.phi(self.acc_type) for _ in range(self.parts)] for _ in range(self.rows)]
        updated = self._step(step, sources, panels, sums)
        following = builder.add(step, ir.Constant(_I64, 1))
        builder.cbranch(builder.icmp_signed("<", following, self.steps), body, end)
        step.add_incoming(ir.Constant(_I64, 0), entry)
        step.add_incoming(following, body)
        builder.position_at_end(end)
        for r in range(self.rows):
            for part in range(self.parts):
                sums[r][part].add_incoming(start[part], entry)
                sums[r][part].add_incoming(updated[r][part], body)
                final = builder.phi(self.acc_type)
                final.add_incoming(start[part], entry)
                final.add_incoming(updated[r][part], body)
                updated[r][part] = final
        self._store(updated)

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, _I8.as_pointer())

    def _row_pointer(self, row: int) -> Any:
        builder = self.builder
        last = builder.sub(self.valid, ir.Constant(_I64, 1))
        index = ir.Constant(_I64, row)
        chosen = builder.select(builder.icmp_signed("<", index, last), index, last)
        return self._pointer(builder.add(self.a, builder.mul(chosen, self.a_stride)))

    def _start(self) -> list[Any]:
        base = self._pointer(self.bias)
        return [_load(self.builder, self.acc_type, base, ir.Constant(_I64, 4 * self.lanes * i), 4) for i in range(self.parts)]

    def _weights(self, panel: Any, step: Any, part: int) -> Any:
        """The weights of one vector of columns for one step."""
        builder, layout = self.builder, self.flavour.layout
        step_bytes = LANES * (2 if layout == "pair" else 4)
        part_bytes = step_bytes * self.lanes // LANES
        offset = builder.add(builder.mul(step, ir.Constant(_I64, step_bytes)), ir.Constant(_I64, part * part_bytes))
        if layout == "quad":
            return _load(builder, _vector(_I8, 4 * self.lanes), panel, offset)
        if layout == "wide":
            return _load(builder, _vector(_I16, 2 * self.lanes), panel, offset)
        return builder.sext(_load(builder, _vector(_I8, 2 * self.lanes), panel, offset), _vector(_I16, 2 * self.lanes))

    def _step(self, step: Any, sources: list[Any], panels: list[Any], sums: list[list[Any]]) -> list[list[Any]]:
        builder = self.builder
        per_panel = LANES // self.lanes
        weights = [self._weights(panel, step, part) for panel in panels for part in range(per_panel)]
        offset = builder.mul(step, ir.Constant(_I64, STEP_BYTES))
        combine = _quad_step if self.flavour.layout == "quad" else _pair_step
        result = []
        for source, row in zip(sources, sums, strict=True):
            a = _splat(builder, _load(builder, _I32, source, offset), self.lanes)
            result.append([combine(builder, self.flavour, acc, a, b) for acc, b in zip(row, weights, strict=True)])
        return result

    def _store(self, sums: list[list[Any]]) -> None:
        base = self._pointer(self.acc)
        for r, row in enumerate(sums):
            for part, value in enumerate(row):
                offset = 4 * (r * self.panels * LANES + part * self.lanes)
                target = self.builder.gep(base, [ir.Constant(_I64, offset)])
                self.builder.store(value, self.builder.bitcast(target, self.acc_type.as_pointer()), align=4)


Tile = Callable[[int, int, int, int, int, int, int, int], None]


def make_tile(flavour: Flavour, rows: int, panels: int) -> Tile:
    """An intrinsic for compiled code; where the CPU lacks the instructions it is empty, and `Session` never selects it."""

    def tile(typingctx: Any, a: Any, a_stride: Any, valid: Any, b: Any, panel_bytes: Any, steps: Any, bias: Any, acc: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if flavour.isa.supported:
                _TileBuilder(builder, flavour, rows, panels, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 8)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


QUAD_512, PAIR_512, WIDE_512 = (Flavour(Isa.AVX512_VNNI, layout, 512) for layout in ("quad", "pair", "wide"))
QUAD_256 = Flavour(Isa.AVX_VNNI, "quad", 256)
PAIR_256, WIDE_256 = (Flavour(Isa.AVX2, layout, 256) for layout in ("pair", "wide"))
PAIR_ANY, WIDE_ANY = (Flavour(Isa.PORTABLE, layout, 128) for layout in ("pair", "wide"))
