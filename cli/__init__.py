"""The command line: one file a command. Results go to standard output, everything for people to standard error."""

from .app import main

__all__ = ["main"]
