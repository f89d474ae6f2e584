"""The prompt's part of an output is the prompt's file, and what would colour the new music is reset at the seam."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from fractions import Fraction
from itertools import chain
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from symusic import Note, Score, Track

from musiclm import midi, tokenizers
from musiclm.generation import provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from musiclm.generation.prompt import Prompt
from musiclm.generation.seam import common_ticks
from tests.test_generation_prompt import Event, file, metre, played, tempo

EXAMPLES = Path(__file__).parents[1] / "examples"
SEAM = 8  # quarters: two bars of 4/4


def control(channel: int, number: int, value: int, at: int = 0) -> Event:
    return at, mido.Message("control_change", channel=channel, control=number, value=value)


def meta(kind: str, text: str, at: int = 0) -> Event:
    return at, mido.MetaMessage(kind, **{"name" if kind == "track_name" else "text": text})


def bend(channel: int, value: int, at: int = 0) -> Event:
    return at, mido.Message("pitchwheel", channel=channel, pitch=value)


def rich(ticks: int) -> bytes:
    """Return three bars with all that the tokenizers lack: off the grid, two pianos, pedal, bends, words, names."""
    q = ticks
    left = [(q * i + q // 7, q // 2, 40 + i) for i in range(12)]
    right = [(q * i + (i % 3) * q // 19, q // 3, 70 - i % 5) for i in range(12)]
    tune = [(2 * q * i + q // 11, 2 * q - q // 5, 74 + i) for i in range(6)]
    return file(
        1,
        [tempo(600000), metre(4, 4), (5 * q, tempo(480000)[1]), meta("marker", "Verse", q), meta("marker", "B", 9 * q)],
        [meta("track_name", "left"), control(0, 7, 50), control(0, 10, 20), *played(0, left),
         control(0, 64, 127, 2 * q), control(0, 64, 0, 4 * q), control(0, 64, 100, 6 * q + 1), control(0, 64, 0, 9 * q)],
        [meta("track_name", "right"), control(1, 7, 110), *played(1, right), control(1, 67, 127, q), control(1, 66, 80, 3)],
        [meta("track_name", "solo"), *played(2, tune, 73), bend(2, 300, q // 2), bend(2, 1234, 7 * q), bend(2, 0, 10 * q),
         control(2, 1, 90, 3 * q), control(2, 11, 60, 3 * q), meta("lyrics", "la", q // 11), meta("lyrics", "lo", 9 * q)],
        [meta("track_name", "kit"), *played(9, [(q * i, q // 4, 38) for i in range(12)]), control(9, 7, 77)],
        ticks=ticks,
    )  # fmt: skip


def events(data: bytes) -> dict[str, list[tuple]]:
    """Return what each named track holds, (quarters, kind, values …), as mido reads it; the first track's name is ""."""
    source = mido.MidiFile(file=io.BytesIO(data))
    found: dict[str, list[tuple]] = defaultdict(list)
    for track in source.tracks:
        now, name = 0, ""
        for message in track:
            now += message.time
            if message.type == "track_name":
                name = message.name
            fields = {k: v for k, v in message.dict().items() if k not in ("time", "channel", "type")}
            if message.type in ("note_on", "note_off"):
                is_on = message.type == "note_on" and message.velocity > 0
                fields = {"note": message.note} | ({"velocity": message.velocity} if is_on else {})
                kind = "on" if is_on else "off"
            else:
                kind = message.type
            found[name].append((Fraction(now, source.ticks_per_beat), kind, *fields.values()))
    return found


def of_kind(found: list[tuple], *kinds: str, until: float = 1e9) -> list[tuple]:
    return sorted(e for e in found if e[1] in kinds and e[0] < until)


KEPT = ("on", "control_change", "pitchwheel", "lyrics")


