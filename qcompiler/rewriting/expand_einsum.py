"""Einsum as products, sums and movement.

Two operands at a time: letters that one alone has and nobody needs later are summed; where no letter of both goes away
they are multiplied element by element; else it is a matrix product, with the letters that go away in the middle. A
constant operand is turned at once, so that the product is a layer with stored weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.rewriting.expand_indices import Size, size_of, times, vector_of
from qcompiler.rewriting.node_writer import Results, Writer, rank_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class _Operand:
    """A tensor, and a letter for each of its axes."""

    tensor: Tensor
    letters: str


@dataclass(frozen=True)
class _Equation:
    """The letters of each operand and of the result, without an ellipsis."""

    terms: list[str]
    result: str


def _parsed(node: Node) -> _Equation | str:
    """Read the equation; a reason where it has no form here."""
    ranks = [rank_of(tensor) for tensor in node.inputs]
    left, arrow, result = str(node.attrs["equation"]).replace(" ", "").partition("->")
    terms = left.split(",")
    if any(rank is None for rank in ranks):
        return "the rank of an operand is unknown"
    if not arrow:
        plain = left.replace("...", "").replace(",", "")
        result = "..." * ("..." in left) + "".join(sorted(each for each in set(plain) if plain.count(each) == 1))
    free = [letter for letter in LETTERS if letter not in left + result]
    hidden = [(rank or 0) - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=True)]
    most = max([count for count, term in zip(hidden, terms, strict=True) if "..." in term], default=0)
    terms = [term.replace("...", "".join(free[most - count:most])) for count, term in zip(hidden, terms, strict=True)]
    if any(len(set(term)) < len(term) for term in terms):
        return "it takes a diagonal"
    return _Equation(terms, result.replace("...", "".join(free[:most])))


class _Contraction:
    """Writes the product of operands, two at a time."""

    def __init__(self, writer: Writer, equation: _Equation, tensors: Sequence[Tensor]) -> None:
        self._w, self._equation = writer, equation
        self._operands = [_Operand(*pair) for pair in zip(tensors, equation.terms, strict=True)]
        self._sizes: dict[str, Size] = {}

    def write(self) -> Tensor:
        """The result."""
        first, *others = self._operands
        for index, other in enumerate(others):
            needed = set(self._equation.result).union(*self._equation.terms[index + 2:])
            first = self._joined(first, other, needed)
        return self._arranged(self._summed(first, set(self._equation.result)), [*self._equation.result])

    def _size(self, letter: str) -> Size:
        """The size of a letter, as the first operand says that has it with more than one element."""
        if letter not in self._sizes:
            having = [each for each in self._operands if letter in each.letters]
            axes = [(each.tensor, each.letters.index(letter)) for each in having]
            wide = [(tensor, axis) for tensor, axis in axes if tensor.shape[axis] != 1]
            self._sizes[letter] = size_of(self._w, *(wide or axes)[0])
        return self._sizes[letter]

    def _joined(self, a: _Operand, b: _Operand, needed: set[str]) -> _Operand:
        a, b = self._summed(a, needed | set(b.letters)), self._summed(b, needed | set(a.letters))
        if constant_of(a.tensor) is not None and constant_of(b.tensor) is None:
            a, b = b, a
        both = [letter for letter in a.letters if letter in b.letters]
        gone = [letter for letter in both if letter not in needed]
        if not gone:
            return self._multiplied(a, b)
        kept = [letter for letter in both if letter in needed]
        rows = [letter for letter in a.letters if letter not in both]
        columns = [letter for letter in b.letters if letter not in both]
        apart = [[letter] for letter in rows] if rows and not kept else [rows]
        batch = [[letter] for letter in kept]
        x, w = self._arranged(a, *batch, *apart, gone), self._arranged(b, *batch, gone, columns)
        y = self._w.op("MatMul", x, w)
        groups, letters = [*batch, *apart, columns], "".join([*kept, *rows, *columns])
        if any(len(group) != 1 for group in groups):
            y = self._w.op("Reshape", y, vector_of(self._w, [self._size(letter) for letter in letters]))
        return _Operand(y, letters)

    def _summed(self, operand: _Operand, needed: set[str]) -> _Operand:
        """Without the letters that nobody needs."""
        axes = [axis for axis, letter in enumerate(operand.letters) if letter not in needed]
        if not axes:
            return operand
        total = self._w.op("ReduceSum", operand.tensor, self._w.int64("axes", axes), keepdims=0)
        return _Operand(total, "".join(letter for letter in operand.letters if letter in needed))

    def _multiplied(self, a: _Operand, b: _Operand) -> _Operand:
        """Element by element, in the order of the result where both are in it."""
        letters = dict.fromkeys([*self._equation.result, *a.letters, *b.letters])
        order = [letter for letter in letters if letter in a.letters + b.letters]
        x, y = (
            self._arranged(each, *([letter] if letter in each.letters else [] for letter in order)) for each in (a, b)
        )
        return _Operand(self._w.op("Mul", x, y), "".join(order))

    def _arranged(self, operand: _Operand, *groups: list[str]) -> Tensor:
        """Axes in this order, those of a group as one; an empty group is an axis of one element."""
        if len(groups) == 1 and len(operand.letters) != 1:
            groups = tuple([letter] for letter in groups[0])
        perm = [operand.letters.index(letter) for group in groups for letter in group]
        values = constant_of(operand.tensor)
        if values is not None:
            shape = [prod(values.shape[operand.letters.index(letter)] for letter in group) for group in groups]
            return self._w.constant("operand", values.transpose(perm).reshape(shape))
        x = operand.tensor
        if perm != sorted(perm):
            x = self._w.op("Transpose", x, perm=perm)
        if all(len(group) == 1 for group in groups):
            return x
        if all(len(group) <= 1 for group in groups):
            axes = [place for place, group in enumerate(groups) if not group]
            return self._w.op("Unsqueeze", x, self._w.int64("axes", axes))
        return self._w.op("Reshape", x, vector_of(self._w, [self._together(group) for group in groups]))

    def _together(self, group: list[str]) -> Size:
        total: Size = 1
        for letter in group:
            total = times(self._w, total, self._size(letter))
        return total


def einsum(w: Writer, node: Node) -> Results:
    """The rule of Einsum."""
    equation = _parsed(node)
    return equation if isinstance(equation, str) else [_Contraction(w, equation, node.inputs).write()]
