"""Replacement of layers and blocks by cheaper ones."""
