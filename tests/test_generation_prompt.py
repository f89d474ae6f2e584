"""Prompts of every shape: what they carry goes on, and what a tokenizer cannot say of them is said."""

from __future__ import annotations

import io
import warnings

import mido
import pretty_midi
import pytest

from musiclm import midi, tokenizers
from musiclm.errors import MidiError
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length

TUNE = [(480 * i, 400, 60 + i % 7) for i in range(22)]  # (tick, ticks, pitch): ends within a bar of 3/4, 4/4 and 5/4
Event = tuple[int, mido.Message]


def tempo(microseconds: int) -> Event:
    return 0, mido.MetaMessage("set_tempo", tempo=microseconds)


def metre(numerator: int, denominator: int, at: int = 0) -> Event:
    return at, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)


def played(channel: int, notes: list[tuple[int, int, int]], program: int = 0) -> list[Event]:
    events: list[Event] = [(0, mido.Message("program_change", channel=channel, program=program))]
    for at, length, pitch in notes:
        events.append((at, mido.Message("note_on", channel=channel, note=pitch, velocity=80)))
        events.append((at + length, mido.Message("note_off", channel=channel, note=pitch)))
    return events


def file(kind: int, *tracks: list[Event], ticks: int = 480) -> bytes:
    """Return the bytes of a MIDI file of type 0 or 1."""
    made = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for at, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=at - now))
            now = at
        made.tracks.append(track)
    data = io.BytesIO()
    made.save(file=data)
    return data.getvalue()


