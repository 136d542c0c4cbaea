"""The integer machine."""
