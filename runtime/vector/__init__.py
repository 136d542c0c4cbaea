"""Vector code, written as LLVM instructions. Compiled."""