@pytest.mark.parametrize("ticks", [96, 100, 480, 960])
@pytest.mark.parametrize("name", ["score", "performance", "grid", "TSD", "MIDILike", "BEAT", "PerTok", "Structured"])
def test_the_prompts_part_of_an_output_is_the_prompts_file(untrained, name: str, ticks: int):
    """It was the prompt as the tokens had it: on a grid, the two pianos as one, without pedal, bends, words and names."""
    data = rich(ticks)
    composer = Composer.load(untrained(name))
    prompt = composer.prompt(midi.parse(data, "rich"), bars=2)
    (made,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)
    written = midi.to_bytes(made.score)
    source, out = events(data), events(written)
    for track in ("left", "right", "solo", "kit"):
        assert of_kind(out[track], *KEPT, until=SEAM) == of_kind(source[track], *KEPT, until=SEAM), track
        before = of_kind(source[track], "off", until=SEAM)
        ends = of_kind(out[track], "off", until=SEAM)
        assert ends == before or (name in ("grid", "BEAT") and set(ends) <= set(before))
    changes = ("marker", "set_tempo", "time_signature")
    assert {e[:3] for e in of_kind([*chain(*source.values())], *changes, until=SEAM)} <= {
        e[:3] for e in of_kind([*chain(*out.values())], *changes, until=SEAM)
    }
    if name != "PerTok":  # a model that has learnt nothing writes bars without notes with it
        assert [t for t in made.score.tracks if t.notes and t.notes[-1].time >= SEAM * made.score.ticks_per_quarter]
    assert {t.name for t in made.score.tracks if t.name in ("left", "right", "solo", "kit")} == {
        "left", "right", "solo", "kit",
    }  # fmt: skip
    opened = pretty_midi.PrettyMIDI(io.BytesIO(written))
    assert sum(len(i.notes) for i in opened.instruments) == made.score.note_num()
    assert [lyric.text for lyric in opened.lyrics] == ["la"]


@pytest.mark.parametrize("name", ["score", "performance", "grid", "TSD"])
def test_pedals_bend_and_modulation_are_reset_at_the_seam_and_nothing_else(untrained, name: str):
    composer = Composer.load(untrained(name))
    prompt = composer.prompt(midi.parse(rich(480), "rich"), bars=2)
    (made,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)
    out = events(midi.to_bytes(made.score))
    behind = {
        track: [e[1:] for e in out[track] if e[0] >= SEAM and e[1] in ("control_change", "pitchwheel")] for track in out
    }
    assert behind["left"] == [("control_change", 64, 0)]
    assert sorted(behind["right"]) == [("control_change", 66, 0), ("control_change", 67, 0)]
    assert sorted(behind["solo"]) == [("control_change", 1, 0), ("pitchwheel", 0)]
    assert not behind["kit"]
    assert all(e[0] == SEAM for t in out for e in out[t] if e[0] >= SEAM and e[1] in ("control_change", "pitchwheel"))
    assert not [
        e for t in out for e in out[t] if e[1] in ("lyrics", "marker") and e[2] in ("lo", "B")
    ]  # behind the seam


def test_new_notes_continue_the_first_track_of_their_instrument():
    """Two pianos of another volume each: the model hears one, and the first goes on."""
    score = midi.parse(rich(960), "rich")
    tokenizer = tokenizers.create("score", features=2)
    prompt = Prompt.of(tokenizer, score, bars=2)
    whole, _ = tokenizer.encode(score)
    assert (whole[: len(prompt.ids)] == prompt.ids).all()
    made = prompt.continued(whole[len(prompt.ids) : -1])
    assert made.ticks_per_quarter == 960
    named = {t.name: t for t in made.tracks}
    seam = SEAM * 960

    def new(track: str) -> list[int]:
        return sorted(n.pitch for n in named[track].notes if n.time >= seam)

    third_bar = {t.name: sorted(n.pitch for n in t.notes if n.time >= seam) for t in score.tracks}
    assert new("left") == sorted(third_bar["left"] + third_bar["right"])
    assert new("right") == []
    assert new("solo") == third_bar["solo"] and new("kit") == third_bar["kit"]
    assert len(made.tracks) == len(score.tracks)


def chorale(ticks: int = 480) -> Score:
    """Return two bars of four voices on tracks of other names and programs, of which the alto holds over the bar line."""
    score = Score(ticks)
    lines = {
        "First": [72, 74, 76, 77],
        "Second": [67, 67, 69, 69],
        "Third": [64, 62, 60, 62],
        "Fourth": [48, 50, 45, 43],
    }
    for name, pitches in lines.items():
        track = Track(name, 40 + len(score.tracks), False)
        for i, pitch in enumerate(pitches):
            if i and pitch == pitches[i - 1]:
                track.notes[-1].duration += 2 * ticks
            else:
                track.notes.append(Note(2 * ticks * i, 2 * ticks, pitch, 101))
        score.tracks.append(track)
    return score


