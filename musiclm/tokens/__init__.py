"""Tokenizers by name. `grid` and `score` are ours to describe; see each one's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError

if TYPE_CHECKING:
    from .base import Tokenizer

NAMES = ("score", "grid")


def create(name: str, **options: Any) -> Tokenizer:
    """Return the tokenizer of this name.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    check_name(name)
    try:
        if name == "grid":
            from .grid import Grid

            return Grid(**options)
        from .score import ScoreTokenizer

        return ScoreTokenizer(**options)
    except TypeError as error:
        raise TokenizerError(f"tokenizer '{name}': {error}") from error


def check_name(name: str) -> None:
    """Say whether there is a tokenizer of this name, without making it.

    Raises:
        TokenizerError: there is none.
    """
    if name not in NAMES:
        raise TokenizerError(f"no tokenizer '{name}': one of {', '.join(NAMES)}")


def from_description(description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.describe` described."""
    options = dict(description)
    return create(str(options.pop("name", None)), **options)
