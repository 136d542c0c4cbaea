"""The version of the package, as its distribution states it."""

__version__ = "0.1.0"
