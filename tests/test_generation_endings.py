"""An ending within --bars: a tonic triad that is held, chosen by the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import midi, tokenizers
from musiclm.evaluation import cadences, chorale
from musiclm.evaluation.music_metrics import notes_of
from musiclm.generation import endings, provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.tokenizers.grid import BOS, FIRST_PITCH, SILENCE

GRID = tokenizers.create("grid")
MINOR = 12 + 9  # A minor


def config(**options) -> GenerationConfig:
    return GenerationConfig.from_options(**{"precision": "fp32"} | options)


def notes(composition) -> list[tuple[int, int, int]]:
    return [(n.time, n.duration, n.pitch) for t in composition.score.tracks for n in t.notes]


@pytest.mark.parametrize("bars", [1, 2, 3, 5])
def test_music_of_so_many_bars_ends_with_a_chord_that_is_held(untrained, bars: int):
    composer = Composer.load(untrained("grid"))
    made = composer.generate(None, config(bars=bars, n=3), seed=1)
    for composition in made:
        assert midi.end(composition.score) == 4 * bars and composition.num_bars == bars
        assert composition.num_new_tokens == 64 * bars and composition.ended == "length"
        voices = chorale.voices_of(notes_of(composition.score))
        assert voices is None or cadences.ends_held(voices) == 1
    assert len({str(notes(composition)) for composition in made}) == 3


def test_the_last_chord_is_the_tonic_triad_more_often_than_without(untrained):
    composer = Composer.load(untrained("grid"))
    shares = []
    for finish in (None, False):
        made = composer.generate(None, config(bars=3, n=6, finish=finish, strict=True), seed=2)
        found = [cadences.ends_on_tonic(chorale.voices_of(notes_of(each.score))) for each in made]
        shares.append(np.mean(found))
    assert shares[0] >= 0.5 and shares[1] == 0  # random pitches have no key that two bars could not change


def test_what_comes_before_the_ending_is_what_it_was_without(untrained):
    composer = Composer.load(untrained("grid"))
    ended, cut = (composer.generate(None, config(bars=4, finish=each), seed=3)[0] for each in (None, False))
    assert ended.ids[:128].tolist() == cut.ids[:128].tolist()
    assert ended.ids[128:].tolist() != cut.ids[128:].tolist()


def test_a_cadence_leans_to_the_dominant_and_then_to_the_tonic():
    rule = endings.Cadence(GRID.vocab_size, MINOR, stop=32 * 4, final=[8, 12])
    state = rule.start(2)
    for i in [BOS, *[60 + FIRST_PITCH] * (4 * 22)]:
        state = rule.step(state, torch.tensor([i, i]))
    # step 22: two sixteenths before the last chord of the first element, two after it began in the second
    dominant, held = rule.allow(state)
    pitches = dominant[FIRST_PITCH : FIRST_PITCH + 128]
    assert {i % 12 for i in range(128) if pitches[i] == 0} == {4, 8, 11, 2}  # E G# B D
    assert held[60 + FIRST_PITCH] == 0 and (held < 0).sum() == GRID.vocab_size - 1
    state = rule.step(state, torch.tensor([60 + FIRST_PITCH] * 2))
    for i in [60 + FIRST_PITCH] * 2:
        state = rule.step(state, torch.tensor([i, i]))
    pitches = rule.allow(state)[0, FIRST_PITCH : FIRST_PITCH + 128]
    assert {i % 12 for i in range(128) if pitches[i] == 0} == {4}  # the bass of the dominant
    for i in [64 + FIRST_PITCH, *[64 + FIRST_PITCH] * 4]:
        state = rule.step(state, torch.tensor([i, i]))
    assert state[0].number == 24 * 4  # the last chord of the first element: any tone of A minor or A major
    chord = [[{0, 1, 4, 9}, 64], [{0, 1, 4, 9}, 69], [{0, 1}, 60], [{9}, 57]]  # the tenor has to take the third
    for classes, pitch in chord:
        added = rule.allow(state)[0]
        pitches = added[FIRST_PITCH : FIRST_PITCH + 128]
        assert {i % 12 for i in range(128) if pitches[i] == 0} == classes and added[SILENCE] < 0
        state = rule.step(state, torch.tensor([pitch + FIRST_PITCH] * 2))
    assert [int(rule.allow(state)[0].argmax()) - FIRST_PITCH, torch.isinf(rule.allow(state)).any()] == [64, False]


def test_before_the_cadence_nothing_is_added():
    rule = endings.Cadence(GRID.vocab_size, 0, stop=32 * 4, final=[8])
    state = rule.step(rule.start(1), torch.tensor([BOS]))
    assert not rule.allow(state).any()


def test_the_ending_is_kept_that_is_most_probable_with_the_end_of_the_piece(untrained):
    composer = Composer.load(untrained("grid"))
    draw = np.random.default_rng(0)
    before = np.concatenate([[BOS], draw.integers(60, 70, 64) + FIRST_PITCH])
    found = torch.from_numpy(draw.integers(50, 80, (5, 32)) + FIRST_PITCH)
    whole = torch.cat([torch.from_numpy(before).expand(5, -1), found, torch.full((5, 1), GRID.eos)], 1)
    with torch.inference_mode():
        logits, _ = composer.model(whole[:, :-1], None, GRID.features(whole[:, :-1])[0])
        nats = -logits.log_softmax(2).gather(2, whole[:, 1:, None])[:, len(before) - 1 :, 0].sum(1)
    assert endings.most_probable(composer.model, GRID, before, found) == int(nats.argmin())


def test_a_stream_ends_as_the_piece_does(untrained):
    composer = Composer.load(untrained("grid"))
    stream = composer.stream(None, config(bars=3), seed=4)
    streamed = sorted((note.start, note.end, note.pitch) for note in stream)
    (composition,) = composer.generate(None, config(bars=3), seed=4)
    assert notes(composer.streamed(stream)) == notes(composition)
    a_tick = 60 / 80 / composition.score.ticks_per_quarter
    whole = sorted((at * a_tick, (at + length) * a_tick, pitch) for at, length, pitch in notes(composition))
    assert np.array(streamed) == pytest.approx(np.array(whole), abs=1e-5)
    assert max(end for _, end, _ in streamed) == pytest.approx(9.0)


def test_only_unconditional_music_of_so_many_bars_has_one(untrained, song):
    composer = Composer.load(untrained("grid"))
    assert composer.completed(config()).ending and composer.completed(config()).finish is False
    assert not composer.completed(config(), composer.prompt(song)).ending
    for options in ({"finish": True}, {"finish": False}, {"tokens": 40}, {"seconds": 3.0}):
        assert not composer.completed(config(**options)).ending
    score = Composer.load(untrained("score"))  # with a plan
    assert score.completed(config()).ending and not score.completed(config(live=True)).ending
    assert not score.completed(config(), score.prompt(song)).ending
    assert not Composer.load(untrained("REMI")).completed(config()).ending


def test_a_record_tells_of_the_ending_and_one_that_does_not_is_cut(run, untrained):
    for name, options in (("out", []), ("cut", ["--no-finish"])):
        asked = ["generate", "--model", untrained("grid"), "--bars", 3, "--seed", 5, *options, "-o", f"{name}.mid"]
        code, _, err = run(*asked)
        assert code == 0, err
        stored = provenance.read(midi.read(f"{name}.mid"), name).request
        assert stored.ending is (name == "out") and stored.finish is False
        assert ("ending" in stored.to_record()) is (name == "out") and "finish" not in stored.to_record()
        code, out, _ = run("repro", f"{name}.mid", "--model", untrained("grid"), "--json")
        assert code == 0 and json.loads(out)["same"] is True
    assert Path("out.mid").read_bytes() != Path("cut.mid").read_bytes()
