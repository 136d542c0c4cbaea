"""What is known of each operator, in one table. Whoever asks what kind of operator a node is asks here.

The rest of an operator is code: its shape in `shapes/rules.py`, its rule in `lowering/rules/`, what the rule writes in
`lowering/to_machine/` and `lowering/to_onnx/`. CONTRIBUTING.md adds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "LAYERS",
    "MAY_BE_INFINITE",
    "MOVEMENT",
    "MOVERS",
    "NORMS",
    "OPERATORS",
    "RECURRENT",
    "UNARIES",
    "VALUE_PRESERVING",
    "Operator",
    "lowered_by",
]


@dataclass(frozen=True)
class Operator:
    """Facts about a standard ONNX operator.

    Attributes:
        rule: name of the rule that lowers it (`lowering/rules/table.py`).
        codes: positions of the inputs that are codes once it is integer; None: a float graph does not get grids at it,
            but a quantized model that somebody else made may hold it.
        has_weights: it multiplies and accumulates, with stored weights as a rule.
        is_table: a function of one element: a table in the machine.
        shares_grid: its first input and its outputs are on one grid.
        rearranges: the elements of its first input come out unchanged, in another place; none are chosen by value.
        may_be_infinite: a model may look with IsNaN, IsInf or a comparison for infinite or undefined values in its
            result.
    """

    rule: str
    codes: tuple[int, ...] | None = (0,)
    has_weights: bool = False
    is_table: bool = False
    shares_grid: bool = False
    rearranges: bool = False
    may_be_infinite: bool = False


def _of(names: str, operator: Operator) -> dict[str, Operator]:
    return dict.fromkeys(names.split(), operator)


OPERATORS: Mapping[str, Operator] = {
    # multiply and accumulate
    **_of("Conv ConvTranspose Gemm", Operator("layer", has_weights=True)),
    **_of("MatMul", Operator("layer", (0, 1), has_weights=True)),
    **_of("BatchNormalization", Operator("layer", None)),
    **_of("LSTM", Operator("recurrent", (0, 5, 6))),
    **_of("GRU", Operator("recurrent", (0, 5))),
    # functions of one element
    **_of(
        "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Floor Gelu HardSigmoid HardSwish "
        "LeakyRelu Mish Neg Relu Round Selu "
        "Shrink Sigmoid Sign Sin Sinh Softplus Softsign Swish Tan Tanh ThresholdedRelu",
        Operator("unary", is_table=True),
    ),
    **_of("Exp Log Reciprocal Sqrt", Operator("unary", is_table=True, may_be_infinite=True)),
    **_of("Pow", Operator("joint", is_table=True, may_be_infinite=True)),
    **_of("Cast", Operator("unary", (), may_be_infinite=True)),
    **_of("Identity", Operator("unary", shares_grid=True, rearranges=True, may_be_infinite=True)),
    **_of("Dropout IsInf IsNaN Not", Operator("unary", None)),
    # functions of two elements and more
    **_of("Add Div Max Min Mul Sub", Operator("joint", (0, 1), may_be_infinite=True)),
    **_of("PRelu Equal Greater GreaterOrEqual Less LessOrEqual", Operator("joint", (0, 1))),
    **_of("Where", Operator("joint", (1, 2), may_be_infinite=True)),
    **_of("And Mean Mod Or Sum Xor", Operator("joint", None)),
    # movement
    **_of(
        "Expand Flatten Gather Reshape Slice Squeeze Tile Transpose Unsqueeze",
        Operator("mover", shares_grid=True, rearranges=True, may_be_infinite=True),
    ),
    **_of("DepthToSpace MaxPool Pad SpaceToDepth Split", Operator("mover", shares_grid=True, may_be_infinite=True)),
    **_of("Concat", Operator("concat", (), may_be_infinite=True)),
    **_of("Resize", Operator("resize", shares_grid=True, may_be_infinite=True)),
    # reductions and normalizations
    **_of("GlobalMaxPool ReduceMax ReduceMin", Operator("reduction", shares_grid=True, may_be_infinite=True)),
    **_of("GlobalAveragePool ReduceMean ReduceSum", Operator("reduction")),
    **_of("AveragePool", Operator("average pool")),
    **_of("ArgMax TopK", Operator("integers")),
    **_of("LRN", Operator("lrn")),
    **_of("ConstantOfShape", Operator("filled", ())),
    **_of("Softmax", Operator("softmax", may_be_infinite=True)),
    **_of("InstanceNormalization LayerNormalization", Operator("norm")),
}
"""By name. All inputs of a Concat are codes; an operator that is not here stays float."""


def lowered_by(*rules: str) -> frozenset[str]:
    """The operators of these rules."""
    return frozenset(name for name, operator in OPERATORS.items() if operator.rule in rules)


LAYERS = tuple(name for name, operator in OPERATORS.items() if operator.has_weights)
"""Operators that multiply and accumulate: Conv, ConvTranspose, Gemm, MatMul."""
RECURRENT = ("LSTM", "GRU")
NORMS = lowered_by("norm")
"""Operators that bring rows to mean 0 and deviation 1."""
UNARIES = frozenset(name for name, operator in OPERATORS.items() if operator.is_table)
"""Functions of one element: a table in the machine."""
MOVERS = frozenset(name for name, operator in OPERATORS.items() if operator.shares_grid)
"""Operators whose first input and outputs are on one grid."""
VALUE_PRESERVING = MOVERS - {"Pad", "Resize"}
"""Operators whose results are elements of their first input, all of them or chosen by place or by size."""
MOVEMENT = tuple(name for name, operator in OPERATORS.items() if operator.rearranges)
"""Operators whose first input's elements come out unchanged, in another place."""
MAY_BE_INFINITE = frozenset(name for name, operator in OPERATORS.items() if operator.may_be_infinite)
"""Operators whose infinite or undefined results a model may ask for with IsNaN, IsInf or a comparison; sums of layers
are finite.
"""
