"""The best of several ways to fill a span: its figures, and where it is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import checkpoint, midi, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import best_fit, infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.masked_span import masked_span
from tests.conftest import tiny
from tests.crops_data import band


def line(pitches: list[int], *, drums: bool = False, first: int = 0) -> Score:
    """Return a score of quarters."""
    score = Score(480)
    track = Track("", 0, drums)
    for i, pitch in enumerate(pitches):
        track.notes.append(Note(480 * (first + i), 480, pitch, 80))
    score.tracks.append(track)
    return score


KEPT = line([60, 64, 67, 72])


def test_consonance_counts_pairs_that_sound_together_without_octaves():
    kept = best_fit.pitched(KEPT, 0.0, 4.0)

    def of(pitches: list[int]) -> float:
        return best_fit.consonance(best_fit.pitched(line(pitches), 0.0, 4.0), kept)

    assert of([64, 67, 72, 67]) == 1  # third, third, fourth, fourth below
    assert of([61, 66, 66, 73]) == 0
    assert of([60, 52, 79, 73]) == 0, "octaves are no pairs: the semitone alone is one"
    assert of([64, 65, 72, 71]) == 0.5
    assert np.isnan(of([48, 52, 55, 60])) and np.isnan(of([]))
    assert best_fit.pitched(line([36, 38], drums=True), 0.0, 4.0).shape == (0, 3)


def test_scale_is_that_of_the_kept_notes():
    kept = best_fit.pitched(line([60, 62, 64, 65, 67, 69, 71, 72]), 0.0, 8.0)
    assert best_fit.in_scale(best_fit.pitched(line([60, 61, 62, 66]), 0.0, 8.0), kept) == 0.5
    assert np.isnan(best_fit.in_scale(kept[:0], kept))


@pytest.mark.parametrize(
    ("candidates", "log_probabilities", "index"),
    [
        ([[61, 66], [64, 67], [61, 66]], [-2.0, -2.0, -2.0], 1),  # harmony
        ([[64, 67], [64, 67], [64, 67]], [-2.0, -2.1, -1.9], 2),  # probability
        ([[], [61, 66]], [-0.1, -9.0], 1),  # notes at all
        ([[], []], [-1.0, -0.5], 0),
    ],
)
def test_the_best_has_the_best_harmony_and_probability(candidates, log_probabilities, index: int):
    scores = [line(pitches) for pitches in candidates]
    assert best_fit.best(KEPT, scores, log_probabilities, 0.0, 4.0) == index


def test_notes_outside_the_span_do_not_count():
    outside, inside = line([61, 61], first=4), line([64])
    assert best_fit.best(KEPT, [outside, inside], [0.0, -5.0], 0.0, 4.0) == 1


def played(program: int, number: int, *, drums: bool = False) -> Score:
    """Return a score of so many notes in four quarters, all on one pitch."""
    score, track = Score(480), Track("", program, drums)
    for i in range(number):
        track.notes.append(Note(1920 * i // number, 1920 // number, 48, 80))
    score.tracks.append(track)
    return score


def test_a_density_is_the_less_usual_the_farther_it_is_from_that_of_the_family():
    usual, spread = best_fit.USUAL[4]
    assert best_fit.density(played(33, round(4 * usual)), 0.0, 4.0) == pytest.approx(0, abs=1e-9)
    found = [best_fit.density(played(33, number), 0.0, 4.0) for number in (4, 8, 16, 32)]
    assert found == sorted(found, reverse=True) and found[1] == pytest.approx(-0.5 * (np.log(2 / usual) / spread) ** 2)
    assert best_fit.density(played(33, 1), 0.0, 4.0) < found[1] < 0, "too few is unusual, too"
    assert best_fit.density(played(0, 16), 0.0, 4.0) > found[2], "a piano plays more"
    assert best_fit.density(played(33, 16), 4.0, 8.0) == 0 == best_fit.density(played(0, 64, drums=True), 0.0, 4.0)


def test_of_basses_that_fit_alike_the_one_of_usual_density_is_kept():
    kept = line([60, 60, 60, 60])
    scores = [played(33, number) for number in (24, 5, 32)]
    assert best_fit.best(kept, scores, [-1.0, -1.2, -0.9], 0.0, 4.0) == 1


def test_drums_are_chosen_by_probability():
    scores = [line([36, 38], drums=True), line([42, 42], drums=True)]
    assert best_fit.best(KEPT, scores, [-2.0, -1.0], 0.0, 4.0) == 1


def made(tmp_path: Path, version: int) -> Composer:
    tokenizer = tokenizers.create("score-infill", features=version)
    model = tiny("gru", tokenizer.vocab_size, **tokenizer.model_config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    file = tmp_path / f"{version}.safetensors"
    checkpoint.save(file, model, arch="gru", tokenizer=tokenizer, card={"data": "nothing", "figures": {}})
    return Composer.load(str(file))


def test_a_span_of_up_to_16_bars_is_the_best_of_eight_where_tokens_have_a_plan(tmp_path: Path, caplog):
    planned, plain = made(tmp_path, 5), made(tmp_path, 2)
    caplog.set_level(logging.INFO)

    def draw(composer: Composer, bars: int, **asked) -> int | None:
        song = midi.cut(band(1, 24), 0.0, midi.bar_line(band(1, 24), 0.0, bars))
        config = GenerationConfig.from_options(**({"accompany": True} | asked))
        return composer.completed(config, composer.prompt(song)).draw

    assert draw(planned, 16) == 8 and not caplog.messages
    assert draw(planned, 20) == 1
    assert caplog.messages == ["20 bars are sampled once: the best of 8 is for up to 16 (--draw 8)"]
    assert draw(planned, 20, accompany=None, infill="3-6") == 8
    assert draw(planned, 20, draw=3) == 3 and draw(planned, 16, n=2) == 1 == draw(planned, 16, draw=1)
    assert draw(plain, 16) == 1 and draw(plain, 16, draw=4) == 4


def test_the_bars_of_a_span_are_counted():
    song = band(1, 24)
    assert masked_span(song, bars=(3, 9)).num_bars(song) == 7


def test_the_best_of_several_is_sampled_in_one_batch_and_kept_in_the_record(tmp_path: Path):
    composer = made(tmp_path, 2)
    song = midi.cut(band(1, 24), 0.0, midi.bar_line(band(1, 24), 0.0, 6))
    config = composer.completed(GenerationConfig.from_options(infill="3-4", draw=3), composer.prompt(song))
    assert config.sampled() == config and config.to_record()["draw"] == 3
    (one,) = infill.fill(composer, song, GenerationConfig.from_options(infill="3-4"), 5)
    (best,) = infill.fill(composer, song, config, 5)
    (again,) = infill.fill(composer, song, GenerationConfig.from_record(config.to_record()), 5)
    assert best.num_new_tokens > one.num_new_tokens
    assert midi.to_bytes(best.score) == midi.to_bytes(again.score)


def test_the_grid_has_no_best_of_several(untrained):
    with pytest.raises(TokenizerError, match="leave --draw out"):
        infill.fill(
            Composer.load(untrained("grid-infill")), line([60] * 16), GenerationConfig(infill="1", draw=2), seed=0
        )
