"""Weights: which bits, what they cost, how a layer is solved."""
