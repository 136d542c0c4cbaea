"""Equivalences: an invertible matrix and its inverse put between two linear places and folded into both. The float
function stays as it is.
"""
