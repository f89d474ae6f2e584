"""Files that failed through the command line: each is used, or refused in one line with the true reason."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mido
import pretty_midi
import pytest

from musiclm.generation.provenance import read as read_record
from musiclm.midi import parse
from tests.midi_player import play
from tests.test_midi_faults import (
    QUARTER,
    SCALE,
    TEMPO_100,
    TUNE,
    chunk,
    control,
    key,
    number,
    off,
    on,
    program,
    quarters,
    smf,
    tempo,
    time_signature,
)

LINE = chunk((0, program(24)), *quarters(*SCALE))


def head(*events: tuple[int, bytes]) -> bytes:
    return chunk((0, TEMPO_100), *events)


def made(run, data: bytes, *options: object) -> tuple[bytes, str]:
    """Generate a bar behind a prompt with an untrained model, and return the file and what was said."""
    Path("prompt.mid").write_bytes(data)
    code, _, err = run("generate", "--prompt", "prompt.mid", "--seed", 1, "-o", "out.mid", "--force", *options)
    assert code == 0, err
    whole = Path("out.mid").read_bytes()
    mido.MidiFile(file=io.BytesIO(whole))
    pretty_midi.PrettyMIDI(io.BytesIO(whole))
    return whole, err


def prompt_quarters(data: bytes) -> float:
    return read_record(parse(data, "out.mid"), "out.mid").prompt_quarters


@pytest.mark.parametrize("sign", [time_signature(0, 2), time_signature(4, 30)])
def test_time_signatures_without_meaning_cost_nothing(run, untrained, sign: bytes):
    data = smf(head((0, sign)), LINE)
    whole, _ = made(run, data, "--model", untrained("score"), "--prompt-bars", 2, "--bars", 1)
    assert prompt_quarters(whole) == 8.0
    made(run, data, "--model", untrained("grid"), "--bars", 1)
    made(run, data, "--model", untrained("performance"), "--seconds", 1)
    code, out, _ = run("show", "prompt.mid")
    assert code == 0 and "4/4" in out


def test_the_last_of_several_time_signatures_and_tempi_counts_bars_and_seconds(run, untrained):
    model = ("--model", untrained("score"), "--bars", 1)
    for late in (0, 20):
        data = smf(head((0, time_signature(4, 2)), (late, time_signature(3, 2))), LINE)
        assert prompt_quarters(made(run, data, *model, "--prompt-bars", 2)[0]) == 6.0
    data = smf(chunk((0, tempo(500_000)), (20, tempo(750_000))), LINE)
    assert prompt_quarters(made(run, data, *model, "--prompt-seconds", 6)[0]) == 8.0


def test_a_tempo_of_0_is_dropped_and_rendered_at_120(run, untrained):
    data = smf(chunk((0, tempo(0))), LINE)
    made(run, data, "--model", untrained("score"), "--bars", 1)
    code, out, _ = run("render", "prompt.mid", "-o", "a.wav", "--json")
    assert code == 0 and 8.0 < json.loads(out)["seconds"] < 12.0


def test_a_prompts_programs_are_heard_whoever_gives_them(run, untrained):
    data = smf(
        head(), chunk(*quarters(*SCALE)), chunk((0, program(73)), (0, program(33, 1))), chunk(*quarters(36, channel=1))
    )
    whole, _ = made(run, data, "--model", untrained("score"), "--bars", 1)
    assert {(n.pitch, n.program) for n in play(whole) if n.start < 8 * QUARTER} >= {(60, 73), (36, 33)}


def test_each_of_seventeen_programs_of_a_prompt_is_heard_as_it_was(run, untrained):
    events = [e for i in range(17) for e in ((0, program(7 * i)), (0, on(60)), (QUARTER, off(60)))]
    data = smf(chunk(*events), form=0)
    whole, _ = made(run, data, "--model", untrained("score"), "--bars", 1)
    before = [(n.start, n.program) for n in play(data)]
    assert [(n.start, n.program) for n in play(whole) if n.start < 17 * QUARTER][:17] == before


@pytest.mark.parametrize("event", [key(8, 0), key(0, 2)])
def test_a_key_without_meaning_is_not_passed_on(run, untrained, event: bytes):
    whole, err = made(run, smf(head((0, event)), LINE), "--model", untrained("score"), "--bars", 1, "-v")
    assert b"\xff\x59" not in whole
    assert "'prompt.mid': 1 × key signatures without meaning dropped" in err


def test_notes_without_an_end_and_hits_without_a_length_are_in_the_output(run, untrained):
    chord = [(0, on(48)), (0, on(52)), (0, on(55))]
    hits = [each for _ in range(16) for each in ((0, on(36, 9)), (0, off(36, 9)), (240, control(7, 100, 9)))]
    data = smf(chunk(*quarters(*SCALE[:5]), *chord, end=3 * QUARTER), chunk(*hits[:-1]))
    whole, _ = made(run, data, "--model", untrained("score"), "--bars", 1)
    notes = [n for n in play(whole) if n.start < 8 * QUARTER]
    assert sum(n.is_drum for n in notes) >= 16
    assert {(n.start, n.end, n.pitch) for n in notes} >= {(2400, 3840, pitch) for pitch in (48, 52, 55)}


def test_what_has_no_bound_is_refused_at_once_by_every_command(run):
    Path("a.mid").write_bytes(smf(chunk(*quarters(60), ((1 << 28) - 1, on(60)), (QUARTER, off(60)))))
    for command in (("generate", "--bars", 2, "--prompt", "a.mid"), ("render", "a.mid"), ("show", "a.mid")):
        code, _, err = run(*command)
        assert (code, err) == (1, "Error: 'a.mid' is longer than 65,536 quarters\n")


def test_what_is_damaged_is_refused_by_every_command_in_the_same_words(run):
    Path("a.mid").write_bytes(smf(chunk(*quarters(60)))[:-9])
    for command in (("generate", "--prompt", "a.mid"), ("render", "a.mid"), ("show", "a.mid"), ("surprise", "a.mid")):
        code, _, err = run(*command)
        assert (code, err) == (1, "Error: 'a.mid' is damaged MIDI: it ends within a track\n")
    code, _, err = run("statistics", "a.mid")
    assert code == 1 and "is damaged MIDI: it ends within a track" in err


def test_abc_is_a_prompt_is_shown_and_is_rendered(run, untrained):
    Path("tune.abc").write_text(TUNE, "utf-8")
    code, _, err = run("show", "tune.abc")
    assert code == 0 and "2 bars, 10 notes" in err
    code, _, _ = run("generate", "--prompt", "tune.abc", "--model", untrained("score"), "--bars", 1, "-o", "out.mid")
    assert code == 0
    notes = play(Path("out.mid").read_bytes())
    assert [n.pitch for n in notes][:3] == [62, 64, 66]


def test_the_corpus_report_counts_what_was_mended(run):
    Path("music").mkdir()
    for i in range(3):
        steps = [60 + (7 * i * k) % 12 for k in range(16)]
        Path("music", f"{i}.mid").write_bytes(smf(head((0, key(9, 0))), chunk(*quarters(*steps), (0, on(40)), end=480)))
    assert number(480) == b"\x83\x60"
    code, _, err = run("corpus", "build", "music", "-o", "corpus")
    assert code == 0, err
    code, out, _ = run("corpus", "inspect", "corpus", "--json")
    cleaned = json.loads(out)["doctor"]["cleaned"]
    assert cleaned["key signatures without meaning dropped"] == 3
    assert cleaned["notes that never end given the end of their track"] == 3
