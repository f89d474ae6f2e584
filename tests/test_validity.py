"""Whatever model, temperature and seed: what is drawn is valid music. A part of benchmarks/validity.py, and even walks."""

from __future__ import annotations

import numpy as np
import pytest

from musiclm import midi, tokenizers
from musiclm.generation import constraints
from musiclm.generation.controls import Controls
from tests.data_files import benchmark

validity = benchmark("validity")
TOKENIZERS = validity.TOKENIZERS
OPTIONS = (
    'REMI:{"program_changes": false}',
    'REMI:{"use_time_signatures": false, "use_tempos": false}',
    'TSD:{"program_changes": false, "use_tempos": false}',
)


@pytest.fixture(scope="module")
def tokenizer(request):
    name = request.param
    return validity.tokenizer_called(name) if name in TOKENIZERS else tokenizers.parse(name)


def walked(tokenizer, rule: constraints.Grammar, length: int, seed: int) -> np.ndarray:
    """Return ids drawn evenly over the kinds that are allowed, then over the ids of that kind."""
    draw, kinds = np.random.default_rng(seed), np.array(tokenizer.kinds)
    place, ids = rule.after(rule.beginning(), tokenizer.bos), []
    while len(ids) < length:
        allowed = np.flatnonzero(rule.allowed(place))
        found = sorted(set(kinds[allowed].tolist()))
        ids.append(int(draw.choice(allowed[kinds[allowed] == found[draw.integers(len(found))]])))
        place = rule.after(place, ids[-1])
    return np.array(ids)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", TOKENIZERS, indirect=True)
def test_what_models_of_random_weights_draw_is_valid(tokenizer):
    for seed in range(2):
        for ids in validity.drawn(tokenizer, 6, 120, seed):
            assert validity.faults(tokenizer, ids) == []


@pytest.mark.parametrize("tokenizer", ["score", "TSD", "MIDILike", "Structured", *OPTIONS], indirect=True)
def test_any_walk_is_what_the_tokenizer_would_write(tokenizer):
    rule = constraints.grammar(tokenizer)
    assert not isinstance(rule, constraints.TypeGraph)
    for seed in range(8):
        assert validity.faults(tokenizer, walked(tokenizer, rule, 120, seed)) == []


def test_faults_are_found_where_there_are_some():
    """The measure itself: each of these decodes, and MidiTok counts no error in the first four."""
    score = tokenizers.create("score")
    beginning = [
        "Bar_None",
        "TimeSig_3/4",
        "Position_0",
        next(t for t in score.miditok_vocabulary if t.startswith("Tempo")),
    ]

    def found(*rest: str) -> list[str]:
        return validity.faults(score, np.array([score.midi_tokenizer[name] for name in (*beginning, *rest)]))

    note = ["Velocity_63", "Duration_1.0.12"]
    assert found("Program_0", "Pitch_60", *note) == []
    assert "position past its bar" in found("Position_40", "Program_0", "Pitch_60", *note)
    assert "drum pitch off the drums" in found("Program_0", "PitchDrum_40", *note)
    assert "note twice at a time" in found("Program_0", "Pitch_60", *note, "Pitch_60", *note)
    assert "other ids when encoded again" in found("Program_0", "Pitch_62", *note, "Pitch_60", *note)
    assert "mark in mid-stream" in found("PAD_None", "Program_0", "Pitch_60", *note)


@pytest.mark.parametrize("name", ["TSD", "MIDILike", "Structured"])
@pytest.mark.parametrize("archive", ["free-game-midi", "openscore-lieder-midi", "groove-v1.0.0-midi"])
def test_shifts_and_programs_of_real_music_are_allowed(real_midi, name: str, archive: str):
    """MIDILike's grammar strikes no note that still sounds, which some real files do."""
    tokenizer = tokenizers.create(name)
    rule = constraints.grammar(tokenizer)
    for file, data in real_midi(archive, 1):
        ids, _ = tokenizer.encode(midi.parse(data, file))
        place = rule.after(rule.beginning(), tokenizer.bos)
        for i in ids[1:1500].tolist():
            if i == tokenizer.eos:
                break
            sounds = name == "MIDILike" and i in rule.banned(place)
            assert rule.allowed(place)[i] or sounds, (file, place, tokenizer.miditok_vocabulary[i])
            place = rule.after(place, i)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["score", "performance", "grid", "score+bpe", "TSD", "MIDILike"], indirect=True)
@pytest.mark.parametrize("with_prompt", [False, True])
def test_controls_are_kept_to_the_note(tokenizer, with_prompt):
    """At temperature 2, every combination that the tokenizer can express."""
    asked = 0
    for i, said in enumerate(validity.CONTROLS):
        try:
            counted = validity.held(tokenizer, Controls(**said), 2, i, validity.song(i) if with_prompt else None)
        except validity.TokenizerError:
            continue
        asked += 1
        assert counted.keys() <= {"notes"}, (said, counted)
    assert asked >= 1


def test_violations_are_found_where_there_are_some():
    song = validity.song(0)
    broken = {
        "instrument": {"instruments": "piano,drums"},
        "pitch": {"key": "C major"},
        "polyphony": {"max_polyphony": 1},
        "tempo": {"tempo": 91},
        "metre": {"time_signature": "4/4"},
    }
    for word, said in broken.items():
        assert set(validity.violations(song, Controls(**said))) == {word}
    assert validity.violations(song, Controls(tempo=90, time_signature="3/4", pitch_range="48-79")) == []
