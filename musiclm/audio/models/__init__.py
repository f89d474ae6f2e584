"""Architectures of the note classifier, one a file."""
