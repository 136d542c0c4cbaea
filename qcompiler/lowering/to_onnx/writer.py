"""Integer arithmetic in standard ONNX operators: the vocabulary in which `integer_onnx` writes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, names_in, unique_name

Array = NDArray[Any]

_ONNX_TYPE = {
    name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
}


class OnnxWriter:
    """A standard graph under construction; `emit` and the verbs below append nodes and return their result.

    Args:
        source: its names are not used again.
        prefix: of every new name; bodies of control flow need names that no outer graph has.
    """

    def __init__(self, source: Graph, prefix: str = "") -> None:
        self._prefix = prefix
        self.graph = Graph(name=source.name, opset=source.opset, ir_version=source.ir_version)
        self._taken = names_in(source)
        self._tensors: dict[str, Tensor] = {}
        self._wide: dict[str, Tensor] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], Constant] = {}

    # ------------------------------------------------------------------ tensors
    def bind(self, source: Tensor, tensor: Tensor) -> None:
        """Say which tensor stands for ``source`` of the integer graph."""
        self._tensors[source.name] = tensor

    def tensor(self, source: Tensor) -> Tensor:
        """What stands for a tensor of the integer graph."""
        if source.name not in self._tensors:
            if not isinstance(source, Constant):
                raise KeyError(source.name)
            self._tensors[source.name] = self.constant(np.asarray(source.values))
        return self._tensors[source.name]

    def constant(self, values: Any, dtype: Any = None) -> Constant:
        """A constant (int64 where the value is a Python number); equal ones are stored once."""
        array = np.ascontiguousarray(
            np.asarray(values, dtype if dtype is not None else getattr(values, "dtype", np.int64))
        )
        array = array.reshape(np.shape(values))
        key = (array.dtype.str, blake2b(array.tobytes()).digest(), array.shape)
        if key not in self._constants:
            self._constants[key] = Constant(unique_name(self._taken, f"{self._prefix}constant"), array)
        return self._constants[key]

    def emit(self, op: str, inputs: Sequence[Any], dtype: Any = np.int64, **attrs: Any) -> Variable:
        """One standard node with one output; numbers and arrays among its inputs become constants."""
        sources = [item if isinstance(item, gs.Tensor) else self.constant(item) for item in inputs]
        result = Variable(unique_name(self._taken, f"{self._prefix}{op.lower()}"), dtype=np.dtype(dtype))
        self.graph.nodes.append(
            Node(op, unique_name(self._taken, f"{self._prefix}{op}_node"), attrs, sources, [result])
        )
        return result

    def variable(self, name: str, dtype: Any) -> Variable:
        """A new tensor that no node writes yet."""
        return Variable(unique_name(self._taken, name), dtype=np.dtype(dtype))

    def type_of(self, dtype: Any) -> int:
        """ONNX's number of a type."""
        return int(_ONNX_TYPE[np.dtype(dtype).name])

    def finish(self, source: Tensor, result: Tensor) -> None:
        """Let ``result``, which was just written, take the name of ``source`` and stand for it."""
        result.name = source.name
        result.shape = source.shape
        self.bind(source, result)

    # ------------------------------------------------------------------ arithmetic on int64
    def cast(self, x: Tensor, dtype: Any) -> Tensor:
        """``x`` in another type."""
        kind = np.dtype(dtype)
        return (
            x
            if x.dtype is not None and np.dtype(x.dtype) == kind
            else self.emit("Cast", [x], kind, to=self.type_of(kind))
        )

    def wide(self, x: Tensor) -> Tensor:
        """``x`` as int64."""
        if x.name not in self._wide:
            self._wide[x.name] = self.cast(x, np.int64)
        return self._wide[x.name]

    def add(self, a: Any, b: Any) -> Tensor:
        """``a + b``; adding the number 0 costs nothing."""
        if isinstance(b, int) and b == 0:
            return a
        return self.emit("Add", [a, b])

    def sub(self, a: Any, b: Any) -> Tensor:
        """``a - b``; subtracting the number 0 costs nothing."""
        if isinstance(b, int) and b == 0:
            return a
        return self.emit("Sub", [a, b])

    def mul(self, a: Any, b: Any) -> Tensor:
        """``a * b``; by the number 1 costs nothing."""
        if isinstance(b, int) and b == 1:
            return a
        return self.emit("Mul", [a, b])

    def floor_div(self, a: Any, b: Any) -> Tensor:
        """``a // b`` rounded down, for b > 0: Mod takes the sign of its divisor, and the rest divides exactly."""
        return self.emit("Div", [self.sub(a, self.emit("Mod", [a, b])), b])

    def shift(self, a: Tensor, n: int) -> Tensor:
        """``a >> n``, rounded down."""
        return a if n == 0 else self.floor_div(a, 1 << n)

    def round_shift(self, a: Tensor, n: int) -> Tensor:
        """``(a + 2^(n-1)) >> n``."""
        return a if n == 0 else self.shift(self.add(a, 1 << (n - 1)), n)

    def round_shift_by(self, a: Tensor, powers: Any) -> Tensor:
        """`round_shift` where the powers ``2^n``, n >= 1, are a tensor or array."""
        half = powers // 2 if isinstance(powers, np.ndarray) else self.emit("Div", [powers, 2])
        return self.floor_div(self.add(a, half), powers)

    def requant(self, a: Tensor, m: int, n: int) -> Tensor:
        """``requant`` of docs/integer-operators.md."""
        return self.round_shift(self.mul(a, m), n)

    def centred(self, x: Tensor, zero: int) -> Tensor:
        """``x - zero`` as int64."""
        return self.sub(self.wide(x), zero)

    def clip(self, x: Tensor, low: int, high: int) -> Tensor:
        """``min(max(x, low), high)``."""
        return self.emit("Clip", [x, low, high])

    def reduce(self, kind: str, x: Tensor, axes: Sequence[int], keep: int = 1) -> Tensor:
        """ReduceSum, ReduceMax or ReduceMin of int64."""
        return self.emit(kind, [x, np.array(axes, np.int64)], keepdims=keep)

    def where(self, condition: Tensor, a: Any, b: Any) -> Tensor:
        """``a`` where ``condition``, else ``b``."""
        return self.emit("Where", [condition, a, b])

    def test(self, op: str, a: Any, b: Any) -> Tensor:
        """A comparison, as bool."""
        return self.emit(op, [a, b], bool)
