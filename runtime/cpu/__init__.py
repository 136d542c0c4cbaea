"""What this CPU is and can do, and the compiler for it. Compiled."""
