"""Any prompt: a model goes on from real pieces and from files of every shape, and each output is held against its prompt.

    python benchmarks/prompts.py CORPUS MIDI      # 200 test pieces of a corpus, whose files lie in MIDI, and the shapes
    python benchmarks/prompts.py                  # the shapes alone

CORPUS is a store of `musiclm corpus build MIDI`; its test pieces are taken in the order of their names' hash. Of three the
first is heard whole, the next to a bar line, the third to a second within a bar. Four bars are asked for. Faults, by kind:

    notes          of the prompt: one is not in the output just as it is in the file, cut at the prompt's end
    words          a track name, controller, pitch bend, lyric or marker of the prompt is not where it was
    seam           a pedal is down, or a modulation or pitch bend in force, behind the prompt's end
    early          a new note begins before the prompt's end
    tempo          not the prompt's where it ends, or a note of the prompt is over 50 ms and 0.5 % of its time away
    metre          the bars of the prompt are others, or those that follow are
    instruments    a new note on an instrument that the prompt does not have
    end            a note sounds beyond the bar line asked for
    silence        no new note
    opening        mido or pretty_midi does not open it, or finds other notes

A shape that the tokens cannot say (17/16) is told and its metre not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import random
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mido
import pretty_midi
import torch
from prompt_shapes import shapes
from symusic import Score

from musiclm import midi
from musiclm.data import open_source
from musiclm.errors import MusicLMError
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length

BARS = 4
Sound = tuple[int, bool, int]  # program, whether it is a drum, pitch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """A file to go on from: all of it, or its first bars or seconds."""

    name: str
    data: bytes
    bars: int | None = None
    seconds: float | None = None


def real(corpus: Path, folder: Path, count: int) -> Iterator[Prompt]:
    """Yield so many files of the test split."""
    names = sorted(
        (p.name for p in open_source(corpus).pieces("test")), key=lambda n: hashlib.sha256(n.encode()).digest()
    )
    for i, name in enumerate(names[:count]):
        data = (folder.parent / name).read_bytes()
        draw = random.Random(i)
        score = midi.parse(data, name)
        first = min(n.time for t in score.tracks for n in t.notes) / score.ticks_per_quarter  # some begin with silence
        bars = len(bar_lines(score, first)) + draw.randint(1, 12)
        seconds = time_at(score, first) + draw.uniform(3, 30)
        yield Prompt(name=name, data=data, bars=bars if i % 3 == 1 else None, seconds=seconds if i % 3 == 2 else None)


def bar_lines(score: Score, until: float) -> list[tuple[float, int, int]]:
    """Return where bars begin, in quarters, and their time signatures, up to the first line at or behind a time."""
    ticks = score.ticks_per_quarter
    signs = sorted({t.time: (t.numerator, t.denominator) for t in score.time_signatures}.items())
    at, sign, lines = 0.0, (4, 4), list[tuple[float, int, int]]()
    while True:
        while signs and signs[0][0] / ticks <= at + 1e-6:
            sign = signs.pop(0)[1]
        lines.append((at, *sign))
        if at >= until - 1e-6:
            return lines
        at += 4 * sign[0] / sign[1]
        if signs and signs[0][0] / ticks < at - 1e-6:
            at = signs[0][0] / ticks


def time_at(score: Score, quarters: float) -> float:
    """Return when a musical time is, in seconds, by the score's tempi."""
    passed, at, pace = 0.0, 0.0, 0.5
    for tick, mspq in sorted({t.time: t.mspq for t in score.tempos}.items()):
        change = tick / score.ticks_per_quarter
        if change >= quarters:
            break
        passed, at, pace = passed + (change - at) * pace, change, mspq / 1e6
    return passed + (quarters - at) * pace


