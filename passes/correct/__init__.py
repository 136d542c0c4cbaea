"""Corrections of what quantization has moved: biases, statistics, all of the network."""
