"""An instruction as the call of a kernel: its name, its constants, its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

from qcompiler.c_output.c_text import integer
from qcompiler.c_output.fragments import fields_of
from qcompiler.runtime.instructions.instruction import Binary, Comparison, Element, Logic, Opcode, Source

Array = NDArray[Any]
Numbers = Mapping[str, int]

NAMES = {
    Element.U8: "u8", Element.I8: "i8", Element.I16: "i16", Element.I32: "i32", Element.I64: "i64", Element.BOOL: "u8",
}  # fmt: skip
"""Element types, as the names of kernels have them; a truth value is a byte."""

KERNELS = {
    "conv": "conv_{x}_{y}",
    "conv_transpose": "conv_transpose_{x}_{y}",
    "gemm": "gemm_{x}_{y}",
    "matmul": "matmul_{kind}_{a}_{b}_{y}",
    "binary": "binary_{kind}_{a}_{b}_{y}",
    "where": "where_{a}_{b}_{y}",
    "compare": "compare_{kind}_{a}_{b}",
    "logic": "logic_{kind}",
    "table": "table_{x}_{y}",
    "requant": "requant_{x}_{y}",
    "cast": "cast_{x}_{kind}",
    "max_pool": "max_pool_{x}",
    "average_pool": "average_pool_{x}_{y}",
    "reduce": "reduce_{kind}_{x}_{y}",
    "softmax": "softmax_{x}_{y}",
    "layernorm": "layernorm_{x}_{y}",
    "move": "move_{x}",
    "fill": "fill_{y}",
    "gather": "gather_{x}_{indices}",
    "resize_linear": "resize_linear_{x}_{y}",
    "lstm": "lstm_{x}_{y}_{lengths}",
    "gru": "gru_{x}_{y}_{lengths}",
    "argmax": "argmax_{x}",
    "piecewise": "piecewise_{y}",
    "topk": "topk_{x}",
    "scatter": "scatter_{x}_{indices}",
}
"""The kernel of each opcode, by the element types of its operands."""

_REDUCTIONS = {0: "sum", 1: "sum", 2: "max", 3: "min"}


@dataclass(frozen=True)
class Instruction:
    """An instruction that is bound to sizes.

    Attributes:
        index: its place in the program.
        numbers: its fields; operands are offsets in the arena or in the blob.
        sources: what each of them is.
        node: the node that it came from.
    """

    index: int
    opcode: Opcode
    numbers: Numbers
    sources: Mapping[str, Source]
    node: str

    def is_absent(self, operand: str) -> bool:
        """An optional operand that is not there, or that is not to be read."""
        return self.sources[operand] == Source.ABSENT or self.numbers.get(f"has_{operand}") == 0

    def element(self, operand: str) -> str:
        """The element type of an operand, as the names of kernels have it; that of an absent one matters to nobody."""
        if self.is_absent(operand):
            return NAMES[Element.I32]
        if f"{operand}_type" in self.numbers:
            return NAMES[Element(self.numbers[f"{operand}_type"])]
        field = next(field for field in self.opcode.fields if field.name == operand)
        return NAMES[field.types[0]]


def is_depthwise(numbers: Numbers) -> bool:
    """Each output channel of a convolution reads the one input channel of its number."""
    return numbers["groups"] == numbers["in_c"] == numbers["out_c"]


def kernel_of(instruction: Instruction) -> str:
    """The name of its kernel."""
    operands = [field.name for field in instruction.opcode.fields if field.kind.is_operand]
    types = {operand: instruction.element(operand) for operand in operands}
    name = KERNELS[instruction.opcode.name].format(kind=_kind_of(instruction), **types)
    if instruction.opcode.name == "conv" and is_depthwise(instruction.numbers):
        return f"depthwise_{name}"
    return name


def _kind_of(instruction: Instruction) -> str:
    name, numbers = instruction.opcode.name, instruction.numbers
    if name == "matmul":
        return "sum64" if numbers["acc64"] else "sum32"
    if name == "reduce":
        return _REDUCTIONS[numbers["kind"]]
    if name == "cast":
        return "bool" if numbers["y_type"] == Element.BOOL else instruction.element("y")
    kinds: Mapping[str, type[IntEnum]] = {"binary": Binary, "compare": Comparison, "logic": Logic}
    return kinds[name](numbers["kind"]).name.lower() if name in kinds else ""


def fields_text(instruction: Instruction) -> list[str]:
    """The members of the structure that its kernel takes; those that are left out are 0."""
    parts, numbers = [], instruction.numbers
    for name, length in fields_of(f"{instruction.opcode.name}_fields"):
        values = [numbers[f"{name}{i}"] for i in range(length)] or [numbers[name]]
        if any(values):
            text = ", ".join(map(integer, values))
            parts.append(f".{name} = {{{text}}}" if length else f".{name} = {text}")
    return parts or ["0"]


def scratch_bytes(instruction: Instruction) -> int:
    """Working memory of its kernel, which is its last argument; 0: it takes none."""
    numbers = instruction.numbers
    return {"gru": 4 * numbers.get("hidden", 0), "topk": 8 * numbers.get("count", 0)}.get(instruction.opcode.name, 0)


def _conv_rows(w: Array, f: Numbers) -> Array:
    if is_depthwise(f):
        return w
    taps, channels = f["kernel_h"] * f["kernel_w"], f["in_c"] // f["groups"]
    return w[: taps * channels * f["out_c"]].reshape(taps * channels, f["out_c"]).T


def _transposed_rows(w: Array, f: Numbers) -> Array:
    taps, groups, width = f["kernel_h"] * f["kernel_w"], f["groups"], f["out_c"] // f["groups"]
    whole = w[: taps * f["in_c"] * width].reshape(taps, groups, f["in_c"] // groups, width)
    return whole.transpose(1, 3, 0, 2)


def _columns(rows: str, gates: int) -> Callable[[Array, Numbers], Array]:
    """A matrix with a row for each of its columns; ``gates`` times the hidden size are its columns."""
    return lambda w, f: w[: f[rows] * gates * f["hidden"]].reshape(f[rows], gates * f["hidden"]).T


ROWS: Mapping[tuple[str, str], Callable[[Array, Numbers], Array]] = {
    ("conv", "w"): _conv_rows,
    ("conv_transpose", "w"): _transposed_rows,
    ("gemm", "w"): lambda w, f: w[: f["k"] * f["cols"]].reshape(f["k"], f["cols"]).T,
    ("lstm", "w"): _columns("inputs", 4),
    ("lstm", "r"): _columns("hidden", 4),
    ("gru", "w"): _columns("inputs", 3),
    ("gru", "r"): _columns("hidden", 3),
}
"""Weights that kernels read in another order than the program holds them: what one output needs lies together."""


def operands_of(opcode: Opcode) -> list[str]:
    """The operands in the order in which a kernel takes them."""
    return [field.name for field in opcode.fields if field.kind.is_operand]
