"""Grids of activations."""
