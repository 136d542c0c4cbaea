"""One run: memory, feeds and answers, threads, machine code. Plain Python."""
