"""Moments of activations in closed form: formulas of functions of normal variables, and their way through a graph."""
