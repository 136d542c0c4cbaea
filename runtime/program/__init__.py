"""What a program is: its contents, its file, how one is built. Plain Python."""
