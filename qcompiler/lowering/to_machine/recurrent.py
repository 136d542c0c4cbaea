"""Instructions of LSTM and GRU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.to_machine.emitter import Emitter, output_fields
from qcompiler.lowering.to_machine.views import View
from qcompiler.shapes.dims import to_nested

_FACTORS = ("m_w", "n_w", "m_r", "n_r")


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.values)


def _folded(bias: Tensor, weight: NDArray[Any], zero: int) -> NDArray[np.int32]:
    folded: NDArray[np.int32] = (_array(bias).astype(np.int64) - zero * weight.astype(np.int64).sum(axis=0)).astype(
        np.int32
    )
    return folded


def emit_recurrent(emitter: Emitter, node: Node) -> None:
    """One direction of an LSTM or GRU. State buffers hold the initial state before and the final one after it."""
    source, initial, w, bias_w, m_w, n_w, r, bias_r, m_r, n_r, sigmoid, tanh, *rest = node.inputs
    x = emitter.in_order(emitter.view(source), None, node.name)
    steps, batch, inputs = x.shape
    hidden, zero = int(node.attrs["hidden_size"]), int(node.attrs["x_zp"])
    emitter.declare(node.outputs[0], (steps, batch, hidden))
    y = emitter.new(node.outputs[0])
    h = _state(emitter, node, node.outputs[1], (batch, hidden), initial)
    fields: dict[str, Any] = {
        name: _array(tensor).astype(np.int32) for name, tensor in zip(_FACTORS, (m_w, n_w, m_r, n_r), strict=True)
    }
    fields |= {"table_f": _array(sigmoid), "table_g": _array(tanh), "h": h.handle, "w": _array(w), "r": _array(r)}
    if node.op == "LSTM":
        fields |= {
            "c": _state(emitter, node, node.outputs[2], (batch, hidden), rest.pop(0)).handle,
            "table_h": _array(tanh),
        }
    fields |= {
        key: int(node.attrs[key])
        for key in ("reverse", "m_h", "n_h", "m_s", "n_s", "linear_before_reset")
        if key in node.attrs
    }
    if rest:
        fields |= {"lengths": emitter.in_order(emitter.view(rest[0]), None, node.name).handle, "has_lengths": 1}
    rows, step = emitter.nested((y.strides[1], y.strides[0]))
    emitter.program.emit(
        node.op.lower(),
        node=node.name,
        x=x.handle,
        y=y.handle,
        bias_w=_folded(bias_w, _array(w), zero),
        bias_r=_folded(bias_r, _array(r), int(node.attrs["y_zp"])),
        steps=to_nested(steps),
        batch=to_nested(batch),
        inputs=to_nested(inputs),
        hidden=hidden,
        y_step=step,
        y_row=rows,
        x_zp=zero,
        **fields,
        **output_fields(node),
    )


def _state(emitter: Emitter, node: Node, tensor: Tensor, shape: tuple[Any, ...], initial: Tensor) -> View:
    """A state buffer that holds ``initial``, broadcast to ``shape``."""
    emitter.declare(tensor, shape)
    state = emitter.new(tensor)
    emitter.move(emitter.broadcast(emitter.view(initial), shape, node.name), state, node.name)
    return state
