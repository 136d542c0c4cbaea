"""A program with sizes: memory plan, packed weights, division among threads. Plain Python."""
