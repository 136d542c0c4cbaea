"""Builds programs (symbols, buffers, constants, instructions): the lowering's only way to a `Program`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ProgramError
from ..instructions.instruction import ELEMENT_DTYPE, WIDTH, Element, Field, Kind, Opcode, Source
from ..instructions.opcodes import BY_NAME
from .coded_constants import encoded
from .contents import NO_FILLS, BufferInfo, ConstantInfo, Fills, Labels, Port
from .expressions import Expression, check_form
from .model import Program

_ALIGNMENT = 64
_OF_DTYPE = {name: element for element, name in ELEMENT_DTYPE.items()}


Scales = float | Sequence[float] | None
ZeroPoints = int | Sequence[int]


@dataclass(frozen=True)
class Buffer:
    """Handle of a tensor in the arena."""

    index: int
    element: Element
    shape: tuple[Expression, ...]


@dataclass(frozen=True)
class Constant:
    """Handle of an array in the blob."""

    index: int
    element: Element
    shape: tuple[int, ...]


Value: TypeAlias = "Buffer | Constant | NDArray[Any] | Expression | None"


@dataclass
class ProgramBuilder:
    """Collects instructions, in the order in which they run.

    Example::

        b = ProgramBuilder()
        n = b.dim("batch")
        x = b.buffer((n, 64), "uint8", name="x_codes")
        y = b.buffer((n, 10), "uint8", name="y_codes")
        b.input("x", x, "float32", (n, 64), scale=0.02, zero_point=128)
        b.emit("gemm", node="MatMul_0", x=x, w=w, bias=bias, m=m, n=n_shift, y=y, rows=n, k=64, cols=10, y_zp=3)
        b.output("y", y, "float32", (n, 10), scale=0.1, zero_point=3)
        b.save("net.qprog")
    """

    source: Mapping[str, Any] = field(default_factory=dict)
    _dims: list[str] = field(default_factory=list)
    _expressions: dict[str, tuple[int, Expression]] = field(default_factory=dict)
    _buffers: list[BufferInfo] = field(default_factory=list)
    _constants: list[ConstantInfo] = field(default_factory=list)
    _known: dict[tuple[Element, tuple[int, ...], bytes], Constant] = field(default_factory=dict)
    _chunks: list[bytes] = field(default_factory=list)
    _inputs: list[Port] = field(default_factory=list)
    _outputs: list[Port] = field(default_factory=list)
    _rows: list[tuple[list[int], list[int]]] = field(default_factory=list)
    _nodes: list[str] = field(default_factory=list)

    def dim(self, name: str) -> str:
        """Declare a symbolic dimension (once or more); returns its name, an expression."""
        if name not in self._dims:
            self._dims.append(name)
        return name

    def buffer(
        self, shape: Sequence[Expression], dtype: Any, name: str = "", perm: Sequence[int] | None = None
    ) -> Buffer:
        """A tensor in the arena, dense and row-major in its physical ``shape``.

        Args:
            shape: integers, symbols, expressions.
            dtype: uint8, int8, int16, int32, int64 or bool.
            name: shows in traces; give it the ONNX tensor's name.
            perm: ``physical.transpose(perm)`` is in ONNX order, e.g. (0, 3, 1, 2) for NHWC.
        """
        element = _element(dtype)
        self._check_shape(name or "a buffer", shape)
        self._buffers.append(BufferInfo(element, tuple(shape), name, None if perm is None else tuple(perm)))
        return Buffer(len(self._buffers) - 1, element, tuple(shape))

    def constant(self, array: NDArray[Any], dtype: Any = None) -> Constant:
        """Add an array to the blob, equal ones once, few-valued ones coded; ``dtype`` converts exactly or raises."""
        values = np.asarray(array)
        if dtype is not None and values.dtype != np.dtype(dtype):
            wide, values = values, values.astype(dtype)
            if not np.array_equal(wide, values):
                raise ProgramError(f"a constant of shape {wide.shape} does not fit into {np.dtype(dtype).name}")
        element = _element(values.dtype)
        content = np.ascontiguousarray(values).tobytes()
        key = (element, values.shape, blake2b(content).digest())
        if key not in self._known:
            offset = sum(len(chunk) for chunk in self._chunks[-1:]) + (
                self._constants[-1].offset if self._constants else 0
            )
            coded = encoded(values)
            stored = content if coded is None else coded.stored()
            self._chunks.append(stored + bytes(-len(stored) % _ALIGNMENT))
            self._constants.append(ConstantInfo(element, values.shape, offset, coded and coded.coding))
            self._known[key] = Constant(len(self._constants) - 1, element, values.shape)
        return self._known[key]

    def input(
        self, name: str, buffer: Buffer, dtype: Any, shape: Sequence[Expression], scale: Scales = None,
        zero_point: ZeroPoints = 0,
        axis: int | None = None, only: int | None = None, labels: Labels | None = None,
    ) -> None:  # fmt: skip
        """Declare an input that fills ``buffer`` before the first instruction; without ``scale`` it is a plain integer.

        With ``axis`` there are as many scales and zero points as it is long; ``only`` is the one number it may hold. An
        input of strings (dtype ``str``) has ``labels``.
        """
        self._check_shape(name, shape)
        port = _port(name, buffer, dtype, shape, scale, zero_point, axis)
        self._inputs.append(port._replace(only=only, labels=labels))

    def output(
        self, name: str, buffer: Buffer, dtype: Any, shape: Sequence[Expression], scale: Scales = None,
        zero_point: ZeroPoints = 0,
        axis: int | None = None, fills: Fills = NO_FILLS,
    ) -> None:  # fmt: skip
        """Declare an output that is read from ``buffer`` after the last instruction; ``fills``: see `Port`."""
        self._check_shape(name, shape)
        self._outputs.append(_port(name, buffer, dtype, shape, scale, zero_point, axis)._replace(fills=fills))

    def emit(self, opcode: str, *, node: str = "", **fields: Value | Sequence[Expression]) -> None:
        """Append an instruction.

        Element types are those of the operands; ``lo`` and ``hi`` default to the range of y's type; other defaults are
        in `opcodes.py`. Six-dimensional fields are given as sequences, aligned to the right: ``dims=[n, c]``,
        ``a_strides=[c, 1]``; for ``matmul`` also ``batch=[...]`` and ``a_strides`` of up to four batch strides.

        Raises:
            ProgramError: unknown opcode or field, a missing field, or an operand of a type the opcode does not take.
        """
        if opcode not in BY_NAME:
            raise ProgramError(f"{node or opcode}: no opcode '{opcode}'; known are {', '.join(BY_NAME)}")
        instruction = BY_NAME[opcode]
        values = _spread(instruction, node, fields)
        _fill_range(instruction, values)
        names = {item.name for item in instruction.fields}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ProgramError(
                f"{node or opcode}: opcode {opcode} has no field '{unknown[0]}'; its fields are "
                f"{', '.join(sorted(names))}"
            )
        row, kinds = [instruction.number], [int(Source.LITERAL)]
        for item in instruction.fields:
            number, kind = self._encode(instruction, item, values, node or opcode)
            row.append(number)
            kinds.append(int(kind))
        pad = [0] * (WIDTH - len(row))
        self._rows.append((row + pad, kinds + pad))
        self._nodes.append(node or opcode)

    def program(self) -> Program:
        """The finished program; every symbol must be a dimension declared by `dim`."""
        code = np.array([row for row, _ in self._rows], np.int64).reshape(-1, WIDTH)
        kinds = np.array([kinds for _, kinds in self._rows], np.uint8).reshape(-1, WIDTH)
        return Program(
            dims=tuple(self._dims),
            expressions=tuple(e for _, e in self._expressions.values()),
            code=code,
            kinds=kinds,
            blob=np.frombuffer(b"".join(self._chunks), np.uint8),
            buffers=tuple(self._buffers),
            constants=tuple(self._constants),
            inputs=tuple(self._inputs),
            outputs=tuple(self._outputs),
            nodes=tuple(self._nodes),
            source=dict(self.source),
        )

    def save(self, path: str | Path) -> None:
        """Write the program as a ``.qprog`` file, atomically."""
        self.program().save(path)

    def _encode(self, opcode: Opcode, item: Field, values: Mapping[str, Any], node: str) -> tuple[int, Source]:
        if item.kind is Kind.TYPE:
            operand = self._operand(opcode, item.of, values)
            return (0 if operand is None else int(operand.element)), Source.LITERAL
        if item.kind.is_operand:
            operand = self._operand(opcode, item.name, values)
            if operand is None and not item.optional:
                raise ProgramError(f"{node}: opcode {opcode.name} needs the operand '{item.name}'")
            if operand is None:
                return 0, Source.ABSENT
            if operand.element not in item.types:
                admitted = ", ".join(ELEMENT_DTYPE[e] for e in item.types)
                raise ProgramError(
                    f"{node}: {item.name} of {opcode.name} is {ELEMENT_DTYPE[operand.element]}; it takes {admitted}"
                )
            return operand.index, Source.BUFFER if isinstance(operand, Buffer) else Source.CONSTANT
        return self._number(opcode, item, values, node)

    def _operand(self, opcode: Opcode, name: str, values: Mapping[str, Any]) -> Buffer | Constant | None:
        value = values.get(name)
        if value is None or isinstance(value, Buffer | Constant):
            return value
        item = opcode.fields[opcode.position(name) - 1]
        single = ELEMENT_DTYPE[item.types[0]] if len(item.types) == 1 else None
        return self.constant(np.asarray(value), single)

    def _number(self, opcode: Opcode, item: Field, values: Mapping[str, Any], node: str) -> tuple[int, Source]:
        value = values.get(item.name, item.default)
        if item.name not in values and isinstance(value, str):
            value = values.get(value)
        if value is None:
            raise ProgramError(f"{node}: opcode {opcode.name} needs the field '{item.name}'")
        if isinstance(value, str | list):
            return self._expression(value, node), Source.EXPRESSION
        number = int(value)
        if not item.low <= number <= item.high:
            raise ProgramError(
                f"{node}: {item.name} of {opcode.name} is {number}, admitted is {item.low} to {item.high}"
            )
        return number, Source.LITERAL

    def _check_shape(self, owner: str, shape: Sequence[Expression]) -> None:
        for size in shape:
            try:
                check_form(size, self._dims)
            except ProgramError as error:
                raise ProgramError(f"{owner}: {error}; declare symbols with dim()") from None

    def _expression(self, value: Expression, node: str) -> int:
        self._check_shape(node, [value])
        key = repr(value)
        return self._expressions.setdefault(key, (len(self._expressions), value))[0]


def _element(dtype: Any) -> Element:
    if isinstance(dtype, Element):
        return dtype
    name = np.dtype(dtype).name
    if name not in _OF_DTYPE:
        raise ProgramError(f"the machine has no type {name}; it has {', '.join(_OF_DTYPE)}")
    return _OF_DTYPE[name]


def _port(
    name: str,
    buffer: Buffer,
    dtype: Any,
    shape: Sequence[Expression],
    scale: Scales,
    zero_point: ZeroPoints,
    axis: int | None,
) -> Port:
    if axis is None:
        one = None if scale is None else float(scale)  # type: ignore[arg-type]
        return Port(name, np.dtype(dtype).name, tuple(shape), buffer.index, one, int(zero_point))  # type: ignore[arg-type]
    scales, zero_points = tuple(map(float, scale)), tuple(map(int, zero_point))  # type: ignore[arg-type]
    return Port(name, np.dtype(dtype).name, tuple(shape), buffer.index, scales, zero_points, axis)


def _spread(opcode: Opcode, node: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace ``dims=[...]``, ``batch=[...]`` and ``a_strides=[...]`` by their numbered fields, right-aligned."""
    names = {item.name for item in opcode.fields}
    values: dict[str, Any] = {}
    for key, value in fields.items():
        prefix = {"dims": "d", "batch": "b"}.get(key, key.removesuffix("trides"))
        count = sum(f"{prefix}{i}" in names for i in range(WIDTH))
        if key in names or count == 0:
            values[key] = value
            continue
        items = list(value)
        if len(items) > count:
            raise ProgramError(
                f"{node or opcode.name}: {key} has {len(items)} entries; {opcode.name} takes at most {count}"
            )
        values |= {f"{prefix}{count - len(items) + i}": item for i, item in enumerate(items)}
    return values


def _fill_range(opcode: Opcode, values: dict[str, Any]) -> None:
    """``lo`` and ``hi`` default to the range of y's element type."""
    y = values.get("y")
    if not any(item.name == "lo" for item in opcode.fields) or not isinstance(y, Buffer):
        return
    limits = (0, 1) if y.element is Element.BOOL else _limits(y.element)
    values.setdefault("lo", limits[0])
    values.setdefault("hi", limits[1])


def _limits(element: Element) -> tuple[int, int]:
    info = np.iinfo(ELEMENT_DTYPE[element])
    return max(int(info.min), -(1 << 62)), min(int(info.max), 1 << 62)
