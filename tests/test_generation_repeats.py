"""Bars that repeat others: what is preferred, how strongly, and where it is off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from musiclm import tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.constraints.repeats import Repeats
from musiclm.generation.controls import Controls
from musiclm.generation.controls.repeat_strength import DEFAULT_STRENGTH

SCORE = tokenizers.create("score")
PLAIN = SCORE.midi_tokenizer.vocab
NAMES = [*PLAIN, *SCORE.own_special_tokens]
WORDS = PLAIN | {word: len(PLAIN) + i for i, word in enumerate(SCORE.own_special_tokens)}
FIRST = (
    "Bar_None TimeSig_4/4 Section_A Repeat_0 Chord_0:maj Chord_0:maj Position_0 Tempo Program_0 Pitch_60 Velocity_63 "
    "Duration_1.0.12 Program_40 Pitch_64 Velocity_63 Duration_2.0.12 Pitch_67 Velocity_63 Duration_2.0.12 "
    "Position_12 Program_0 Pitch_48 Velocity_63 Duration_0.6.12 Program_-1 PitchDrum_36 Velocity_63 Duration_0.3.12"
)
AGAIN = "Bar_None TimeSig_4/4 Section_A Repeat_1"


def ids_of(words: str) -> list[int]:
    tempo = next(word for word in WORDS if word.startswith("Tempo_"))
    return [WORDS[word] for word in words.replace("Tempo", tempo).split()]


def preferred(made: Repeats, words: str) -> list[str]:
    """Return what is preferred behind the first bar and these words of a second one that repeats it."""
    state = made.start(1)
    for i in ids_of(f"{FIRST} {words}"):
        state = made.step(state, torch.tensor([i]))
    bias = made.allow(state)
    if bias is None:
        return []
    found = torch.nonzero(bias[0])[:, 0].tolist()
    assert torch.all(bias[0, found] == bias[0, found[0]])
    return [NAMES[i] for i in found]


CHORDS = "Chord_0:maj Chord_0:maj"
BAR = f"{AGAIN} {CHORDS}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (AGAIN.rsplit(" ", 1)[0], []),  # not said yet
        (AGAIN, ["Chord_0:maj"]),
        (BAR, ["Position_0"]),
        (f"{BAR} Position_0", ["Program_0"]),  # drums played last
        (f"{BAR} Position_0 Program_0", ["Pitch_60"]),
        (f"{BAR} Position_0 Program_0 Pitch_60", []),  # loudness is free
        (f"{BAR} Position_0 Program_0 Pitch_60 Velocity_103", ["Duration_1.0.12"]),
        (f"{BAR} Position_0 Program_0 Pitch_59 Velocity_103", []),  # another note
        (f"{BAR} Position_0 Program_0 Pitch_59 Velocity_103 Duration_1.0.12", ["Pitch_60"]),  # one that was added
        (f"{BAR} Position_0 Program_0 Pitch_62 Velocity_103 Duration_1.0.12", ["Program_40"]),  # instead of 60
        (f"{BAR} Position_0 Program_40", ["Pitch_64"]),  # one that was left out
        (f"{BAR} Position_0 Program_40 Pitch_64 Velocity_103 Duration_1.0.12", ["Pitch_67"]),
        (f"{BAR} Position_0 Program_40 Pitch_67 Velocity_103 Duration_1.0.12", ["Position_12"]),
        (f"{BAR} Position_6", ["Position_12"]),  # a position of its own: what comes later is banned there
        (f"{BAR} Position_12 Program_0 Pitch_48 Velocity_63 Duration_0.6.12", ["Program_-1"]),
        (f"{BAR} Position_12 Program_-1 PitchDrum_36 Velocity_63 Duration_0.3.12", ["EOS_None", "Bar_None"]),
        (BAR.replace("Repeat_1", "Repeat_0"), []), (BAR.replace("Repeat_1", "Repeat_2"), []),
        (BAR.replace("Repeat_1", "Repeat_unknown"), []),
    ],
)  # fmt: skip
def test_what_the_repeated_bar_has_here_is_preferred(words: str, expected: list[str]):
    assert preferred(Repeats(SCORE, 0.75), words) == expected


def test_of_chords_that_were_asked_for_only_the_rhythm_comes_again():
    other = BAR.replace("Chord_0:maj", "Chord_5:maj")
    made = Repeats(SCORE, 0.75, has_chords=True)
    assert preferred(made, f"{BAR} Position_0 Program_0") == ["Pitch_60"] and preferred(made, other) == ["Position_0"]
    assert preferred(made, f"{other} Position_0 Program_0") == []
    assert preferred(made, f"{other} Position_12 Program_-1") == ["PitchDrum_36"]
    assert preferred(Repeats(SCORE, 0.75), f"{other} Position_0 Program_0") == ["Pitch_60"]


def test_other_tokens_are_less_likely_by_the_strength():
    made = Repeats(SCORE, 0.75)
    state = made.start(2)
    for i in ids_of(f"{FIRST} {BAR}"):
        state = made.step(state, torch.tensor([i, SCORE.bos]))
    bias = made.allow(state)
    position = WORDS["Position_0"]
    assert bias.shape == (2, SCORE.vocab_size) and not bias[1].any()
    assert bias[0].nonzero()[:, 0].tolist() == [position]
    assert float(bias[0, position]) == pytest.approx(-math.log(0.25))


def bars_of(ids: np.ndarray) -> list[set[tuple[int, int, int, int]]]:
    """Return the notes of each bar but for their loudness."""
    notes = SCORE.plan.notes(SCORE.plan.without(ids))
    rows = list(zip(notes.start, notes.program, notes.pitch, notes.duration, strict=True))
    return [{row for row, bar in zip(rows, notes.bar, strict=True) if bar == i} for i in range(len(notes.bar_lengths))]


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_at_full_strength_a_form_brings_back_the_same_notes(untrained, strength: float):
    composer = Composer.load(untrained("score"))
    config = GenerationConfig.from_options(
        form="AA",
        bars=6,
        repeat_strength=strength,
        ensemble="none",
        instruments="piano,drums",
        loop_guard=False,
        time_signature="4/4",
    )
    for piece in composer.generate(None, composer.completed(config), seed=2):
        bars = bars_of(np.concatenate([[SCORE.bos], piece.ids]))
        assert len(bars) == 6 and any(bars[:3])
        assert [bars[i] == bars[i + 3] for i in range(2)] == [strength == 1] * 2


def test_it_is_on_where_tokens_have_a_plan_and_off_in_old_records(untrained):
    planned, plain = Composer.load(untrained("score")), Composer.load(untrained("score 2"))
    asked = GenerationConfig.from_options(bars=4)
    assert planned.completed(asked).to_record()["repeat_strength"] == DEFAULT_STRENGTH
    assert "repeat_strength" not in plain.completed(asked).to_record()
    old = GenerationConfig.from_record({"bars": 4})
    assert planned.completed(old).controls.repeat_strength == 0
    made = constraints.planned(SCORE, planned.completed(old).controls, first=0, num_bars=4)
    assert not any(isinstance(each, Repeats) for each in made)


def test_what_cannot_be_is_refused(untrained):
    with pytest.raises(ValueError, match="must be 0 to 1"):
        Controls(repeat_strength=1.5)
    with pytest.raises(ValueError, match="not with"):
        GenerationConfig.from_options(accompany=True, repeat_strength=0.5)
    with pytest.raises(TokenizerError, match="do not say which bars repeat others"):
        config = GenerationConfig.from_options(bars=2, repeat_strength=0.5)
        Composer.load(untrained("score 2")).generate(None, config, seed=1)
    Composer.load(untrained("score 2")).generate(None, GenerationConfig.from_options(bars=2, repeat_strength=0.0), 1)


def test_a_header_is_no_bar():
    made, state = Repeats(SCORE, 0.75), Repeats(SCORE, 0.75).start(1)
    for i in (SCORE.bos, WORDS["Style_piano"], WORDS["Length_8"], WORDS["Program_40"]):
        state = made.step(state, torch.tensor([i]))
    assert state == made.start(1)
