"""Symbolic shapes of tensors and values of small integer ones."""
