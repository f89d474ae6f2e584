"""Whatever is drawn is music that can be played, written and read again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musiclm import midi, tokenizers
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length, SamplerConfig

SCORE = tokenizers.create("score")
OURS = ("score", "grid")  # the others have tests of their own


def random_walk(rules: constraints.ScoreGrammar, length: int, seed: int) -> list[int]:
    """Return ids drawn evenly over the kinds that are allowed, then over the ids of that kind."""
    draw = np.random.default_rng(seed)
    state, ids = rules.start(1), [SCORE.bos]
    state = rules.step(state, torch.tensor(ids))
    while len(ids) < length or SCORE.kinds[ids[-1]] != "Duration":
        allowed = np.flatnonzero(rules.allow(state)[0].numpy() == 0)
        kinds = sorted({SCORE.kinds[i] for i in allowed})
        kind = kinds[draw.integers(len(kinds))]
        ids.append(int(draw.choice([i for i in allowed if SCORE.kinds[i] == kind])))
        state = rules.step(state, torch.tensor(ids[-1:]))
    return ids


@pytest.mark.parametrize("seed", range(40))
def test_any_walk_through_the_grammar_decodes_whole_and_comes_back(seed: int):
    ids = random_walk(constraints.ScoreGrammar(SCORE), 200, seed)
    score = SCORE.decode(ids)
    assert score.note_num() == sum(SCORE.kinds[i] in ("Pitch", "PitchDrum") for i in ids)
    assert all(n.duration > 0 for t in score.tracks for n in t.notes)
    assert SCORE.encode(score)[0][:-1].tolist() == ids


@pytest.mark.parametrize("name", ["free-game-midi", "pop909", "openscore-lieder-midi", "groove-v1.0.0-midi"])
def test_the_grammar_allows_all_real_music(real_midi, name: str):
    rules = constraints.ScoreGrammar(SCORE)
    for file, data in real_midi(name, 3):
        ids, _ = SCORE.encode(midi.parse(data, file))
        (place,) = rules.step(rules.start(1), torch.tensor([SCORE.bos]))
        for i in ids[1:-1]:
            assert rules.allowed(place)[i], (file, place, SCORE.miditok_vocabulary[i])
            (place,) = rules.step([place], torch.tensor([i]))


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_random_weights_writes_whole_bars_of_playable_music(untrained, name: str, seed: int):
    composer = Composer.load(untrained(name))
    for composition in composer.generate(
        None, GenerationConfig(length=Length(bars=3), n=3, sampler=SamplerConfig(temperature=2.0)), seed=seed
    ):
        score = midi.parse(midi.to_bytes(composition.score), "composed")
        assert 0 < midi.end(score) <= midi.bar_line(score, 0.0, 3) + 1e-6
        assert all(n.duration > 0 for t in score.tracks for n in t.notes)


@pytest.mark.parametrize("name", OURS)
def test_new_notes_begin_where_the_prompt_ends(untrained, name: str, song):
    composer = Composer.load(untrained(name))
    prompt = composer.prompt(song, bars=2)
    assert prompt.quarters == 6.0
    (composition,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)
    old = sorted((n.time, n.pitch) for t in composition.score.tracks for n in t.notes if n.time < 6 * 480)
    assert old == sorted((n.time, n.pitch) for t in song.tracks for n in t.notes if n.time < 6 * 480)
    assert midi.end(composition.score) <= midi.bar_line(composition.score, 6.0, 2) + 1e-6
    (alone,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2), only_new=True), seed=1)
    new = sorted((n.time, n.pitch) for t in alone.score.tracks for n in t.notes)
    assert new == sorted((n.time - 2880, n.pitch) for t in composition.score.tracks for n in t.notes if n.time >= 2880)


def test_the_tempo_and_metre_of_the_prompt_are_in_the_file_as_they_were(untrained, song):
    for name in OURS:
        (composition,) = Composer.load(untrained(name)).generate(
            song, GenerationConfig(length=Length(tokens=40)), seed=1
        )
        assert composition.score.tempos[0].qpm == pytest.approx(90, abs=0.001)
        first = composition.score.time_signatures[0]
        assert (first.numerator, first.denominator) == (3, 4)


def test_seconds_and_tokens_mean_what_they_say(untrained, song):
    composer = Composer.load(untrained("grid"))
    (composition,) = composer.generate(song, GenerationConfig(length=Length(seconds=8)), seed=1)
    assert composition.seconds == pytest.approx(midi.seconds(song) + 8, abs=0.2)
    (composition,) = composer.generate(None, GenerationConfig(length=Length(tokens=40)), seed=1)
    assert composition.num_new_tokens == 40
    assert midi.end(composition.score) <= 2.5


def test_the_music_goes_on_in_the_instruments_metre_and_tempi_of_the_prompt(untrained, song):
    composer = Composer.load(untrained("score"))
    for composition in composer.generate(
        song,
        GenerationConfig(length=Length(bars=4), only_new=True, n=3, sampler=SamplerConfig(temperature=2.0)),
        seed=2,
    ):
        score = composition.score
        assert {(t.program, t.is_drum) for t in score.tracks if len(t.notes)} <= {(73, False), (0, False), (0, True)}
        assert {(t.numerator, t.denominator) for t in score.time_signatures} == {(3, 4)}
        assert {round(t.qpm) for t in score.tempos} == {90}


def test_merges_that_bring_another_instrument_are_strange_too(song):
    base = SCORE
    merged = base.trained_bpe([base.encode(song)[0]] * 2, 40)
    ids, _ = merged.encode(song)
    strange = merged.new_to_prompt(ids[:-1])
    programs = {base.miditok_vocabulary[i] for i in base.base_ids(range(base.vocab_size)) if base.kinds[i] == "Program"}
    heard = {base.miditok_vocabulary[i] for i in merged.base_ids(ids) if base.kinds[i] == "Program"}
    assert {
        base.miditok_vocabulary[i] for i in strange if i < base.vocab_size and base.kinds[i] == "Program"
    } == programs - heard
    assert not set(strange.tolist()) & set(ids.tolist())
