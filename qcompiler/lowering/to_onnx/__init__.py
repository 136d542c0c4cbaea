"""Writes an integer graph as integer arithmetic in standard ONNX operators."""
