"""Mixed programs: integer segments for the machine, and between them what has no integer form, on onnxruntime."""
