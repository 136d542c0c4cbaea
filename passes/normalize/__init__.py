"""Exact rewrites of the float graph into few forms."""
