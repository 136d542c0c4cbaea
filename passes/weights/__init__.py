"""Grids and levels of weights."""
