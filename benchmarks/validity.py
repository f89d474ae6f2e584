"""How much of what models of random weights draw at temperature 2 is not valid music, and how much breaks what was asked.

    python benchmarks/validity.py             # 1,000 samples of the grammar, 600 with controls
    python benchmarks/validity.py --quick     # a tenth of them

A sample is valid if it decodes to exactly as many notes as it has tokens that begin one, none of them of no length or
without an end, none twice at one time, none drum's off the drums nor the other way round, no position past its bar, and
if encoding what was decoded gives the same ids. Controls are counted in the MIDI file that is written, each note and
event that breaks one. Nothing here asks the grammar: tokens and notes are counted anew.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi, models, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length, SamplerConfig
from musiclm.generation.controls import Controls
from musiclm.generation.decode import sample_ids
from musiclm.generation.sampler import Sampler
from musiclm.tokenizers import performance
from musiclm.tokenizers.base import Tokenizer
from musiclm.tokenizers.bpe import MergedTokenizer

TOKENIZERS = ("score", "performance", "grid", "score+bpe", "performance+bpe", "TSD", "MIDILike", "Structured")
CONTROLS: list[dict[str, Any]] = [
    {"instruments": "piano,bass,drums", "key": "D minor", "max_polyphony": 3},
    {"instruments": "violin", "tempo": 97.3, "time_signature": "3/4", "max_polyphony": 1},
    {"pitch_range": "C3-C6", "key": "F# major", "time_signature": "7/8"},
    {"instruments": "drums", "tempo": 200, "max_polyphony": 1},
    {"pitch_range": "60-62", "key": "A minor", "max_polyphony": 2},
]


class Checkpoint:
    """An untrained model with large weights, as `Composer` wants it."""

    name = arch = "untrained"
    sampling: ClassVar[dict[str, float]] = {}

    def __init__(self, tokenizer: Tokenizer, seed: int, scale: float = 0.3) -> None:
        self._tokenizer = tokenizer
        torch.manual_seed(seed)
        sizes = {"size": 16, "num_layers": 1, "dropout": 0.0}
        self._model = models.create("gru", tokenizer.vocab_size, **tokenizer.model_config, **sizes).eval()
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.normal_(std=scale)

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def model(self, device: str) -> Any:
        return self._model


def tokenizer_called(name: str) -> Tokenizer:
    """Return a tokenizer, with merges learnt from a made-up song where the name ends in +bpe."""
    base = tokenizers.create(name.removesuffix("+bpe"))
    return base.trained_bpe([base.encode(song(seed))[0] for seed in range(6)], 200) if name.endswith("+bpe") else base


def song(seed: int, num_bars: int = 8) -> Score:
    """Return some bars of 3/4 at 90 with piano, bass, flute and drums: prompts, and something to learn merges from."""
    draw = random.Random(seed)
    score = Score(480)
    score.tempos.append(Tempo(0, 90))
    score.time_signatures.append(TimeSignature(0, 3, 4))
    tracks = [Track("Piano", 0), Track("Bass", 33), Track("Flute", 73), Track("Drums", 0, True)]
    for at in range(0, 3 * 480 * num_bars, 240):
        for track, chance in zip(tracks, (0.5, 0.4, 0.6, 0.7), strict=True):
            for pitch in draw.sample((36, 38, 42) if track.is_drum else range(48, 80), 1 + (track.program == 0)):
                if draw.random() < chance:
                    track.notes.append(Note(at, draw.choice((120, 240, 480)), pitch, draw.randrange(40, 110)))
    for track in tracks:
        score.tracks.append(track)
    return score


def drawn(tokenizer: Tokenizer, count: int, length: int, seed: int, temperature: float = 2.0) -> np.ndarray:
    """Return what a model of random weights draws from nothing, (count, length) ids behind bos."""
    model = Checkpoint(tokenizer, seed).model("cpu")
    sampler = Sampler(temperature=temperature, constraints=constraints.constraints(tokenizer))
    prompt = torch.full((count, 1), tokenizer.bos)
    features = tokenizer.features if tokenizer.feature_sizes else None
    steps = islice(sample_ids(model, prompt, sampler, seed=seed, features=features), length)
    return torch.stack(list(steps), 1).numpy()


def faults(tokenizer: Tokenizer, ids: np.ndarray) -> list[str]:
    """Return what is wrong with ids that were drawn behind bos, each fault as a word."""
    base = tokenizer.base if isinstance(tokenizer, MergedTokenizer) else tokenizer
    ids = _whole(base, tokenizer.base_ids(ids))
    if len(ids) == 0:
        return []
    found = []
    score = base.decode(ids)
    kinds = getattr(base, "kinds", None)
    if base.name == "performance":
        num_begun = int(((ids >= performance.NOTE_ON) & (ids < performance.NOTE_OFF)).sum())
    elif kinds:
        num_begun = sum(kinds[i] in ("Pitch", "PitchDrum", "NoteOn", "DrumOn") for i in ids)
        found += _misplaced(base, ids)
    else:
        num_begun = score.note_num()
    if score.note_num() != num_begun:
        found.append("notes lost")
    for track in score.tracks:
        notes = track.notes.numpy()
        if (notes["duration"] <= 0).any():
            found.append("note of no length")
        if len({*zip(notes["time"].tolist(), notes["pitch"].tolist(), strict=True)}) < len(notes["time"]):
            found.append("note twice at a time")
    if midi.parse(midi.to_bytes(score), "drawn").note_num() != num_begun:
        found.append("notes lost in the file")
    again = base.encode(score)[0][1:-1]
    if (plan := getattr(base, "plan", None)) is not None:  # which the model chose, and which follows from the notes
        again, ids = plan.without(again), plan.without(ids)
    if again[: len(ids)].tolist() != ids.tolist():
        found.append("other ids when encoded again")
    return found


def _whole(base: Tokenizer, ids: np.ndarray) -> np.ndarray:
    """Return ids up to the last that ends a note or a step: what comes behind says nothing yet."""
    kinds = getattr(base, "kinds", None)
    if base.name == "grid":
        sings = np.flatnonzero(ids > 2)
        return ids[: 4 * (sings[-1] // 4 + 1)] if len(sings) and 4 * (sings[-1] // 4 + 1) <= len(ids) else ids[:0]
    if base.name == "performance":
        ends = np.flatnonzero((ids >= performance.NOTE_OFF) & (ids < performance.TIME_SHIFT))
        second = [performance.VOCAB_SIZE - 1]  # so that the last notes ring
    else:
        on_off = "NoteOff" in kinds
        last = ("Velocity", "NoteOff", "DrumOff") if on_off else ("Duration",)
        ends = np.flatnonzero([kinds[i] in last for i in ids])
        second = [base.midi_tokenizer["TimeShift_1.0.12"]] if on_off else []
    return np.append(ids[: ends[-1] + 1], second).astype(np.int64) if len(ends) else ids[:0]


def _misplaced(base: Any, ids: np.ndarray) -> list[str]:
    """Return positions past their bar, drum pitches off the drums, pitches on them, and marks in mid-stream."""
    found, program, capacity = [], None, 4 * base.midi_tokenizer.config.max_num_pos_per_beat
    for i in ids:
        kind, value = base.kinds[i], base.values[i]
        if kind == "Program":
            program = value
        elif kind == "TimeSig":
            capacity = int(value.split("/")[0]) * base.midi_tokenizer.config.max_num_pos_per_beat
        elif kind == "Position" and int(value) >= capacity:
            found.append("position past its bar")
        elif kind in ("Pitch", "NoteOn") and program in ("-1", None):
            found.append("pitch without an instrument")
        elif kind in ("PitchDrum", "DrumOn") and program != "-1":
            found.append("drum pitch off the drums")
        elif kind in ("PAD", "BOS", "EOS"):
            found.append("mark in mid-stream")
    return found


def violations(score: Score, controls: Controls, since: float = 0.0) -> list[str]:
    """Return what of a score breaks controls, each note or event as a word.

    Args:
        score: as it is in the file.
        controls: what was asked for.
        since: in quarters, where the new music begins.
    """
    first = round(since * score.ticks_per_quarter)
    found = []
    tuned = [(n, t.program) for t in score.tracks if not t.is_drum for n in t.notes]
    new = [(n, program) for n, program in tuned if n.time >= first]
    if controls.instruments is not None:
        found += ["instrument" for _, program in new if program not in controls.instruments]
        if -1 not in controls.instruments:
            found += ["instrument" for t in score.tracks if t.is_drum for n in t.notes if n.time >= first]
    found += ["pitch" for n, _ in new if n.pitch not in controls.pitches]
    if controls.max_polyphony is not None:
        starts, ends = (np.sort([f(n) for n, _ in tuned]) for f in (lambda n: n.time, lambda n: n.end))
        for time_ in {n.time for n, _ in new}:
            sounding = np.searchsorted(starts, time_, "right") - np.searchsorted(ends, time_, "right")
            found += ["polyphony"] * bool(sounding > controls.max_polyphony)
    if controls.tempo is not None:
        tempi = [t for t in score.tempos if t.time >= first] or list(score.tempos)[-1:]
        found += ["tempo" for t in tempi if t.time > first or abs(t.mspq - 60e6 / controls.tempo) > 1]
        found += ["tempo"] * (not tempi)
    if controls.time_signature is not None:
        bar = midi.bar_line(score, since)
        signs = [t for t in score.time_signatures if t.time / score.ticks_per_quarter <= bar + 1e-6][-1:]
        signs += [t for t in score.time_signatures if t.time / score.ticks_per_quarter > bar + 1e-6]
        found += ["metre" for t in signs if (t.numerator, t.denominator) != controls.time_signature]
    return found


def held(tokenizer: Tokenizer, controls: Controls, count: int, seed: int, prompt: Score | None = None) -> Counter[str]:
    """Return how many notes and events of some compositions break controls, and how many notes there were.

    Raises:
        TokenizerError: the tokenizer cannot express one of them.
    """
    composer = Composer(Checkpoint(tokenizer, seed))  # type: ignore[arg-type]
    heard = composer.prompt(prompt)
    sampler = SamplerConfig(temperature=2.0)
    config = GenerationConfig(length=Length(tokens=120), n=count, sampler=sampler, controls=controls)
    composed = composer.generate(heard, config, seed)
    counted: Counter[str] = Counter()
    for each in composed:
        score = midi.parse(midi.to_bytes(each.score), "composed")
        counted.update(violations(score, controls, heard.quarters))
        counted["notes"] += midi.without_before(score, heard.quarters).note_num()
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000, help="of the grammar, over all tokenizers")
    parser.add_argument("--length", type=int, default=150, help="tokens of a sample")
    parser.add_argument("--batch", type=int, default=25, help="samples of one model")
    parser.add_argument("--quick", action="store_true", help="a tenth")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    num_samples = options.samples // 10 if options.quick else options.samples
    report: dict[str, Any] = {"samples": 0, "tokens": 0, "faults": {}, "controls": {}}
    per_tokenizer = -(-num_samples // len(TOKENIZERS))
    for name in TOKENIZERS:
        tokenizer = tokenizer_called(name)
        counted: Counter[str] = Counter()
        for seed, at in enumerate(range(0, per_tokenizer, options.batch)):
            ids = drawn(tokenizer, min(options.batch, per_tokenizer - at), options.length, seed)
            for row in ids:
                counted.update(set(faults(tokenizer, row)))
            report["samples"] += len(ids)
            report["tokens"] += ids.size
        report["faults"][name] = dict(counted)
        print(f"{name}: {dict(counted) or 'no fault'} in {per_tokenizer} samples", file=sys.stderr)
        counted = Counter()
        for i, said in enumerate(CONTROLS):
            for prompt in (None, song(i)):
                try:
                    counted += held(tokenizer, Controls(**said), 1 if options.quick else 8, i, prompt)
                except TokenizerError as error:
                    counted["refused"] += 1
                    if i == 0 and prompt is None:
                        print(f"{name}: refused: {error}", file=sys.stderr)
        report["controls"][name] = dict(counted)
        print(f"{name}: {dict(counted)} under controls", file=sys.stderr)
    report["num_faults"] = sum(sum(each.values()) for each in report["faults"].values())
    report["num_violations"] = sum(
        n for each in report["controls"].values() for k, n in each.items() if k not in ("notes", "refused")
    )
    report["seconds_elapsed"] = time.monotonic() - began
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['num_faults']} faults in {report['samples']} samples, {report['num_violations']} violations")


if __name__ == "__main__":
    main()
