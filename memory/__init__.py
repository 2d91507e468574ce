"""What a memory is, and how each step of its path is done. No process starts here."""

__version__ = "0.1.0"
