"""From an integer graph to a program of the machine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sympy

from qcompiler.errors import NoIntegerFormError, UnsupportedError
from qcompiler.graph.ir import Constant, Graph, Node, Tensor, consumers
from qcompiler.lowering.to_machine.mirror import mirror
from qcompiler.lowering.to_machine.views import Order, View, coalesce, contiguous
from qcompiler.runtime.errors import MachineError
from qcompiler.runtime.instructions.opcodes import MAX_RANK
from qcompiler.runtime.program.builder import Buffer, ProgramBuilder
from qcompiler.runtime.program.model import Program
from qcompiler.shapes import infer
from qcompiler.shapes.dims import Dim, as_dim, floor_div, maximum, minimum, to_nested

Emit = Callable[["Emitter", Node], None]

_MOST_SIZES = 64
"""Most numbers made of symbolic sizes that one tensor is filled with."""


def in_order(program: Program, graph: Graph) -> Program:
    """The program with its inputs and outputs in the order in which the graph has them."""
    inputs, outputs = (
        {tensor.name: index for index, tensor in enumerate(side)} for side in (graph.inputs, graph.outputs)
    )
    return replace(
        program, inputs=tuple(sorted(program.inputs, key=lambda port: inputs[port.name])),
        outputs=tuple(sorted(program.outputs, key=lambda port: outputs[port.name])),
    )  # fmt: skip


class Emitter:
    """The state of emitting one program.

    Attributes:
        program: the program under construction.
        known: symbolic shapes and values of the graph's tensors, by name.
        graph: the integer graph.
    """

    def __init__(
        self, graph: Graph, rules: Mapping[str, Emit], source: Mapping[str, Any], only: Mapping[str, int] | None = None
    ) -> None:
        self.graph = graph
        self.program = ProgramBuilder(source=source)
        self.known = infer.infer(mirror(graph))
        self._rules, self._only = rules, only or {}
        self._views: dict[str, View] = {}
        self._copies: dict[Hashable, View] = {}
        self._required: set[str] = set()

    def run(self) -> Program:
        """The finished program.

        Raises:
            NoIntegerFormError: names the node that the machine cannot run.
        """
        self._declare_dims()
        self._plain_inputs()
        for node in self.graph.nodes:
            self._emit(node)
        return in_order(self.program.program(), self.graph)

    def _declare_dims(self) -> None:
        for tensor in self.graph.inputs:
            for size in self.shape(tensor):
                for name in () if isinstance(size, int) else sorted(s.name for s in size.free_symbols):
                    self.program.dim(name)

    def _plain_inputs(self) -> None:
        """Buffers of the integer inputs; a float input gets its own where it is quantized, one of strings its labels,
        an unused one an idle buffer.
        """
        converted = {node.inputs[0].name for node in self.graph.nodes if node.op in ("Quantize", "Label")}
        for tensor in self.graph.inputs:
            if tensor.name in converted:
                continue
            kind = np.dtype(tensor.dtype)
            idle = np.issubdtype(kind, np.floating)
            view = self.new(tensor, dtype=np.uint8 if idle else kind)
            self.program.input(
                tensor.name, self.buffer_of(view), kind, self.nested(view.shape), 1.0 if idle else None,
                only=self._only.get(tensor.name),
            )  # fmt: skip

    def _emit(self, node: Node) -> None:
        if self._is_folded(node):
            return
        rule = self._rules.get(node.op)
        if rule is None:
            raise _no_form(node, "the machine has no instruction for it")
        try:
            rule(self, node)
        except (UnsupportedError, MachineError, ValueError) as error:
            raise _no_form(node, str(error)) from error

    def _is_folded(self, node: Node) -> bool:
        """Shape arithmetic whose value is known symbolically needs no instruction."""
        result = node.outputs[0]
        is_code = result.dtype is not None and np.dtype(result.dtype) in (np.dtype(np.uint8), np.dtype(np.int16))
        return (
            result.name in self.known.values
            and not is_code
            and not any(result is tensor for tensor in self.graph.outputs)
        )

    # ------------------------------------------------------------------ what is known of a tensor
    def shape(self, tensor: Tensor) -> tuple[Dim, ...]:
        """Symbolic shape."""
        if isinstance(tensor, Constant):
            return tuple(int(size) for size in tensor.shape)
        shape = self.known.shapes.get(tensor.name)
        if shape is None or any(size is None for size in shape):
            raise UnsupportedError(
                f"the shape of '{tensor.name}' depends on values; the machine needs it when the program is bound"
            )
        return shape

    def declare(self, tensor: Tensor, shape: tuple[Dim, ...]) -> None:
        """Say what shape a tensor has that shape inference knows nothing of."""
        self.known.shapes[tensor.name] = shape

    def ints(self, tensor: Tensor) -> list[Any]:
        """Elements of an integer tensor: ints or symbolic expressions."""
        if isinstance(tensor, Constant):
            return [int(item) for item in np.asarray(tensor.values).reshape(-1)]
        value = self.known.values.get(tensor.name)
        if value is None:
            raise UnsupportedError(f"'{tensor.name}' depends on values; the machine needs it when the program is bound")
        return value.ints()

    def nested(self, sizes: Sequence[Dim]) -> list[Any]:
        """Sizes in the form of the runtime's expressions."""
        return [to_nested(size) for size in sizes]

    # ------------------------------------------------------------------ views
    def view(self, tensor: Tensor) -> View:
        """Where a tensor lies."""
        if tensor.name not in self._views:
            self._views[tensor.name] = self._constant_view(tensor)
        return self._views[tensor.name]

    def _constant_view(self, tensor: Tensor) -> View:
        if isinstance(tensor, Constant):
            values = np.asarray(tensor.values)
        else:
            value = self.known.values.get(tensor.name)
            if value is None or not value.is_known:
                return self._sizes_as_data(tensor)
            values = np.array([int(item) for item in value.ints()], tensor.dtype or np.int64).reshape(value.items.shape)
        return View.dense(self.program.constant(values), values.shape)

    def _sizes_as_data(self, tensor: Tensor) -> View:
        """A buffer that is filled with what symbolic sizes give."""
        value = self.known.values.get(tensor.name)
        items = None if value is None else value.ints()
        if value is None or items is None or not 0 < len(items) <= _MOST_SIZES:
            raise UnsupportedError(
                f"'{tensor.name}' is computed from symbolic sizes and read as data; fix them: --dim NAME=SIZE"
            )
        view = self.scratch(value.items.shape, tensor.dtype or np.int64, name=tensor.name)
        for place, item in enumerate(items):
            self.program.emit(
                "fill", node=tensor.name, y=view.handle, count=1, y_offset=place, value=to_nested(as_dim(item))
            )
        return view

    def placed(self, tensor: Tensor) -> View | None:
        """Where a tensor lies whose parts were written before it; None: nowhere yet."""
        return self._views.get(tensor.name)

    def bind(self, tensor: Tensor, view: View) -> None:
        """Say where a tensor lies."""
        self._views[tensor.name] = view

    def new(self, tensor: Tensor, order: Order | None = None, dtype: Any = None) -> View:
        """A buffer for ``tensor``, dense in ``order``; the tensor is bound to it."""
        view = self.scratch(self.shape(tensor), dtype or tensor.dtype, order, tensor.name)
        self.bind(tensor, view)
        return view

    def place(self, tensor: Tensor, order: Order) -> View:
        """Where an instruction that can leave gaps between lines (the innermost axis in ``order``) writes ``tensor``.

        A tensor that nothing but a Concat along that axis reads is written into the Concat's result at once.
        """
        view = self._place_in_concat(tensor, order)
        if view is None:
            return self.new(tensor, order)
        self.bind(tensor, view)
        return view

    def _place_in_concat(self, tensor: Tensor, order: Order) -> View | None:
        readers = consumers(tensor)
        if len(readers) != 1 or readers[0].op != "Concat" or any(tensor is output for output in self.graph.outputs):
            return None
        concat, result = readers[0], readers[0].outputs[0]
        axis = int(concat.attrs["axis"])
        repeated = sum(part is tensor for part in concat.inputs) > 1
        if repeated or order[-1] != axis or len(order) < 2 or np.dtype(result.dtype) != np.dtype(tensor.dtype):
            return None
        if result.name not in self._views:
            self.new(result, order)
        whole = self._views[result.name]
        if not whole.lies_in(order):
            return None
        before = next(i for i, part in enumerate(concat.inputs) if part is tensor)
        start = as_dim(sum((self.shape(part)[axis] for part in concat.inputs[:before]), start=0))
        return whole.sliced(axis, start, self.shape(tensor)[axis], 1)

    def scratch(self, shape: Sequence[Dim], dtype: Any, order: Order | None = None, name: str = "") -> View:
        """A buffer that no tensor of the graph is bound to."""
        axes = tuple(range(len(shape))) if order is None else order
        perm = None if axes == tuple(range(len(shape))) else tuple(axes.index(axis) for axis in range(len(shape)))
        physical = self.nested([shape[axis] for axis in axes])
        return View.dense(self.program.buffer(physical, dtype, name=name, perm=perm), shape, axes)

    def in_order(self, view: View, order: Order | None, node: str) -> View:
        """``view`` if its elements are dense in ``order`` (default: that of the axes), else a copy, made once."""
        axes = tuple(range(view.rank)) if order is None else order
        if view.lies_in(axes):
            return view
        key = (self.is_buffer(view), view.handle.index, view.shape, view.strides, view.offset, axes)
        if key not in self._copies:
            copy = self.scratch(view.shape, view.handle.element, axes)
            self.move(view, copy, node)
            self._copies[key] = copy
        return self._copies[key]

    def copied(self, view: View, node: str) -> View:
        """A copy in the order of the axes."""
        copy = self.scratch(view.shape, view.handle.element)
        self.move(view, copy, node)
        return copy

    def buffer_of(self, view: View) -> Buffer:
        """The buffer of a view that is no constant."""
        if not isinstance(view.handle, Buffer):
            raise UnsupportedError("a constant is read where a buffer is needed")
        return view.handle

    def is_buffer(self, view: View) -> bool:
        """False for a constant."""
        return isinstance(view.handle, Buffer)

    def anyhow_dense(self, view: View, node: str) -> tuple[View, Order]:
        """``view`` dense in whatever order costs least, and that order."""
        if view.order is not None:
            return view, view.order
        copy = self.in_order(view, None, node)
        return copy, tuple(range(view.rank))

    def broadcast(self, view: View, shape: Sequence[Dim], node: str) -> View:
        """``view`` repeated to ``shape``. Where symbolic sizes must be equal for that, binding the program checks it.

        Raises:
            UnsupportedError: the shapes cannot fit.
        """
        for have, want in view.misfits(shape):
            if isinstance(have, int) and isinstance(want, int):
                raise UnsupportedError(f"its operands do not fit: a size is {have} in one and {want} in another")
            self.require_equal(have, want, node)
        return view.broadcast(shape)

    def require_equal(self, a: Dim, b: Dim, node: str) -> None:
        """Let binding refuse sizes for which ``a`` and ``b`` differ."""
        self._require_zero(maximum(a, b) - sympy.sympify(minimum(a, b)), f"{node}: the sizes {a} and {b} must be equal")

    def require_at_most(self, size: Dim, limit: int, node: str) -> None:
        """Let binding refuse a symbolic ``size`` beyond ``limit``, up to which the sums of ``node`` are proven."""
        if not isinstance(size, int):
            self._require_zero(floor_div(size, limit + 1), f"{node}: the size {size} must be at most {limit}")

    def _require_zero(self, excess: Dim, rule: str) -> None:
        """Let binding refuse sizes for which ``excess``, a number >= 0, is not 0.

        The check is an instruction that fills twice ``excess`` bytes of a buffer of one byte.
        """
        if rule not in self._required:
            self._required.add(rule)
            self.program.emit(
                "fill", node=rule, y=self.scratch([1], np.uint8).handle, count=to_nested(as_dim(2 * excess)), value=0
            )

    # ------------------------------------------------------------------ instructions
    def move(self, source: View, target: View, node: str, order: Order | None = None) -> None:
        """Copy ``source`` to ``target``, a view of the same shape, walking the axes in ``order``."""
        axes = order or target.order or tuple(range(target.rank))
        sizes = [target.shape[axis] for axis in axes]
        strides = [[view.strides[axis] for axis in axes] for view in (source, target)]
        dims, (x, y) = coalesce(sizes, strides)
        if len(dims) > MAX_RANK:
            raise UnsupportedError(f"it moves elements along {len(dims)} axes; the machine walks {MAX_RANK}")
        self.program.emit(
            "move",
            node=node,
            x=source.handle,
            y=target.handle,
            dims=self.nested(dims),
            x_strides=self.nested(x),
            y_strides=self.nested(y),
            x_offset=to_nested(source.offset),
            y_offset=to_nested(target.offset),
        )

    def walk(self, operands: Sequence[View], result: View, node: str) -> tuple[list[Any], list[list[Any]]]:
        """Dimensions and strides with which operands are read while ``result`` is written densely.

        Raises:
            UnsupportedError: more than six axes remain.
        """
        axes = result.order or tuple(range(result.rank))
        sizes = [result.shape[axis] for axis in axes]
        strides = [[view.strides[axis] for axis in axes] for view in operands]
        dims, walks = coalesce(sizes, [*strides, contiguous(sizes)])
        if len(dims) > MAX_RANK:
            raise UnsupportedError(f"node '{node}' walks along {len(dims)} axes; the machine walks {MAX_RANK}")
        return self.nested(dims), [self.nested(walk) for walk in walks[:-1]]


def _no_form(node: Node, reason: str) -> NoIntegerFormError:
    return NoIntegerFormError(f"node '{node.name}' ({node.op}): {reason}", {node.name: reason})


def output_fields(node: Node) -> dict[str, int]:
    """``y_zp``, ``lo`` and ``hi`` of a node."""
    return {key: int(node.attrs[key]) for key in ("y_zp", "lo", "hi")}
