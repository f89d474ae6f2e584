"""Whether what `generate` writes sounds everywhere as it was composed: outputs with any number of instruments, note by note.

    python benchmarks/written_midi.py             # 100 outputs, their prompts with 1 to 40 programs
    python benchmarks/written_midi.py --quick     # 10 of them

Each prompt is made here: four bars in which every program plays some notes in its turn, at most 12 programs at once, every
third with drums. A model continues it by some bars, and the output is written with its record of provenance, as the command
does it. The file is then read by four that know nothing of how it was written:

    player        tests/midi_player.py: all tracks side by side, one program per channel, as a synthesizer
    mido          the same by another parser
    pretty_midi   track by track
    symusic       track by track, as musiclm itself reads

Each note of the composition (tick, pitch, program, drums) that one of them does not find, or finds beyond those, is a
mismatch. Programs of drums are not compared. `programs` are those of the compositions: fewer than of the prompts where the
model's tokens keep fewer instruments.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mido
import pretty_midi
from symusic import Note, Score, Tempo, Track

from musiclm import checkpoint
from musiclm.generation import provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import midi_player

PROMPT_BARS = 4
MOST_PROGRAMS = 40
DRUMS = -1
Sound = tuple[int, int, int]  # tick, pitch, program; DRUMS for any kit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100, help="outputs")
    parser.add_argument("--bars", type=int, default=2, help="new bars of each")
    parser.add_argument(
        "--model", default=checkpoint.default(), help="a bundled name, a checkpoint file or a run folder"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="10 outputs of one bar")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    if options.quick:
        options.files, options.bars = 10, 1
    found = measured(Composer.load(options.model), options)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['files']} outputs with {found['programs_least']} to {found['programs_most']} programs "
        f"({found['files_above_15']} with more than 15), {found['notes']} notes, "
        f"{found['files_replaced']} with instruments replaced, {found['write_ms']:.1f} ms to write one"
    )
    print(f"{'':<14}{'opened':>8}{'notes':>9}{'missing':>9}{'other':>9}")
    for name, each in found["readers"].items():
        print(f"{name:<14}{each['opened']:>8}{each['notes']:>9}{each['missing']:>9}{each['other']:>9}")


def measured(composer: Composer, options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of all outputs."""
    replaced: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: replaced.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("musiclm.midi.writer").addHandler(handler)
    logging.getLogger("musiclm.midi.writer").setLevel(logging.INFO)
    readers = {name: Counter(opened=0, notes=0, missing=0, other=0) for name in READERS}
    programs, notes, seconds = [], 0, 0.0
    config = GenerationConfig(length=Length(bars=options.bars))
    for index in range(options.files):
        prompt = a_prompt(1 + index * MOST_PROGRAMS // options.files, options.seed + index, with_drums=index % 3 == 2)
        composition = composer.generate(prompt, config, seed=options.seed + index)[0]
        record = provenance.record(
            composer, seed=options.seed + index, request=config, prompt=None, prompt_quarters=0.0, index=0
        )
        began = time.perf_counter()
        data = provenance.to_midi(composition, record)
        seconds += time.perf_counter() - began
        wanted = composed(composition.score)
        programs.append(len({program for _, _, program in wanted if program != DRUMS}))
        notes += wanted.total()
        for name, read in READERS.items():
            heard, opened = Counter[Sound](), 1
            try:
                heard = read(data)
            except Exception as error:  # whatever a reader raises over a file that it does not take
                print(f"{name} refuses output {index}: {error}", file=sys.stderr)
                opened = 0
            readers[name] += Counter(
                opened=opened, notes=heard.total(), missing=(wanted - heard).total(), other=(heard - wanted).total()
            )
    return {
        "files": options.files,
        "notes": notes,
        "programs_least": min(programs),
        "programs_most": max(programs),
        "files_above_15": sum(count > 15 for count in programs),
        "files_replaced": len(replaced),
        "write_ms": 1000 * seconds / options.files,
        "readers": {
            name: {k: each[k] for k in ("opened", "notes", "missing", "other")} for name, each in readers.items()
        },
    }


def a_prompt(num_programs: int, seed: int, *, with_drums: bool) -> Score:
    """Return four bars in which each of so many programs plays three notes in a span of its own, 12 or fewer at once."""
    draw = random.Random(seed)
    score = Score(480)
    score.tempos.append(Tempo(0, draw.choice([72, 96, 120])))
    whole = PROMPT_BARS * 4 * 480
    length = min(480, whole * 12 // num_programs // 3 // 240 * 240)  # ticks of one note: an eighth or a quarter
    for number, program in enumerate(draw.sample(range(128), num_programs)):
        track = Track(f"Part {number + 1}", program)
        start = min(whole - 3 * length, number * whole // num_programs // 240 * 240)
        for at in range(3):
            track.notes.append(Note(start + at * length, length, draw.randint(48, 84), draw.randint(50, 110)))
        score.tracks.append(track)
    if with_drums:
        drums = Track("Drums", 0, True)
        for beat in range(PROMPT_BARS * 4):
            drums.notes.append(Note(beat * 480, 120, draw.choice([36, 38, 42]), 90))
        score.tracks.append(drums)
    return score


def composed(score: Score) -> Counter[Sound]:
    """Count the notes of a score; of those that begin together at one pitch of a track a file holds one."""
    return Counter(
        sound
        for track in score.tracks
        for sound in {(n.time, n.pitch, DRUMS if track.is_drum else track.program) for n in track.notes}
    )


def by_player(data: bytes) -> Counter[Sound]:
    return Counter((n.start, n.pitch, DRUMS if n.is_drum else n.program) for n in midi_player.play(data))


def by_mido(data: bytes) -> Counter[Sound]:
    found: Counter[Sound] = Counter()
    programs, tick = [0] * 16, 0
    for message in mido.merge_tracks(mido.MidiFile(file=io.BytesIO(data)).tracks):
        tick += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on" and message.velocity:
            found[tick, message.note, DRUMS if message.channel == 9 else programs[message.channel]] += 1
    return found


def by_pretty_midi(data: bytes) -> Counter[Sound]:
    opened = pretty_midi.PrettyMIDI(io.BytesIO(data))
    return Counter(
        (opened.time_to_tick(n.start), n.pitch, DRUMS if i.is_drum else i.program)
        for i in opened.instruments
        for n in i.notes
    )


def by_symusic(data: bytes) -> Counter[Sound]:
    return Counter(
        (n.time, n.pitch, DRUMS if t.is_drum else t.program) for t in Score.from_midi(data).tracks for n in t.notes
    )


READERS: dict[str, Callable[[bytes], Counter[Sound]]] = {
    "player": by_player,
    "mido": by_mido,
    "pretty_midi": by_pretty_midi,
    "symusic": by_symusic,
}

if __name__ == "__main__":
    main()
