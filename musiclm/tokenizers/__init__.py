"""Tokenizers by name. `REGISTRY` has one line for each; its class is imported only when a tokenizer is made.

`grid`, `performance`, `score`, `score-pairs` and the two for infilling are this project's, see each one's file. The others
are MidiTok's, by its names and with its options, see `miditok_presets`. Knowing a name imports neither MidiTok nor torch nor
numpy.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError

if TYPE_CHECKING:
    from .base import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Registered:
    """The metadata of a tokenizer that is available without importing it.

    Attributes:
        module: where its class is; relative to this package where it begins with a dot.
        name: of the class.
        options: what users may write in NAME:JSON, besides MidiTok's options.
        arguments: what the class is given first.
        is_miditok: whether all other options are MidiTok's, and are given to the class as `config`.
        has_versions: whether its features have versions; a description without one then means version 1.
        supports_infilling: whether its models can write within a score.
        is_paired: whether its pieces are pairs of parts, which have versions, too.
    """

    module: str
    name: str
    options: tuple[str, ...] = ()
    arguments: tuple[Any, ...] = ()
    is_miditok: bool = False
    has_versions: bool = False
    supports_infilling: bool = False
    is_paired: bool = False

    def load(self) -> Any:
        """Return the class."""
        return getattr(importlib.import_module(self.module, __package__), self.name)


def _own(module: str, name: str, *options: str, **known: Any) -> Registered:
    return Registered(module=module, name=name, options=options, has_versions=True, **known)


MIDITOK = ("REMI", "TSD", "MIDILike", "Structured", "BEAT", "MMM", "PerTok")
REGISTRY: dict[str, Registered] = {
    "score": _own(".score", "ScoreTokenizer", "features", is_miditok=True),
    "score-infill": _own(".score_infill", "ScoreInfill", "features", is_miditok=True, supports_infilling=True),
    "score-pairs": _own(".score_pairs", "ScorePairs", "features", is_miditok=True, is_paired=True),
    "performance": _own(".performance", "Performance", "features"),
    "grid": _own(".grid", "Grid", "features", "reference"),
    "grid-infill": _own(".grid_infill", "GridInfill", supports_infilling=True),
    **{
        n: Registered(module=".miditok_presets", name="PresetTokenizer", arguments=(n,), is_miditok=True)
        for n in MIDITOK
    },
}
NAMES = tuple(REGISTRY)
INFILLING = tuple(name for name, known in REGISTRY.items() if known.supports_infilling)
PAIRED = tuple(name for name, known in REGISTRY.items() if known.is_paired)
SEVERAL_VOCABULARIES = ("CPWord", "Octuple", "MuMIDI")  # of MidiTok; no model here reads them


def create(name: str, **options: Any) -> Tokenizer:
    """Return the tokenizer of this name.

    Args:
        name: a key of `REGISTRY`.
        options: arguments of its class; of those made with MidiTok also `config`, a dictionary of MidiTok's options.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    known = _known(name)
    try:
        return known.load()(*known.arguments, **options)
    except TypeError as error:
        raise TokenizerError(f"tokenizer '{name}': {error}") from error


def parse(text: str) -> Tokenizer:
    """Return the tokenizer that users write as NAME or NAME:JSON, for example `TSD:{"num_velocities": 8}`.

    Raises:
        TokenizerError: there is none of this name, or it does not take these options.
    """
    name, config = _parts(text)
    own = {option: config.pop(option) for option in _known(name).options if option in config}
    return create(name, **own, config=config) if config else create(name, **own)


def check_name(text: str) -> None:
    """Check that NAME or NAME:JSON can be a tokenizer, without making it.

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
    merges, name = options.pop("merges", None), str(options.pop("name", None))
    if _known(name).has_versions:
        options.setdefault("features", 1)  # a description says the version, except for the first
    if name in PAIRED:
        options.setdefault("pairs", 1)
    tokenizer = create(name, **options)
    if merges is None:
        return tokenizer
    from .bpe import MergedTokenizer

    return MergedTokenizer(tokenizer, merges)


def _parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of NAME or NAME:JSON."""
    name, colon, options = text.partition(":")
    name = name.strip()
    known = _known(name)
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
    if not known.is_miditok and (unknown := sorted(set(config) - set(known.options))):
        have = f": its options are {' and '.join(known.options)}" if known.options else ""
        raise TokenizerError(f"the tokenizer '{name}' has no option '{unknown[0]}'{have}")
    return name, config


def _known(name: str) -> Registered:
    if name in SEVERAL_VOCABULARIES:
        raise TokenizerError(
            f"the tokenizer '{name}' writes several vocabularies at once, but a model here reads one id per step: "
            f"take one of {', '.join(REGISTRY)}"
        )
    if name not in REGISTRY:
        raise TokenizerError(f"no tokenizer '{name}': one of {', '.join(REGISTRY)}")
    return REGISTRY[name]