DRUMS = played(9, [(at, 100, 36) for at, _, _ in TUNE])
BASS = played(1, [(at, length, pitch - 24) for at, length, pitch in TUNE], 33)
SHAPES = {  # bytes, and the tempo and metre that go on
    "type 0": (file(0, [tempo(600000), metre(3, 4), *played(0, TUNE), *BASS, *DRUMS]), 100, (3, 4)),
    "type 1": (file(1, [tempo(500000), metre(4, 4)], played(0, TUNE), BASS, DRUMS), 120, (4, 4)),
    "no tempo": (file(1, played(0, TUNE)), 120, (4, 4)),
    "5/4": (file(1, [metre(5, 4), tempo(444444)], played(0, TUNE)), 135, (5, 4)),
    "30 tracks": (
        file(1, [tempo(600000)], *[played(i % 9, [(480, 200, 36 + i)], 4 * i) for i in range(30)]), 100, (4, 4),
    ),
    "drums only": (file(1, [tempo(500000)], DRUMS), 120, (4, 4)),
    "one note": (file(1, played(0, [(0, 480, 60)])), 120, (4, 4)),
    "one late note": (file(1, played(0, [(480 * 50, 480, 60)])), 120, (4, 4)),
    "40 minutes": (file(1, [tempo(500000)], played(0, [(480 * i, 400, 48 + i % 24) for i in range(4800)])), 120, (4, 4)),
    "an upbeat": (file(1, [metre(1, 4), metre(3, 4, 480), tempo(600000)], played(0, TUNE)), 100, (3, 4)),
    "96 ticks": (file(1, [metre(6, 8)], played(0, [(at // 5, 80, pitch) for at, _, pitch in TUNE]), ticks=96), 120, (6, 8)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "performance", "grid"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompt_of_any_shape_goes_on_from_its_place_in_the_bar(untrained, name: str, shape: str):
    data, qpm, sign = SHAPES[shape]
    composer = Composer.load(untrained(name))
    source = midi.parse(data, shape)
    if shape == "drums only" and name != "score":
        with pytest.raises(MidiError, match="drums have no pitch"):
            composer.prompt(source)
        return
    prompt = composer.prompt(source)
    (composed,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)
    score = composed.score
    assert [round(t.qpm, 2) for t in score.tempos] in ([qpm], [] if qpm == 120 else [qpm])  # none means 120
    signs = [(t.numerator, t.denominator) for t in score.time_signatures] or [(4, 4)]
    assert signs[-1] == sign
    assert midi.end(score) <= midi.bar_line(score, prompt.quarters, 2) + 1e-6
    assert midi.without_before(score, prompt.quarters).note_num() > 0
    if name == "score":
        was = sorted((round(n.time * 480 / source.ticks_per_quarter), n.pitch) for t in source.tracks for n in t.notes)
        assert len(was) == len([n for t in score.tracks for n in t.notes if n.time < prompt.quarters * 480])
        assert {(t.program, t.is_drum) for t in score.tracks if t.notes} == {
            (t.program, t.is_drum) for t in source.tracks if t.notes
        }
    written = midi.to_bytes(score)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = pretty_midi.PrettyMIDI(io.BytesIO(written))
    assert sum(len(i.notes) for i in opened.instruments) == score.note_num()
    begun = sum(m.type == "note_on" and m.velocity > 0 for m in mido.MidiFile(file=io.BytesIO(written)))
    assert begun == score.note_num()


def test_what_cannot_be_said_of_a_prompt_is_told():
    strange = midi.parse(file(1, [metre(17, 16)], played(0, TUNE)), "strange")
    assert "17/16" in tokenizers.create("score").unexpressed(strange)[0]
    assert "17/16" in tokenizers.create("Structured").unexpressed(strange)[0]
    band = midi.parse(SHAPES["type 1"][0], "band")
    assert tokenizers.create("score").unexpressed(band) == []
    assert "piano" in tokenizers.create("performance").unexpressed(band)[0]
    assert "four voices" in tokenizers.create("grid").unexpressed(band)[0]


def test_small_changes_of_tempo_stay_where_they_are(untrained):
    """Tempi that fall on one token all became the last of them: a prompt's notes slipped by a twentieth of a second."""
    data = file(1, [metre(4, 4), *[(480 * i, tempo(600000 - 6000 * (i % 3))[1]) for i in range(22)]], played(0, TUNE))
    source = midi.parse(data, "rubato")
    (composed,) = Composer.load(untrained("score")).generate(source, GenerationConfig(length=Length(bars=2)), seed=1)
    wanted = [(t.time, t.mspq) for t in source.tempos]
    assert [(t.time, t.mspq) for t in composed.score.tempos][: len(wanted)] == wanted


@pytest.mark.parametrize(
    "late", [(480 * 30, mido.MetaMessage("set_tempo", tempo=10**6)), metre(3, 4, 480 * 32)], ids=str
)
def test_what_stands_behind_the_last_note_is_not_waited_for(untrained, late: Event):
    """A tempo or a metre behind the music put bars of silence between a prompt and what goes on from it."""
    source = midi.parse(file(1, [metre(4, 4), tempo(500000), late], played(0, TUNE)), "late")
    composer = Composer.load(untrained("score"))
    assert composer.prompt(source).quarters == pytest.approx(22, abs=0.2)
    (composed,) = composer.generate(source, GenerationConfig(length=Length(bars=2)), seed=1)
    assert midi.end(composed.score) <= 24 + 8 + 1e-6


@pytest.mark.parametrize(
    ("signs", "lines"),
    [
        ([metre(4, 4), metre(4, 4, 480)], [0, 1, 5, 9, 13, 17, 21, 25]),
        ([metre(4, 4), metre(3, 4, 480 * 6)], [0, 4, 6, 9, 12, 15, 18, 21, 24]),
        ([metre(4, 4), metre(3, 4, 480 * 6 + 240)], [0, 4, 6.5, 9.5, 12.5, 15.5, 18.5, 21.5, 24.5]),
    ],
    ids=["an upbeat", "within a bar", "within a beat"],
)
def test_a_metre_that_begins_within_a_bar_begins_where_it_says(untrained, signs: list[Event], lines: list[float]):
    """It waited for the next bar line, or was dropped as no change: all bars behind it were others than the prompt's."""
    source = midi.parse(file(1, signs, played(0, TUNE)), "within")
    composer = Composer.load(untrained("score"))
    (composed,) = composer.generate(source, GenerationConfig(length=Length(bars=2)), seed=1)
    found = [bar.start for bar, _ in zip(midi.bars(composed.score), lines, strict=False)]
    assert found == pytest.approx(lines)
    ids, _ = composer.tokenizer.encode(source)
    again, _ = composer.tokenizer.encode(composer.tokenizer.decode(ids))
    assert (ids == again).all()


def test_a_silent_beginning_is_said(untrained):
    """It was called one that the tokenizer could not express."""
    source = midi.parse(SHAPES["one late note"][0], "late")
    for name in ("score", "performance", "grid"):
        with pytest.raises(MidiError, match="silent in its first 3 bars"):
            Composer.load(untrained(name)).prompt(source, bars=3)
