"""The instruction set, and the proof that an instruction stays in its operands. Compiled."""
