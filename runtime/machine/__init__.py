"""The interpreter, and how threads share a run. Compiled."""
