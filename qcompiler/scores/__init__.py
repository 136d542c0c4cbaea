"""Scores of the user: what measures a model, and what of it may be lost."""
