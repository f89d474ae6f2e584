"""Tokenizers by name. `grid`, `performance` and `score` are ours to describe; see each one's file.

The others are MidiTok's, by its names and with its options: see `others.py`. Knowing a name costs no import of MidiTok.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError

if TYPE_CHECKING:
    from .base import Tokenizer

MIDITOK = ("REMI", "TSD", "MIDILike", "Structured", "BEAT", "MMM", "PerTok")
OWN_OPTIONS = {  # beside MidiTok's; the version of its features for one
    "score": ("features",),
    "score-infill": ("features",),
    "performance": ("features",),
    "grid": ("features", "reference"),
    "grid-infill": (),
}
NAMES = ("score", "score-infill", "performance", "grid", "grid-infill", *MIDITOK)
INFILLING = ("score-infill", "grid-infill")  # whose models write within a score
SEVERAL_VOCABULARIES = ("CPWord", "Octuple", "MuMIDI")


def create(name: str, **options: Any) -> Tokenizer:
    """Return the tokenizer of this name.

    Args:
        name: one of `NAMES`.
        options: `config`, a dictionary of MidiTok's options, for `score` and MidiTok's own; and what `describe` gave.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    _check(name)
    try:
        if name == "grid":
            from .grid import Grid

            return Grid(**options)
        if name == "grid-infill":
            from .grid_infill import GridInfill

            return GridInfill(**options)
        if name == "performance":
            from .performance import Performance

            return Performance(**options)
        if name == "score":
            from .score import ScoreTokenizer

            return ScoreTokenizer(**options)
        if name == "score-infill":
            from .score_infill import ScoreInfill

            return ScoreInfill(**options)
        from .miditok_presets import PresetTokenizer

        return PresetTokenizer(name, **options)
    except TypeError as error:
        raise TokenizerError(f"tokenizer '{name}': {error}") from error


def parse(text: str) -> Tokenizer:
    """Return the tokenizer that users write as NAME or NAME:JSON, `TSD:{"num_velocities": 8}` for one.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    name, config = _parts(text)
    own = {option: config.pop(option) for option in OWN_OPTIONS.get(name, ()) if option in config}
    return create(name, **own, config=config) if config else create(name, **own)


def check_name(text: str) -> None:
    """Say whether NAME or NAME:JSON may be a tokenizer, without making it.

    Raises:
        TokenizerError: there is none of this name, or what follows is not a JSON object.
    """
    _parts(text)


def from_description(description: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that `Tokenizer.describe` described.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    options = dict(description)
    merges = options.pop("merges", None)
    if options.get("name") in OWN_OPTIONS:
        options.setdefault("features", 1)  # a description says the version, but for the first
    tokenizer = create(str(options.pop("name", None)), **options)
    if merges is None:
        return tokenizer
    from .bpe import MergedTokenizer

    return MergedTokenizer(tokenizer, merges)


def _parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of NAME or NAME:JSON."""
    name, colon, options = text.partition(":")
    name = name.strip()
    _check(name)
    if not colon:
        return name, {}
    try:
        config = json.loads(options)
    except ValueError as error:
        raise TokenizerError(
            f"""the options in '{text}' are not JSON: write {name}:{{"option": value}} ({error})"""
        ) from error
    if not isinstance(config, dict):
        raise TokenizerError(f"""the options in '{text}' are not a JSON object: write {name}:{{"option": value}}""")
    if name in ("performance", "grid", "grid-infill") and (unknown := sorted(set(config) - set(OWN_OPTIONS[name]))):
        have = f": {' and '.join(OWN_OPTIONS[name])} are all" if OWN_OPTIONS[name] else ""
        raise TokenizerError(f"the tokenizer '{name}' has no option '{unknown[0]}'{have}")
    return name, config


def _check(name: str) -> None:
    if name in SEVERAL_VOCABULARIES:
        raise TokenizerError(
            f"the tokenizer '{name}' writes several vocabularies at a time, and a model here reads one id a step: "
            f"take one of {', '.join(NAMES)}"
        )
    if name not in NAMES:
        raise TokenizerError(f"no tokenizer '{name}': one of {', '.join(NAMES)}")