@pytest.mark.parametrize("ticks", [100, 480])
@pytest.mark.parametrize("cut_at", [2, 4, 6])
def test_voices_of_a_grid_go_on_on_their_tracks_and_a_held_note_is_one_note(ticks: int, cut_at: int):
    """They were a choir; a note that was held over the prompt's end has to stay one."""
    score = chorale(ticks)
    grid = tokenizers.create("grid")
    prompt = Prompt.of(grid, midi.cut(score, 0, cut_at))
    whole, _ = grid.encode(score)
    made = prompt.continued(whole[len(prompt.ids) : -1])
    scale = made.ticks_per_quarter // ticks
    assert [(t.name, t.program) for t in made.tracks] == [(t.name, t.program) for t in score.tracks]
    for own, track in zip(score.tracks, made.tracks, strict=True):
        wanted = [(n.time * scale, n.duration * scale, n.pitch, 101) for n in own.notes]
        assert [(n.time, n.duration, n.pitch, n.velocity) for n in track.notes] == wanted
    only = prompt.continued(whole[len(prompt.ids) : -1], only_new=True)
    assert min(n.time for t in only.tracks for n in t.notes) >= cut_at * only.ticks_per_quarter


def test_voices_in_unison_keep_a_track_each():
    score = chorale()
    score.tracks[1].notes = type(score.tracks[1].notes)(score.tracks[0].notes)
    grid = tokenizers.create("grid")
    prompt = Prompt.of(grid, midi.cut(score, 0, 4))
    made = prompt.continued(grid.encode(score)[0][len(prompt.ids) : -1])
    assert [len(t.notes) for t in made.tracks] == [len(t.notes) for t in score.tracks]
    for track in score.tracks[1:]:  # all on one track: the voices in unison are one note
        score.tracks[0].notes.extend(track.notes)
    del score.tracks[1:]
    made = Prompt.of(grid, midi.cut(score, 0, 4)).continued(grid.encode(score)[0][len(prompt.ids) : -1])
    (track,) = made.tracks
    onsets = [(n.time, n.pitch) for n in track.notes if n.time >= 4 * 480]
    assert onsets and len(onsets) == len(set(onsets))


def test_a_tune_alone_gets_voices_of_its_own_instrument():
    score = Score(480)
    track = Track("Solo", 73, False)
    track.notes.extend([Note(480 * i, 480, 72 + i, 64) for i in range(4)])
    score.tracks.append(track)
    grid = tokenizers.create("grid")
    prompt = Prompt.of(grid, score)
    soprano, bass = 75 + 3, 48 + 3  # ids: pitches begin at 3
    made = prompt.continued(np.array([soprano, 2, 2, bass] * 4))
    assert [(t.name, t.program, len(t.notes)) for t in made.tracks] == [("Solo", 73, 4), ("Bass", 73, 1)]
    assert made.tracks[0].notes[-1].duration == 960  # held
    assert made.tracks[1].notes[0].velocity == 64  # the grid has no velocities: those of the prompt


def test_a_piano_goes_on_behind_other_instruments_on_a_track_of_its_own():
    performance = tokenizers.create("performance")
    for program, tracks in ((40, [("x", 40, 2), ("Piano", 0, 1)]), (2, [("x", 2, 3)])):
        score = Score(960)
        track = Track("x", program, False)
        track.notes.extend([Note(1001, 500, 60, 64), Note(1507, 453, 62, 70)])
        score.tracks.append(track)
        prompt = Prompt.of(performance, score)
        (new,) = [performance.encode(one)[0][1:-1] for one in [midi.cut(chorale(), 0, 2)]]
        keys = [i for i in new if i < 300]
        made = prompt.continued(np.array(keys)[:3])  # the first key, its velocity, and a key without one
        assert [(t.name, t.program, len(t.notes)) for t in made.tracks] == tracks
        assert [(n.time, n.end, n.velocity) for n in made.tracks[0].notes[:2]] == [(1001, 1501, 64), (1507, 1960, 70)]


def test_a_note_that_rounding_moves_behind_the_seam_is_the_prompts():
    """The last note begins a 1/40 quarter before the bar line, and its token on it: it was new music."""
    data = file(1, played(0, [(0, 480, 60), (4 * 480 - 12, 300, 64)]))
    score = midi.parse(data, "late")
    tokenizer = tokenizers.create("score")
    prompt = Prompt.of(tokenizer, score, bars=1)
    made = prompt.continued(np.zeros(0, np.int64))
    assert [(n.time, n.end) for t in made.tracks for n in t.notes] == [(0, 480), (1908, 1920)]
    assert not prompt.continued(np.zeros(0, np.int64), only_new=True).tracks