def by_sound(score: Score) -> dict[Sound, list[tuple[float, float, int]]]:
    """Return onsets and ends, in quarters, and velocities of each sound, in order."""
    found: dict[Sound, list[tuple[float, float, int]]] = defaultdict(list)
    for track in score.tracks:
        for n in track.notes:
            sound = (0 if track.is_drum else track.program, track.is_drum, n.pitch)
            found[sound].append((n.time / score.ticks_per_quarter, n.end / score.ticks_per_quarter, n.velocity))
    return {sound: sorted(notes) for sound, notes in found.items()}


def words(score: Score, stop: float) -> Counter[tuple[Any, ...]]:
    """Return what is no note before a time: controllers, pitch bends, lyrics and markers, in quarters, by track name."""
    ticks = score.ticks_per_quarter
    found = Counter[tuple[Any, ...]]((m.time / ticks, m.text) for m in score.markers)
    for t in score.tracks:
        found.update((t.name, c.time / ticks, c.number, c.value) for c in t.controls)
        found.update((t.name, b.time / ticks, b.value) for b in t.pitch_bends)
        found.update((t.name, w.time / ticks, w.text) for w in t.lyrics)
    return Counter({each: n for each, n in found.items() if next(v for v in each if isinstance(v, float)) < stop})


def faults(
    source: Score, stop: float, data: bytes, *, seam: float, has_metre: bool
) -> tuple[list[str], dict[str, float]]:
    """Return the faults of an output, a word each, and what else was seen.

    Args:
        source: what was heard of the prompt.
        stop: where it ends, in quarters.
        data: the output, a MIDI file.
        seam: where new music may begin: there, or where the last of its tokens is, in quarters.
        has_metre: whether the tokens can say the prompt's time signatures.
    """
    found, out = list[str](), Score.from_midi(data)
    source = Score.from_midi(midi.to_bytes(source))  # a file has no two notes of a pitch at once on one track
    before, after = by_sound(source), by_sound(out)
    wanted, there = (Counter((s, n) for s, notes in of.items() for n in notes) for of in (before, after))
    missing = sum((wanted - there).values())
    found += ["notes"] * (missing > 0)
    found += ["words"] * bool(words(source, stop) - words(out, stop))
    found += ["words"] * bool({t.name for t in source.tracks if t.notes} - {t.name for t in out.tracks})
    found += ["seam"] * any(_is_coloured(t, round(seam * out.ticks_per_quarter)) for t in out.tracks)
    new = [(s, n) for s, notes in after.items() for n in notes if n[0] >= stop - 1e-6]
    num_early = sum(len(n) for n in after.values()) - len(new) - sum(len(n) for n in before.values())
    found += ["early"] * (num_early > 0)
    found += ["silence"] * (not new)
    found += ["instruments"] * bool({s[:2] for s, _ in new} - {s[:2] for s in before})

    def pace(score: Score) -> float:
        return time_at(score, stop + 1e-3) - time_at(score, stop)

    slips = [
        abs(time_at(out, n[0]) - time_at(source, n[0])) - 0.005 * time_at(source, n[0])
        for v in before.values()
        for n in v
    ]
    found += ["tempo"] * (abs(pace(out) / pace(source) - 1) > 0.001 or max(slips) > 0.05)
    lines = bar_lines(out, stop)
    if has_metre:
        asked = bar_lines(source, stop)  # a bar that a change of metre cuts short has a metre of its own in the output
        found += ["metre"] * ([at for at, *_ in lines] != [at for at, *_ in asked] or lines[-1] != asked[-1])
    end = lines[-1][0] + BARS * 4 * lines[-1][1] / lines[-1][2]
    found += ["metre"] * any(t.time / out.ticks_per_quarter > lines[-1][0] for t in out.time_signatures)
    found += ["end"] * any(off > end + 1e-3 for notes in after.values() for _, off, _ in notes)
    return found + opening(data, out.note_num()), {
        "slip": max(slips), "missing": missing, "early": max(0, num_early), "notes": sum(map(len, before.values())),
    }  # fmt: skip


