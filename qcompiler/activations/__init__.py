"""Grids of activations: pairs of QuantizeLinear and DequantizeLinear, 16 bits, ranges, power curves."""
