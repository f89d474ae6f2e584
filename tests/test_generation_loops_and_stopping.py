"""Music that repeats itself, and where it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import midi, tokenizers
from musiclm.errors import CheckpointError, TokenizerError
from musiclm.generation import loops, rerank, session, stopping
from musiclm.generation.composer import Composer, Length
from musiclm.generation.sampler import Sampler
from musiclm.generation.session import GenerationSession, SessionConfig
from tests.tokenizers_data import band

SCORE = tokenizers.create("score")


def tune(pitches: list[int], beat: float = 0.5) -> Score:
    score = Score(480)
    track = Track("Tune", 0)
    for i, pitch in enumerate(pitches):
        track.notes.append(Note(round(i * beat * 480), round(beat * 480), pitch, 40 + i % 60))
    score.tracks.append(track)
    return score


def notes(score: Score) -> list[tuple[int, int, int]]:
    return sorted((n.time, n.pitch, n.end) for t in score.tracks for n in t.notes)


BAR = [60, 62, 64, 65, 67, 69, 71, 72]


def test_repetition_has_the_values_that_its_formula_gives():
    before = list(range(30, 62))  # 16 quarters
    two = BAR + [p + 12 for p in BAR]
    assert loops.repetition(tune(BAR * 8)) == pytest.approx(1 - 8 / 61)
    for loop, different in ((BAR * 8, 8), (two * 4, 16), ([60] * 64, 1)):
        again = loops.windows(tune(before + loop), start=0.0)[-1]
        assert again == pytest.approx(1 - different / 61, abs=1e-9)
    assert loops.repetition(tune(list(range(36, 100)))) == 0
    assert loops.repetition(tune([60, 62])) == 0


def test_how_loud_and_how_long_makes_no_difference_to_repetition():
    loop = tune(BAR * 8)
    for i, note in enumerate(loop.tracks[0].notes):
        note.velocity, note.duration = 1 + i, 10 + i
    assert loops.windows(loop) == loops.windows(tune(BAR * 8))


def test_a_loop_begins_where_what_is_repeated_first_came_again():
    assert loops.loop_start(tune([*range(30, 62), *BAR * 8]), 0.0, 48.0) == pytest.approx(20.0)
    assert loops.loop_start(tune(list(range(30, 94))), 0.0, 32.0) is None
    assert loops.loop_start(tune(BAR * 3), 0.0, 12.0) is None  # too short to say


def test_standing_still_counts_as_a_loop():
    held = tune([*BAR, *BAR[::-1]])
    assert loops.loop_start(held, 0.0, 24.0) == 7.5
    assert loops.loop_start(held, 0.0, 23.0) is None
    assert loops.stands_still(tune([60, 62], beat=16)) and not loops.stands_still(held)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("quarters", [0.0, 3.0, 7.5, 13.0])
def test_the_end_of_a_piece_decodes_by_itself(quarters: float, merged: bool):
    tokenizer = SCORE.trained_bpe([SCORE.encode(band())[0]] * 2, 30) if merged else SCORE
    ids = tokenizer.encode(band())[0][:-1]
    end, start = tokenizer.suffix_from_bar(ids, quarters)
    assert start <= quarters
    assert start > 0 or quarters < 3
    whole, part = tokenizer.decode(ids), tokenizer.decode(end)
    first = round(start * 480)
    expected = sorted((t.program, t.is_drum, *n) for t in whole.tracks for n in notes_of(t) if n[0] >= first)
    found = sorted((t.program, t.is_drum, n[0] + first, *n[1:]) for t in part.tracks for n in notes_of(t))
    assert found == expected


def notes_of(track: Track) -> list[tuple[int, int, int, int]]:
    return [(n.time, n.pitch, n.duration, n.velocity) for n in track.notes]


@pytest.fixture
def composer(untrained) -> Callable[[str], Composer]:
    return lambda name: Composer.load(untrained(name))


def draw(writer: Composer, count: int, prompt: Score | None = None, **plan) -> list[session.Continuation]:
    heard = writer.prompt(prompt)
    sampler = writer._sampler(heard, None, temperature=plan.pop("temperature", 1.0), top_k=None, top_p=None, min_p=None)
    plan = SessionConfig(**{"length": Length(bars=8), "seed": 1, **plan})
    return GenerationSession(writer.model, "untrained", heard, sampler, plan).draw(count)


def test_a_model_that_always_takes_the_likeliest_is_led_out_of_its_loop(composer):
    writer = composer("grid")
    cold = {"temperature": 0.0, "length": Length(bars=6), "seed": 1}
    (stuck,) = writer.compose(loop_guard=False, **cold)
    assert loops.stands_still(stuck.score) or max(loops.windows(stuck.score)) > loops.LOOP
    (freed,) = writer.compose(**cold)
    assert freed.redrawn > 0
    assert stuck.redrawn == 0
    different = [len({(n.pitch, n.duration) for t in each.score.tracks for n in t.notes}) for each in (stuck, freed)]
    assert different[1] > different[0]
    assert notes(writer.compose(**cold)[0].score) == notes(freed.score)


def test_a_row_that_goes_back_changes_no_other_and_keeps_its_beginning(composer, monkeypatch):
    writer = composer("score")
    plain = draw(writer, 3, loop_guard=False)
    hot: list[float] = []
    run = GenerationSession._run

    def looking(self, row, reached):
        if row.number == 1 and not row.redrawn and reached >= 20:
            row.looped, row.redrawn, row.heat = True, 1, 1
            row.ids, row.hot_until, row.stop = row.ids[: self.prompt.num_before(row.ids, 12.0)], reached, None

    def running(self, rows, sampler: Sampler, seed, until=None):
        hot.append(sampler.temperature)
        return run(self, rows, sampler, seed, until)

    monkeypatch.setattr(GenerationSession, "_look_for_loop", looking)
    monkeypatch.setattr(GenerationSession, "_run", running)
    guarded = draw(writer, 3)
    for i in (0, 2):
        assert guarded[i].ids.tolist() == plain[i].ids.tolist()
    kept = writer.prompt(None).num_before(plain[1].ids, 12.0)
    assert guarded[1].ids[:kept].tolist() == plain[1].ids[:kept].tolist()
    assert guarded[1].ids.tolist() != plain[1].ids.tolist()
    assert hot == [1.0, session.HOTTER, 1.0]


@pytest.mark.parametrize("live", [False, True])
def test_what_cannot_be_led_out_is_let_go_after_a_few_tries(composer, monkeypatch, live: bool):
    monkeypatch.setattr(session, "loop_start", lambda score, start, stop: start)
    (row,) = draw(composer("grid"), 1, length=Length(bars=6), live=live)
    assert row.ended == "length"
    assert 0 < row.redrawn <= session.TRIES * 2


def test_who_begins_with_an_ostinato_may_have_one(composer):
    writer = composer("score")
    for pitches, is_guarded in ((BAR * 8, False), (list(range(30, 94)), True)):
        prompt = writer.prompt(tune(pitches))
        assert (
            GenerationSession(writer.model, "", prompt, Sampler(), SessionConfig(length=Length(), seed=0)).loop_guard
            == is_guarded
        )


def test_a_phrase_ends_where_the_last_half_bar_brings_nothing_new_and_nothing_rings_on():
    held = tune([60, 62], beat=2.0)
    assert stopping.phrase_ends(held, 4.0)
    assert not stopping.phrase_ends(tune([60, 62, 64, 65], beat=1.0), 4.0)
    held.tracks[0].notes.append(Note(0, 3000, 48, 60))
    assert not stopping.phrase_ends(held, 4.0)
    drums = Track("Drums", 0, True)
    for i in range(16):
        drums.notes.append(Note(i * 240, 240, 42, 60))
    playing = tune([60, 62], beat=2.0)
    playing.tracks.append(drums)
    assert stopping.first_phrase_end(playing, 4.0, 8.0) == 4.0


@pytest.mark.parametrize("name", ["score", "grid", "performance", "TSD"])
@pytest.mark.parametrize("length", [Length(bars=4), Length(seconds=3), Length(tokens=60)], ids=str)
def test_music_that_is_finished_goes_on_with_what_it_was_and_no_more_than_half_as_long_again(composer, name, length):
    writer = composer(name)
    for asked, finished in zip(
        writer.compose(length=length, count=2, seed=4, loop_guard=False),
        writer.compose(length=length, count=2, seed=4, loop_guard=False, finish=True),
        strict=True,
    ):
        assert finished.ended in ("length", "phrase", "piece")
        stop = max(n[2] for n in notes(asked.score))
        was = [n[:2] for n in notes(asked.score)]
        begins_as = [n[:2] for n in notes(finished.score) if n[0] < stop]
        assert begins_as == was if length.tokens is None else set(was) <= set(begins_as)
        if length.bars:
            assert midi.end(finished.score) <= midi.bar_line(finished.score, 0.0, 6) + 1e-6
        if length.tokens:
            assert finished.num_new_tokens <= 90 + session.CHECK_EVERY
        if finished.ended == "phrase":
            end = midi.bar_line(finished.score, midi.end(finished.score))
            assert stopping.phrase_ends(finished.score, end)


@pytest.mark.parametrize("name", ["score", "grid", "performance"])
def test_a_model_that_wants_to_end_may_only_when_the_music_is_long_enough(composer, name: str, monkeypatch):
    writer = composer(name)
    monkeypatch.setattr(stopping, "first_phrase_end", lambda *_: None)
    head = writer.model.head
    with torch.no_grad():
        head.bias[writer.tokenizer.eos] = 50.0
    for composed in writer.compose(length=Length(bars=4), count=2, seed=4, finish=True):
        assert composed.ended == "piece"
        assert writer.tokenizer.eos not in composed.ids
        end = midi.bar_line(composed.score, midi.end(composed.score))
        assert end <= midi.bar_line(composed.score, 0.0, 6)


def test_instruments_one_behind_the_other_have_no_bars_to_finish():
    tokenizer = tokenizers.create("MMM")
    from types import SimpleNamespace

    from musiclm import models

    def model(_):
        return models.create("gru", tokenizer.vocab_size, **models.preset("gru", "tiny")).eval()

    writer = Composer(SimpleNamespace(name="untrained", tokenizer=lambda: tokenizer, model=model, sampling={}))
    with pytest.raises(TokenizerError, match="--finish"):
        writer.compose(length=Length(tokens=20), finish=True)


def test_the_best_are_those_whose_figures_lie_nearest_to_real_pieces(composer):
    writer = composer("grid")
    with pytest.raises(CheckpointError, match="--keep"):
        writer.weigh(writer.prompt(None), [])
    card = {"real_pieces": {"nats_per_token": [4.0, 0.5], "repetition": [0.1, 0.1]}}
    writer.checkpoint = dataclasses.replace(writer.checkpoint, card=card)
    drawn = writer.compose(length=Length(bars=4), count=4, seed=2, loop_guard=False)
    weighed = writer.weigh(writer.prompt(None), drawn)
    assert sorted(w.composition.index for w in weighed) == [0, 1, 2, 3]
    assert [w.distance for w in weighed] == sorted(w.distance for w in weighed)
    for w in weighed:
        assert w.distance == pytest.approx(np.hypot((w.surprise - 4.0) / 0.5, (w.repetition - 0.1) / 0.1))
    alone = writer.weigh(writer.prompt(None), drawn[1:2])[0]
    assert alone.surprise == pytest.approx(next(w.surprise for w in weighed if w.composition.index == 1), rel=1e-4)


def test_only_new_tokens_surprise(composer):
    """The nats of a prompt and its continuation together are those of both, weighed by their tokens."""
    from musiclm.data import Piece

    writer = composer("grid")
    prompt = writer.prompt(tune(BAR))
    (composed,) = writer.compose(prompt, length=Length(bars=2), seed=1)
    ids = prompt.with_new(composed.ids)
    piece = Piece(name="", tokens=ids, num_notes=0, seconds=0.0)
    of_all, of_new, of_prompt = (
        rerank.losses(writer.model, writer.tokenizer, [p], behind=behind)[0]
        for p, behind in (
            (piece, 0),
            (piece, len(prompt.ids)),
            (dataclasses.replace(piece, tokens=ids[: len(prompt.ids)]), 0),
        )
    )
    num_old, num_new = len(prompt.ids) - 1, len(composed.ids)
    assert of_all * (num_old + num_new) == pytest.approx(of_new * num_new + of_prompt * num_old, rel=1e-4)
