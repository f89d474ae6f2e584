"""The provenance record in a generated file, and generating the file again from it.

The record is a JSON text in the MIDI file: version, model and the hash of its weights, seed, the hash of the prompt, which
of the variations, and all options that shaped the music. It has no path and no date.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

from .. import __version__, midi
from ..checkpoint import Checkpoint, bundled
from ..devices import ENGINES, engine_label, precision_like
from ..errors import MidiError, MusicLMError
from .config import GenerationConfig

if TYPE_CHECKING:
    from symusic import Score

    from .composer import Composer, Composition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """How a file was made.

    Attributes:
        version: of musiclm.
        torch: its version.
        device: where it was computed.
        engine: what computed it there, see `devices.engine_label`; empty where the precision says it (fp32, bf16), and in
            older files.
        model: a bundled name; else the architecture.
        weights: the first 16 hexadecimal digits of the SHA-256 of the tensor bytes.
        seed: of everything that was sampled.
        prompt: the same digits of the SHA-256 of the prompt's file; None if there was none.
        prompt_quarters: where the prompt ends in the music, in quarters: `show` plots what comes before in a paler colour.
        index: which of the variations, from 0.
        request: all options that shaped the music.
    """

    version: str
    torch: str
    device: str
    model: str
    weights: str
    seed: int
    prompt: str | None
    prompt_quarters: float
    index: int
    request: GenerationConfig
    engine: str = ""

    def text(self) -> str:
        """Return it as JSON."""
        document = dataclasses.asdict(self) | {"musiclm": self.version, "options": self.request.to_record()}
        del document["version"], document["request"]
        if not self.engine:  # older files have no such key, and must get the same bytes
            del document["engine"]
        return json.dumps(document, sort_keys=True)


def record(
    composer: Composer,
    *,
    seed: int,
    request: GenerationConfig,
    prompt: bytes | None,
    prompt_quarters: float,
    index: int,
) -> Record:
    """Return the record of a variation that a composer made by a config."""
    import torch

    checkpoint = composer.checkpoint
    precision = composer.precision(request.precision)
    return Record(
        version=__version__,
        torch=torch.__version__,
        device=composer.device.type,
        model=checkpoint.name if checkpoint.name in bundled() else checkpoint.arch,
        weights=checkpoint.sha256[:16],
        seed=seed,
        prompt=_digest(prompt),
        prompt_quarters=prompt_quarters,
        index=index,
        request=request,
        engine="" if precision in ENGINES else engine_label(precision, composer.device),
    )


def to_midi(composition: Composition, record: Record) -> bytes:
    """Return the bytes of the MIDI file of a composition, with its record in it, and not that of its prompt."""
    score = composition.score.copy()
    score.markers = type(score.markers)([m for m in score.markers if _document(m.text) is None])
    midi.add_text(score, record.text())
    return midi.to_bytes(score)


def read(score: Score, name: str) -> Record:
    """Return the record in a score that was read from a file; `name` is what errors call it.

    Raises:
        MidiError: there is none, or it is damaged or of another version.
    """
    for marker in score.markers:
        document = _document(marker.text)
        if document is not None:
            return _from(document, name)
    raise MidiError(
        f"'{name}' has no record of how it was made: musiclm did not write it, or another program has written it since"
    )


def _document(text: str) -> dict[str, Any] | None:
    """Return the JSON of a record; None for any other text."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) and "musiclm" in document else None


def _from(document: dict[str, Any], name: str) -> Record:
    try:
        request = GenerationConfig.from_record(document["options"])
        if not 0 <= int(document["index"]) < request.n:
            raise ValueError(f"index {document['index']} of {request.n}")
        return Record(
            version=str(document["musiclm"]),
            torch=str(document.get("torch", "")),
            device=str(document.get("device", "cpu")),
            model=str(document["model"]),
            weights=str(document["weights"]),
            seed=int(document["seed"]),
            prompt=None if document["prompt"] is None else str(document["prompt"]),
            prompt_quarters=float(document["prompt_quarters"]),
            index=int(document["index"]),
            request=request,
            engine=str(document.get("engine", "")),
        )
    except MidiError as error:
        raise MidiError(f"'{name}' cannot be made again: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise MidiError(f"'{name}' cannot be made again: its record is damaged ({error!r})") from error


def check(record: Record, checkpoint: Checkpoint, prompt: bytes | None) -> list[str]:
    """Return what differs from when a file was made and may change its bytes, a sentence each.

    Raises:
        MusicLMError: something that surely changes the music: other weights, another prompt or none.
    """
    if not checkpoint.sha256.startswith(record.weights):
        raise MusicLMError(
            f"other weights: the file was made with {record.weights} ({record.model}), "
            f"'{checkpoint.name}' has {checkpoint.sha256[:16]}; name the model with --model"
        )
    if record.prompt is None and prompt is not None:
        raise MusicLMError("the file was made without a prompt: leave --prompt out")
    if record.prompt is not None and prompt is None:
        raise MusicLMError(f"the file continues a prompt (SHA-256 {record.prompt}…): name it with --prompt")
    if record.prompt != _digest(prompt):
        raise MusicLMError(f"another prompt: the file's has SHA-256 {record.prompt}…, this one {_digest(prompt)}…")
    import torch

    pairs = (("musiclm", record.version, __version__), ("torch", record.torch, torch.__version__))
    return [f"{name} {then} made the file, this is {now}" for name, then, now in pairs if then != now]


def check_engine(record: Record, device: str) -> tuple[str, list[str]]:
    """Return the engine that reproduces a file on a device, and why its bytes may differ, a sentence each."""
    precision = precision_like(record.request.precision, record.engine, device)
    engine = engine_label(precision, device)
    if record.engine == engine or record.request.precision == precision in ENGINES:
        return engine, []
    made_by = f"engine {record.engine} made the file" if record.engine else "the file does not record its engine"
    return engine, [f"{made_by}, this is {engine}"]


def reproduce(record: Record, composer: Composer, prompt: Score | None) -> bytes:
    """Return the bytes of a file, generated again from its record."""
    from . import accompany, infill

    precision = precision_like(record.request.precision, record.engine, composer.device)
    request = dataclasses.replace(record.request, precision=precision)
    if request.task is not None:
        made = accompany.arrange(composer, accompany.required(prompt), request, record.seed, [record.index])
        return to_midi(made[0], record)
    if request.is_filling and prompt is not None:
        made = infill.fill(composer, prompt, request, record.seed)
    else:
        made = composer.generate(prompt, request, record.seed)
    return to_midi(made[record.index], record)


def first_difference(one: bytes, other: bytes) -> int | None:
    """Return the first byte at which two files differ; None if they are the same."""
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()[:16]
