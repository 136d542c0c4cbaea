"""Which function emits which integer operator."""

from __future__ import annotations

from qcompiler.lowering.to_machine import division, elementwise, movers, products, reductions, resize
from qcompiler.lowering.to_machine.emitter import Emit
from qcompiler.lowering.to_machine.recurrent import emit_recurrent

EMIT_RULES: dict[str, Emit] = {
    "Quantize": elementwise.emit_quantize,
    "Label": elementwise.emit_label,
    "Dequantize": elementwise.emit_dequantize,
    "Identity": elementwise.emit_identity,
    "Conv": products.emit_conv,
    "ConvTranspose": products.emit_conv_transpose,
    "Gemm": products.emit_gemm,
    "MatMul": products.emit_matmul,
    "Table": elementwise.emit_table,
    "PiecewiseLinear": elementwise.emit_piecewise,
    "Cast": elementwise.emit_cast,
    "Compare": elementwise.emit_compare,
    **dict.fromkeys(("Requantize", "QuantizeInteger"), elementwise.emit_requantize),
    **dict.fromkeys(("Add", "Mul", "Div", "Min", "Max"), elementwise.emit_binary),
    **dict.fromkeys(("Where", "IntegerWhere"), elementwise.emit_where),
    **dict.fromkeys(("Not", "And", "Or", "Xor"), elementwise.emit_logic),
    **dict.fromkeys((f"Integer{op}" for op in ("Add", "Sub", "Mul", "Min", "Max")), elementwise.emit_integer_binary),
    "Reduce": reductions.emit_reduce,
    "ArgMax": reductions.emit_argmax,
    "TopK": reductions.emit_topk,
    "Softmax": reductions.emit_softmax,
    **dict.fromkeys(("LayerNorm", "InstanceNorm"), reductions.emit_norm),
    "MaxPool": reductions.emit_max_pool,
    "AveragePool": reductions.emit_average_pool,
    "Transpose": movers.emit_transpose,
    "Squeeze": movers.emit_squeeze,
    "Unsqueeze": movers.emit_unsqueeze,
    "Slice": movers.emit_slice,
    **dict.fromkeys(("Reshape", "Flatten"), movers.emit_reshape),
    "Expand": movers.emit_expand,
    "Tile": movers.emit_tile,
    "Concat": movers.emit_concat,
    "Gather": movers.emit_gather,
    "Scatter": movers.emit_scatter,
    "Pad": movers.emit_pad,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), movers.emit_depth_to_space),
    **dict.fromkeys(("LSTM", "GRU"), emit_recurrent),
    "Repeat": resize.emit_repeat,
    "ResizeLinear": resize.emit_resize_linear,
    "IntegerDiv": division.emit_divide,
    "IntegerMod": division.emit_remainder,
    "Shape": movers.emit_shape,
    "IntegerRange": movers.emit_range,
    "IntegerConstantOfShape": movers.emit_filled,
}