@given(st.integers(1, 32767))
def test_a_common_resolution_moves_no_note_of_the_prompt(ticks: int):
    common = common_ticks(ticks)
    assert common % ticks == 0 and common <= 32767
    assert common % 480 == 0 or common > 16000


def test_only_new_begins_with_the_controllers_in_force(run, untrained):
    Path("rich.mid").write_bytes(rich(960))
    code, _, err = run(
        "generate", "--model", untrained("score"), "--prompt", "rich.mid", "--prompt-bars", 2, "--bars", 2,
        "--only-new", "--seed", 3, "-o", "out.mid",
    )  # fmt: skip
    assert code == 0, err
    out = events(Path("out.mid").read_bytes())
    assert not [e for t in out for e in out[t] if e[1] == "lyrics" or (e[1] == "marker" and not e[2].startswith("{"))]
    wanted = {"left": {(7, 50), (10, 20)}, "solo": {(11, 60)}, "kit": {(7, 77)}}
    assert set(out) - {""} <= set(wanted)
    for track in set(out) - {""}:
        assert {e[2:] for e in out[track] if e[1] == "control_change" and e[0] == 0} == wanted[track]
        assert not of_kind(out[track], "pitchwheel")
        assert of_kind(out[track], "on")


@pytest.mark.parametrize("name", ["score", "performance", "grid", "MIDILike"])
@pytest.mark.parametrize("only_new", [False, True])
def test_a_stream_plays_the_prompt_as_it_is_in_its_file(untrained, name: str, only_new: bool):
    composer = Composer.load(untrained(name))
    prompt = composer.prompt(midi.parse(rich(100), "rich"), bars=2)
    config = GenerationConfig(length=Length(bars=1), loop_guard=False, only_new=only_new, live=True)
    stream = composer.stream(prompt, config, seed=5)
    heard = [(n.start, n.pitch, n.velocity, n.program, n.end) for n in stream]
    made = composer.streamed(stream).score
    assert [n[0] for n in heard] == sorted(n[0] for n in heard)
    tpq = made.ticks_per_quarter

    def sounds_until(track, note) -> float:
        pedal = sorted((c.time, c.value) for c in track.controls if c.number == 64)
        again = min((n.time for n in track.notes if n.pitch == note.pitch and n.time > note.time), default=1e9)
        if [value >= 64 for time, value in pedal if time <= note.end][-1:] == [True]:
            return max(note.end, min(again, *(time for time, value in pedal if time > note.end and value < 64)))
        return note.end

    written = [
        (
            midi.seconds_at(made, n.time / tpq),
            n.pitch,
            n.velocity,
            t.program,
            midi.seconds_at(made, sounds_until(t, n) / tpq),
        )
        for t in made.tracks
        for n in t.notes
    ]
    assert sorted(heard) == [pytest.approx(each, abs=1e-5) for each in sorted(written)]
    pedalled = [n for t in made.tracks if t.name == "left" for n in t.notes if sounds_until(t, n) > n.end]
    assert only_new or len(pedalled) == 4  # the third, fourth, seventh and eighth bass note ring on in the pedal


def unison(*, low: bool) -> bytes:
    notes = [(480 * i, 400, 60 + i) for i in range(6)]
    off = [(480 * i, 400, 5) for i in range(2)] if low else []
    return file(1, played(0, notes), played(1, notes + off))


