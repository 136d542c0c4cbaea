"""What the three commands do; `cli.py` only reads their options."""
