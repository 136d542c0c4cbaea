"""Emits an integer graph as a program of the machine."""
