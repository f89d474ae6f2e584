"""Music that repeats itself, and where it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import midi, tokenizers
from musiclm.errors import CheckpointError, TokenizerError
from musiclm.generation import loop_guard, loops, rerank, session, stopping
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from musiclm.generation.prompt import Prompt
from musiclm.generation.sampler import Sampler
from tests.tokenizers_data import band

SCORE = tokenizers.create("score", features=2)  # the plan of a prompt depends on all of it


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


@pytest.mark.slow
def test_a_model_that_always_takes_the_likeliest_is_led_out_of_its_loop(composer):
    writer = composer("grid")
    cold = GenerationConfig.from_options(temperature=0.0, bars=6)
    (stuck,) = writer.generate(None, dataclasses.replace(cold, loop_guard=False), seed=1)
    assert loops.stands_still(stuck.score) or max(loops.windows(stuck.score)) > loops.LOOP
    (freed,) = writer.generate(None, cold, seed=1)
    assert freed.num_resampled > 0
    assert stuck.num_resampled == 0
    different = [len({(n.pitch, n.duration) for t in each.score.tracks for n in t.notes}) for each in (stuck, freed)]
    assert different[1] > different[0]
    assert notes(writer.generate(None, cold, seed=1)[0].score) == notes(freed.score)


@pytest.mark.slow
def test_a_continuation_that_rewinds_changes_no_other_and_keeps_its_beginning(composer, monkeypatch):
    """One of three is found in a loop, once, by a detector that knows its notes."""
    writer = composer("score")
    asked = GenerationConfig.from_options(bars=8, n=3, precision="fp32")
    plain = writer.generate(None, dataclasses.replace(asked, loop_guard=False), seed=1)
    beginning = [n for n in notes(plain[1].score) if n[0] < 12 * 480]
    found, temperatures = [], []

    def detect(score: Score, start: float, stop: float) -> float | None:
        if not found and stop >= 20 and notes(score)[: len(beginning)] == beginning:
            found.append(stop)
            return 12.0
        return None

    probabilities = Sampler.probabilities

    def noting(self, *arguments):
        temperatures.append(self.temperature)
        return probabilities(self, *arguments)

    monkeypatch.setattr(loop_guard, "loop_start", detect)
    monkeypatch.setattr(loop_guard, "standing_start", lambda *_: None)  # untrained, each bar has all pitch classes
    monkeypatch.setattr(Sampler, "probabilities", noting)
    guarded = writer.generate(None, asked, seed=1)
    assert [each.resampled for each in guarded] == [{}, {"loop": 1}, {}] and len(found) == 1
    for i in (0, 2):
        assert guarded[i].ids.tolist() == plain[i].ids.tolist()
    kept = writer.prompt(None).num_before(plain[1].ids, midi.last_bar_line(plain[1].score, 12.0))
    assert kept > 10
    assert guarded[1].ids[:kept].tolist() == plain[1].ids[:kept].tolist()
    assert guarded[1].ids.tolist() != plain[1].ids.tolist()
    hot = [t != 1.0 for t in temperatures]
    assert sorted(set(temperatures)) == [1.0, loop_guard.HEAT[loop_guard.LOOP][1]]
    assert hot[hot.index(True) : len(hot) - hot[::-1].index(True)] == [True] * sum(hot)  # one stretch, then 1.0 again
    assert not hot[-1]


class Scripted(torch.nn.Module):
    """A model that continues a prompt with given ids, whatever it reads. Its state is how many ids it has read."""

    def __init__(self, ids: np.ndarray, vocab_size: int, num_read: int = 1) -> None:
        super().__init__()
        self.script, self.vocab_size, self.num_read = ids.tolist(), vocab_size, num_read
        self.num_parameters = 0
        self.device = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, state=None, features=None):
        read = (state[0] if state else torch.zeros(tokens.shape[0], dtype=torch.int64)) + tokens.shape[1]
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for element, number in enumerate((read - self.num_read).tolist()):
            logits[element, -1, self.script[min(number, len(self.script) - 1)]] = 50.0
        return logits, (read,)

    def for_generation(self, precision: str) -> Scripted:
        return self


def scripted(score: Score, prompt: Score | None = None, *, ends: bool = False) -> tuple[Composer, Prompt]:
    """Return the composer of a model that writes a score behind a prompt that begins it, and the prompt."""
    start = Prompt.of(SCORE, prompt)
    ids = SCORE.encode(score)[0]
    assert ids[: len(start.ids)].tolist() == start.ids.tolist()
    script = ids[len(start.ids) : len(ids) if ends else -1]
    model = Scripted(script, SCORE.vocab_size, len(start.ids))
    made = SimpleNamespace(name="scripted", tokenizer=lambda: SCORE, model=lambda _: model, sampling={})
    return Composer(made), start


def varied(num_notes: int) -> list[int]:
    return [40 + (7 * i + i * i // 5) % 40 for i in range(num_notes)]


@pytest.mark.parametrize(
    ("asked", "quarters"),
    [({"bars": 3}, 12.0), ({"seconds": 4.5}, 9.0), ({"tokens": 100}, None)],
    ids=str,
)
def test_the_length_that_was_asked_for_is_where_a_score_is_cut(asked, quarters):
    """A scripted model writes forty bars at 120 quarters/minute."""
    score = tune(varied(320))
    writer, start = scripted(score)
    (made,) = writer.generate(start, GenerationConfig.from_options(temperature=0, **asked), seed=0)
    assert made.ended == "length" and made.num_resampled == 0
    if quarters is None:
        assert made.num_new_tokens == asked["tokens"] == len(made.ids)
        assert made.ids.tolist() == SCORE.encode(score)[0][1:101].tolist()
    else:
        assert [n[:2] for n in notes(made.score)] == [n[:2] for n in notes(score) if n[0] < quarters * 480]
        assert midi.end(made.score) == pytest.approx(quarters, abs=0.06)  # the nearest tempo token is not quite 120


def test_a_scripted_end_comes_where_the_model_says_and_not_before_the_length():
    """The script is five bars long: it ends a piece of four bars that may be finished, and none of eight.

    There the model, which may not end, writes silence, in which a phrase ends.
    """
    writer, start = scripted(tune(varied(40)), ends=True)
    finished = GenerationConfig.from_options(temperature=0, bars=4, finish=True, loop_guard=False)
    (made,) = writer.generate(start, finished, seed=0)
    assert made.ended == "piece" and midi.end(made.score) == 20.0
    (made,) = writer.generate(start, dataclasses.replace(finished, finish=False), seed=0)
    assert made.ended == "length" and midi.end(made.score) == 16.0
    (made,) = writer.generate(start, dataclasses.replace(finished, length=Length(bars=8)), seed=0)
    assert made.ended == "phrase" and midi.end(made.score) == 20.0


def test_a_scripted_phrase_ends_music_that_is_long_enough():
    """Quavers without a pause, but for the second half of the sixth bar."""
    score = tune(varied(96))
    score.tracks[0].notes = type(score.tracks[0].notes)(
        [n for n in score.tracks[0].notes if not 22 * 480 < n.time < 24 * 480]
    )
    writer, start = scripted(score)
    finished = GenerationConfig.from_options(temperature=0, bars=4, finish=True)
    (made,) = writer.generate(start, finished, seed=0)
    assert made.ended == "phrase" and midi.bar_line(made.score, midi.end(made.score)) == 24.0
    (made,) = writer.generate(start, dataclasses.replace(finished, length=Length(bars=2)), seed=0)
    assert made.ended == "length" and midi.end(made.score) == 8.0  # at half as long again there was no end


@pytest.mark.parametrize("live", [False, True])
def test_what_cannot_be_led_out_is_let_go_after_a_few_tries(live: bool):
    """A scripted model writes the same bar for ever: no temperature helps."""
    writer, start = scripted(tune(BAR * 40))
    config = GenerationConfig.from_options(temperature=0, bars=6, live=live)
    (made,) = writer.generate(start, config, seed=0)
    assert made.ended == "length"
    assert made.num_resampled == (1 if live else loop_guard.TRIES)
    assert midi.end(made.score) == 24.0


def test_who_begins_with_an_ostinato_may_have_one():
    """The same eight bars of one bar again come behind two prompts: only the one that does not loop is guarded."""
    loop = BAR * 24
    for beginning, is_guarded in ((BAR * 8, False), (varied(64), True)):
        writer, start = scripted(tune(beginning + loop), tune(beginning))
        (made,) = writer.generate(start, GenerationConfig.from_options(temperature=0, bars=8), seed=0)
        assert (made.num_resampled > 0) == is_guarded


def test_a_model_that_makes_no_progress_is_an_error():
    """Four hundred tokens for each of sixteen quarters are too many, if a length of two bars is not reached with them."""
    from musiclm.generation.criteria import Bars

    start = Prompt.of(SCORE, None)
    criterion = Bars(start, Length(bars=2), live=False)
    ids = SCORE.encode(tune([60] * 8))[0][1:]
    criterion.update(ids[:4], 0.0)
    assert not criterion.is_met(ids[:4], 0.0) and not criterion.is_stuck(ids)
    assert criterion.is_stuck(np.resize(ids, 16 * 400 + 1))


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "grid", "performance", "TSD"])
@pytest.mark.parametrize("length", [Length(bars=4), Length(seconds=3), Length(tokens=60)], ids=str)
def test_music_that_is_finished_goes_on_with_what_it_was_and_no_more_than_half_as_long_again(composer, name, length):
    writer = composer(name)  # a seed with notes in the first seconds: silence would be sampled again
    for asked, finished in zip(
        writer.generate(None, GenerationConfig(length=length, loop_guard=False, finish=False, n=2), seed=9),
        writer.generate(None, GenerationConfig(length=length, loop_guard=False, finish=True, n=2), seed=9),
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
            assert finished.num_new_tokens <= 90 + session.BLOCK
        if finished.ended == "phrase":
            end = midi.bar_line(finished.score, midi.end(finished.score))
            assert stopping.phrase_ends(finished.score, end)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "grid", "performance"])
def test_a_model_that_wants_to_end_may_only_when_the_music_is_long_enough(composer, name: str, monkeypatch):
    writer = composer(name)
    monkeypatch.setattr(stopping, "first_phrase_end", lambda *_: None)
    head = writer.model.head
    with torch.no_grad():
        head.bias[writer.tokenizer.eos] = 50.0
    for composed in writer.generate(None, GenerationConfig(length=Length(bars=4), finish=True, n=2), seed=4):
        assert composed.ended == "piece"
        assert writer.tokenizer.eos not in composed.ids
        end = midi.bar_line(composed.score, midi.end(composed.score))
        assert end <= midi.bar_line(composed.score, 0.0, 6)


def test_instruments_one_behind_the_other_have_no_bars_to_finish():
    tokenizer = tokenizers.create("MMM")
    from musiclm import models

    def model(_):
        return models.create("gru", tokenizer.vocab_size, **models.preset("gru", "tiny")).eval()

    writer = Composer(SimpleNamespace(name="untrained", tokenizer=lambda: tokenizer, model=model, sampling={}))
    with pytest.raises(TokenizerError, match="--finish"):
        writer.generate(None, GenerationConfig(length=Length(tokens=20), finish=True))


def test_the_best_are_those_whose_figures_lie_nearest_to_real_pieces(composer):
    writer = composer("grid")
    with pytest.raises(CheckpointError, match="--keep"):
        writer.rank(writer.prompt(None), [])
    card = {"real_pieces": {"nats_per_token": [4.0, 0.5], "repetition": [0.1, 0.1]}}
    writer.checkpoint = dataclasses.replace(writer.checkpoint, card=card)
    drawn = writer.generate(None, GenerationConfig(length=Length(bars=4), loop_guard=False, n=4), seed=2)
    ranked = writer.rank(writer.prompt(None), drawn)
    assert sorted(w.composition.index for w in ranked) == [0, 1, 2, 3]
    assert [w.distance for w in ranked] == sorted(w.distance for w in ranked)
    for w in ranked:
        assert w.distance == pytest.approx(np.hypot((w.nats_per_token - 4.0) / 0.5, (w.repetition - 0.1) / 0.1))
    alone = writer.rank(writer.prompt(None), drawn[1:2])[0]
    assert alone.nats_per_token == pytest.approx(
        next(w.nats_per_token for w in ranked if w.composition.index == 1), rel=1e-4
    )


def test_only_new_tokens_surprise(composer):
    """The nats of a prompt and its continuation together are those of both, ranked by their tokens."""
    from musiclm.data import Piece

    writer = composer("grid")
    prompt = writer.prompt(tune(BAR))
    (composed,) = writer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)
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
