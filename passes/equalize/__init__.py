"""Equivalent transforms that make a graph easier to quantize."""
