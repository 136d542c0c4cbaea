"""Feeds: read, drawn, selected, mixed."""
