"""Which function writes which integer operator as standard ONNX."""

from __future__ import annotations

from qcompiler.lowering.to_onnx import elementwise, products, reductions, resize
from qcompiler.lowering.to_onnx.products import Write
from qcompiler.lowering.to_onnx.recurrent import write_recurrent

_SAME = (
    "Identity",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Concat",
    "Pad",
    "Gather",
    "Expand",
    "Tile",
    "Shape",
    "Not",
    "And",
    "Or",
    "Xor",
)

WRITE_RULES: dict[str, Write] = {
    "Quantize": elementwise.write_quantize,
    "Dequantize": elementwise.write_dequantize,
    "QuantizeInteger": elementwise.write_quantize_integer,
    "Requantize": elementwise.write_requantize,
    "Table": elementwise.write_table,
    "PiecewiseLinear": elementwise.write_piecewise,
    "Where": elementwise.write_where,
    "Mul": elementwise.write_mul,
    "Div": elementwise.write_div,
    "Compare": elementwise.write_compare,
    "Cast": elementwise.write_cast,
    "ArgMax": elementwise.write_argmax,
    "TopK": elementwise.write_topk,
    "Scatter": elementwise.write_scatter,
    **dict.fromkeys(("Add", "Min", "Max"), elementwise.write_add),
    **dict.fromkeys(_SAME, elementwise.write_same),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), elementwise.write_depth_to_space),
    "Conv": products.write_conv,
    "ConvTranspose": products.write_conv_transpose,
    "Gemm": products.write_gemm,
    "MatMul": products.write_matmul,
    "Reduce": reductions.write_reduce,
    "Softmax": reductions.write_softmax,
    "MaxPool": reductions.write_max_pool,
    "AveragePool": reductions.write_average_pool,
    **dict.fromkeys(("LSTM", "GRU"), write_recurrent),
    "Repeat": resize.write_repeat,
    "ResizeLinear": resize.write_resize_linear,
    **dict.fromkeys(("LayerNorm", "InstanceNorm"), reductions.write_norm),
}
