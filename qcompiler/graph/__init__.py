"""The graph: onnx-graphsurgeon with stages, layers, placement of grids, the verifier, onnxruntime as a judge."""
