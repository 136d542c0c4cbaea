"""Passes that write operators as several others: the same function in operators that the machine has."""
