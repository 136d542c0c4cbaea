"""How each operator of a quantized graph becomes integer operators."""