def _is_coloured(track: Any, seam: int) -> bool:
    """Return whether a pedal, modulation or pitch bend is in force at a tick, the events at it included."""
    last: dict[int, int] = {}
    for c in track.controls:
        if c.time <= seam and c.number in (1, 64, 66, 67):
            last[c.number] = c.value
    bends = [b.value for b in track.pitch_bends if b.time <= seam]
    return any(last.values()) or bool(bends and bends[-1])


def opening(data: bytes, count: int) -> list[str]:
    """Return ["opening"] if another library does not find so many notes in a file."""
    try:
        in_mido = sum(
            m.type == "note_on" and m.velocity > 0 for t in mido.MidiFile(file=io.BytesIO(data)).tracks for m in t
        )
        in_pretty = sum(len(i.notes) for i in pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments)
    except Exception as error:  # whatever they raise is a fault of the file
        print(f"does not open: {error!r}", file=sys.stderr)
        return ["opening"]
    return ["opening"] * (in_mido != count or in_pretty != count)


def check(composer: Composer, prompt: Prompt, seed: int) -> tuple[list[str], dict[str, Any]]:
    """Return the faults of one continuation, and what else was seen."""
    score = midi.parse(prompt.data, prompt.name)
    heard = composer.prompt(score, bars=prompt.bars, seconds=prompt.seconds)
    (made,) = composer.generate(heard, GenerationConfig(length=Length(bars=BARS)), seed)
    unsaid = composer.tokenizer.unexpressed(score)
    assert heard.score is not None
    stop = heard.quarters
    if prompt.bars is None:
        stop = midi.end(score)
        if prompt.seconds is not None:
            stop = min(stop, midi.quarters_at(score, prompt.seconds))
    data = midi.to_bytes(made.score)
    found, seen = faults(heard.score, stop, data, seam=heard.quarters, has_metre=not unsaid)
    return found, {**seen, "left_out": heard.left_out, "unsaid": unsaid, "tokens": made.num_new_tokens}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", help="a store")
    parser.add_argument("midi", type=Path, nargs="?", help="the folder that it was built from")
    parser.add_argument("--model", default="score")
    parser.add_argument("--files", type=int, default=200, help="of the test split")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("-o", "--output", type=Path, help="folder for the outputs with faults")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # pretty_midi's, of metres on other tracks
    began = time.monotonic()
    composer = Composer.load(options.model)
    made = [Prompt(name=name, data=data) for name, data in shapes().items()]
    files = list(real(options.corpus, options.midi, options.files)) if options.corpus and options.midi else []
    if options.quick:
        made, files = made[::6], files[:6]
    report: dict[str, Any] = {"model": composer.checkpoint.name, "bars": BARS, "seed": 1}
    for group, prompts in (("shapes", made), ("files", files)):
        counted: Counter[str] = Counter()
        notes = missing = left_out = 0
        for prompt in prompts:
            try:
                found, seen = check(composer, prompt, seed=1)
            except MusicLMError as error:
                found, seen = ["refused"], {"why": str(error)}
            counted.update(set(found))
            notes += seen.get("notes", 0)
            missing, left_out = missing + seen.get("missing", 0), left_out + seen.get("left_out", 0)
            if found:
                print(f"{prompt.name} ({prompt.bars} bars, {prompt.seconds} s): {found} {seen}", file=sys.stderr)
        report[group] = {
            "num_prompts": len(prompts), "faults": dict(counted), "num_prompt_notes": notes,
            "share_as_in_the_file": 1 - missing / max(1, notes), "num_missing": missing, "num_unheard": left_out,
        }  # fmt: skip
    report["seconds_elapsed"] = time.monotonic() - began
    if options.json:
        print(json.dumps(report))
        return
    for group in ("shapes", "files"):
        r = report[group]
        print(f"{group}: {r['num_prompts']} prompts, faults {r['faults'] or 'none'}")
    print(f"{report['seconds_elapsed']:.0f} s")


if __name__ == "__main__":
    main()