@pytest.mark.parametrize(
    ("name", "data", "sentences"),
    [
        ("score", unison(low=False), ["6 doubled notes became one each for the model"]),
        ("performance", unison(low=True), [
            "6 doubled notes became one each for the model",
            "2 notes stay in the prompt's part of the output, but the model does not see them: "
            "'performance' cannot express them",
        ]),
        ("performance", file(1, played(0, [(0, 400, 60), (500, 400, 110)])), [
            "1 note stays in the prompt's part of the output, but the model does not see it: "
            "'performance' cannot express it",
        ]),
        ("score", file(1, played(0, [(0, 400, 60), (480, 400, 60)]), played(1, [(3, 400, 60)])), [
            "1 doubled note became one for the model",
        ]),
        ("score", file(1, played(0, [(0, 400, 60)]), played(1, [(0, 400, 60)], 40)), []),
    ],
    ids=["unison", "both", "out of range", "nearly in unison", "two instruments"],
)  # fmt: skip
def test_what_the_model_does_not_see_is_counted(run, untrained, tmp_path, name: str, data: bytes, sentences: list[str]):
    """Two tracks in unison were said to be notes that the tokenizer cannot express."""
    (tmp_path / "p.mid").write_bytes(data)
    code, _, err = run(
        "generate", "--model", untrained(name), "--prompt", tmp_path / "p.mid", "--bars", 1, "-o", "out.mid"
    )
    assert code == 0, err
    said = " ".join(err.split())
    for sentence in sentences:
        assert sentence in said
    assert ("doubled" in said) == any("doubled" in s for s in sentences)
    assert ("does not see" in said) == any("does not see" in s for s in sentences)
    before = sorted((n.time, n.pitch) for t in midi.parse(data, "p").tracks for n in t.notes)
    after = sorted((n.time, n.pitch) for t in midi.read("out.mid").tracks for n in t.notes)
    assert [n for n in after if n in before] == before  # two tracks in unison stay two


@pytest.mark.parametrize("example", ["hymn", "lied", "orchestra"])
def test_music_itself_behind_a_prompt_gives_the_piece_again(example: str):
    """The prompt's ids, and behind them those of the rest of the same piece: its notes are there, each once."""
    score = midi.read(EXAMPLES / f"{example}.mid")
    tokenizer = tokenizers.create("score", features=2)
    prompt = Prompt.of(tokenizer, score, bars=4)
    whole, _ = tokenizer.encode(score)
    assert (whole[: len(prompt.ids)] == prompt.ids).all()
    made = prompt.continued(whole[len(prompt.ids) : -1])
    ticks, seam = made.ticks_per_quarter, prompt.quarters

    def notes(of: Score, first: float, stop: float) -> list[tuple]:
        return sorted(
            (n.time / of.ticks_per_quarter, t.program, t.is_drum, n.pitch)
            for t in of.tracks
            for n in t.notes
            if first <= n.time / of.ticks_per_quarter < stop
        )

    assert notes(made, 0, seam) == notes(score, 0, seam)
    assert ticks % score.ticks_per_quarter == 0
    heard = tokenizer.decode(whole)
    assert notes(made, seam, 1e9) == notes(heard, seam, 1e9)
    source = midi.cut(score, 0, midi.end(score))  # of two tempi at the beginning the last
    for quarters in (0.5, seam - 0.5, seam + 4):
        assert midi.seconds_at(made, quarters) == pytest.approx(midi.seconds_at(source, quarters), abs=1e-6)
    assert [b.start for b, _ in zip(midi.bars(made), range(8), strict=False)] == [
        b.start for b, _ in zip(midi.bars(score), range(8), strict=False)
    ]


def test_a_time_signature_that_the_model_cannot_read_stays_and_its_own_bars_follow():
    score = midi.parse(
        file(1, [metre(17, 16), tempo(500000)], played(0, [(480 * i, 400, 60) for i in range(9)])), "odd"
    )
    tokenizer = tokenizers.create("score")
    prompt = Prompt.of(tokenizer, score, bars=2)
    assert prompt.quarters == 8.5
    made = prompt.continued(np.zeros(0, np.int64))
    signs = [(t.time / made.ticks_per_quarter, t.numerator, t.denominator) for t in made.time_signatures]
    assert signs[0] == (0, 17, 16)
    (line, numerator, denominator) = signs[1]
    heard = prompt.decoded(np.zeros(0, np.int64))
    assert line == midi.bar_line(heard, 8.5) and (numerator, denominator) == (4, 4)


def test_the_record_of_a_prompt_that_was_generated_is_not_taken_for_the_outputs(run, untrained):
    code, _, err = run("generate", "--model", untrained("grid"), "--bars", 2, "--seed", 1, "-o", "one.mid")
    assert code == 0, err
    code, _, err = run(
        "generate", "--model", untrained("score"), "--prompt", "one.mid", "--bars", 1, "--seed", 2, "-o", "two.mid"
    )
    assert code == 0, err
    score = midi.read("two.mid")
    assert len([m for m in score.markers if m.text.startswith("{")]) == 1
    assert provenance.read(score, "two.mid").seed == 2
    code, out, err = run(
        "repro", "two.mid", "--model", untrained("score"), "--prompt", "one.mid", "--json", "-o", "again.mid"
    )
    assert code == 0 and json.loads(out)["same"], err
