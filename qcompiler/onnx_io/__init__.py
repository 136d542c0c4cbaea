"""ONNX files: reading, writing, opsets, packed constants."""
