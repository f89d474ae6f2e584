"""Performers: what is predicted, sampled, saved and trained; and performances that have exactly the score's notes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Note, Score, Tempo, Track

from musiclm.errors import CheckpointError, MidiError
from musiclm.performing import model as models
from musiclm.performing.model import DRUMS, PARAMETERS, PIANO, Noise, Performer, fit_noise, new_network, sample_noise
from musiclm.performing.notes import drum_notes, keyboard_notes, onset_numbers
from musiclm.performing.parameters import Parameters
from musiclm.performing.render import SUSTAIN, Expression, perform
from musiclm.performing.training import Played, train_performer
from musiclm.training.optim import Recipe

TINY = {"size": 16, "num_layers": 1}


def song(num: int = 40, *, drums: bool = False, seed: int = 0) -> Score:
    """A piano of chords, one note of which is repeated at once, a flute, and drums if asked for."""
    rng = np.random.default_rng(seed)
    score = Score(480)
    score.tempos.append(Tempo(0, 90.0))
    for program, name in ((0, "piano"), (73, "flute")):
        track = Track(name, program, False)
        for i in range(num):
            for pitch in {60, 60 + int(rng.integers(1, 12)), 48 + int(rng.integers(0, 12))}:
                track.notes.append(Note(240 * i, 240, pitch, 70))
        score.tracks.append(track)
    if drums:
        track = Track("drums", 0, True)
        for i in range(num):
            track.notes.append(Note(240 * i, 60, (36, 42, 38, 42)[i % 4], 90))
        score.tracks.append(track)
    return score


def performer(kind: str = PIANO, arch: str = "bidirectional_gru", **noise: Noise) -> Performer:
    torch.manual_seed(0)
    network = new_network(arch, kind, TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    scales = {name: (0.5 if name == "velocity" else 0.0, 0.15) for name in PARAMETERS[kind]}
    return Performer(network, arch=arch, kind=kind, scales=scales, noise=noise)


BOTH = {PIANO: performer(), DRUMS: performer(DRUMS)}


def pitches(score: Score) -> list[Counter]:
    return [Counter(note.pitch for note in track.notes) for track in score.tracks]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.one_of(st.none(), st.integers(0, 9)),
    strength=st.floats(0, 2),
    drums=st.booleans(),
    velocity_only=st.booleans(),
    which=st.integers(0, 5),
)
def test_a_performance_has_exactly_the_scores_notes_in_their_order(seed, strength, drums, velocity_only, which):
    score = song(12, drums=drums, seed=which)
    played = perform(score, BOTH, Expression(strength=strength, seed=seed, velocity_only=velocity_only))
    assert pitches(played) == pitches(score)
    for track in played.tracks:
        by_pitch: dict[int, int] = {}
        for note in sorted(track.notes, key=lambda n: n.time):
            assert note.duration >= 1 and 1 <= note.velocity <= 127
            assert note.time >= by_pitch.get(note.pitch, 0)  # none overlaps the one before
            by_pitch[note.pitch] = note.end


def test_only_velocities_change_where_only_velocities_are_asked_for():
    score = song(12, drums=True)
    played = perform(score, BOTH, Expression(seed=1, velocity_only=True))
    for track, before in zip(played.tracks, score.tracks, strict=True):
        assert [(n.time, n.duration, n.pitch) for n in track.notes] == [
            (n.time, n.duration, n.pitch) for n in before.notes
        ]
    assert len({n.velocity for n in played.tracks[0].notes}) > 3
    assert {n.velocity for n in played.tracks[1].notes} == {70}  # nobody performs the flute


def test_a_strength_of_0_is_as_written_and_in_time():
    score = song(12)
    played = perform(score, BOTH, Expression(strength=0.0, seed=1))
    assert {n.velocity for n in played.tracks[0].notes} == {70}
    seconds = sorted({n.time / 960 * 60 / 120 for n in played.tracks[0].notes})
    np.testing.assert_allclose(np.diff(seconds), 240 / 480 * 60 / 90, atol=1e-3)
    assert not any(c.number == SUSTAIN for c in played.tracks[0].controls)


def test_the_same_seed_is_the_same_performance_and_another_is_not():
    score = song(12, drums=True)
    found = [perform(score, BOTH, Expression(seed=seed)).dumps_midi() for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_a_tempo_that_is_asked_for_is_the_mean_of_the_performance():
    score = song(40)
    played = perform(score, BOTH, Expression(quarters_per_minute=60.0))
    last = max(n.time for n in played.tracks[1].notes) / 960 * 60 / 120
    assert last == pytest.approx(39 * 0.5 * 60 / 60, rel=0.02)


def test_other_instruments_follow_the_keyboard():
    played = perform(song(40), BOTH, Expression(strength=2.0, seed=5))
    flute = sorted({n.time for n in played.tracks[1].notes})
    assert np.std(np.diff(flute)) > 2  # not in strict time
    piano = np.array(sorted(n.time for n in played.tracks[0].notes))
    nearest = [np.abs(piano - time).min() for time in flute]
    assert np.median(nearest) < 300


def test_a_last_long_note_is_not_held_for_ever():
    """Articulation is a ratio; five times a whole note at the end doubled the length of a song."""
    score = song(8)
    score.tracks[0].notes.append(Note(240 * 8, 480 * 4, 72, 70))
    for seed in range(4):
        played = perform(score, BOTH, Expression(seed=seed, strength=2.0)).to("second")
        assert max(n.end for n in played.tracks[0].notes) < score.to("second").tracks[0].notes[-1].end + 1.5


def test_a_performance_is_no_score():
    rng = np.random.default_rng(0)
    score = song(40)
    for track in score.tracks:
        for note in track.notes:
            note.time += int(rng.integers(3, 17))
    with pytest.raises(MidiError, match="--force"):
        perform(score, BOTH)
    assert pitches(perform(score, BOTH, force=True)) == pitches(score)


def test_a_score_without_keyboard_and_drums_is_refused():
    score = song(4)
    del score.tracks[0]
    with pytest.raises(MidiError, match="neither a keyboard nor drums"):
        perform(score, BOTH)
    with pytest.raises(MidiError, match="only piano"):
        perform(song(4), {DRUMS: BOTH[DRUMS]})


@pytest.mark.parametrize("wrong", [{"strength": -0.1}, {"strength": 2.5}, {"quarters_per_minute": 1.0}])
def test_impossible_expressions_are_refused(wrong):
    with pytest.raises(ValueError, match="must be from"):
        Expression(**wrong)


@pytest.mark.parametrize("arch", ["bidirectional_gru", "bidirectional_transformer"])
def test_a_saved_performer_predicts_the_same(arch: str, tmp_path: Path):
    before = performer(arch=arch, velocity=Noise(shared=0.4, correlation=0.8))
    before.save(tmp_path / "a.safetensors", dtype=None)
    after = Performer.load(tmp_path / "a.safetensors")
    notes = keyboard_notes(song(12))
    for seed in (None, 5):
        one, other = before.predict(notes, seed), after.predict(notes, seed)
        for name in PARAMETERS[PIANO]:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (after.arch, after.kind, after.noise) == (arch, PIANO, before.noise)


def test_another_file_is_no_performer(tmp_path: Path):
    from musiclm.checkpoint import bundled_path

    with pytest.raises(CheckpointError, match="not a performer"):
        Performer.load(bundled_path("bach-gru"))


def test_long_scores_are_read_in_windows_with_the_same_result_for_the_past_and_the_future_in_reach(monkeypatch):
    notes = keyboard_notes(song(400))
    torch.manual_seed(0)
    network = new_network("bidirectional_gru", PIANO, TINY)
    mine = Performer(network, arch="bidirectional_gru", kind=PIANO, scales=BOTH[PIANO].scales)
    monkeypatch.setattr(models, "WINDOW", 5000)
    whole, _ = mine.distributions(notes)
    monkeypatch.setattr(models, "WINDOW", 300)
    monkeypatch.setattr(models, "MARGIN", 100)
    parts, _ = mine.distributions(notes)
    assert len(notes) > 1000
    np.testing.assert_allclose(parts["velocity"], whole["velocity"], atol=1e-4)


def test_noise_has_variance_1_and_is_shared_by_chords():
    notes = keyboard_notes(song(3000))
    rng = np.random.default_rng(1)
    noise = Noise(shared=0.6, correlation=0.7)
    drawn = sample_noise(notes, noise, rng)
    assert drawn.std() == pytest.approx(1, abs=0.05)
    found = fit_noise([(notes, drawn, np.ones(len(notes), bool))])
    assert found.shared == pytest.approx(0.6, abs=0.06) and found.correlation == pytest.approx(0.7, abs=0.08)


def played(seed: int, num: int = 60) -> Played:
    """A performance whose velocity follows the pitch, and whose tempo slows towards the end."""
    notes = keyboard_notes(song(num, seed=seed))
    rng = np.random.default_rng(seed)
    late = onset_numbers(notes) / num
    return Played(
        notes,
        Parameters(
            velocity=np.clip(0.3 + 0.015 * (notes.pitch - 48) + 0.01 * rng.standard_normal(len(notes)), 0.05, 1),
            tempo=late**4,
            deviation=0.01 * rng.standard_normal(len(notes)),
            articulation=np.full(len(notes), -0.5),
            pedal=(notes.position % 1 < 0.5).astype(float),
            mask=rng.random(len(notes)) < 0.9,
            seconds_per_quarter=0.6,
        ),
    )


@pytest.mark.parametrize("arch", ["bidirectional_gru", "bidirectional_transformer"])
def test_training_learns_what_the_performances_have(arch: str):
    learn, choose = [played(seed) for seed in range(6)], [played(9)]
    recipe = Recipe(steps=150, learning_rate=5e-3, warmup_steps=10, seed=1)
    options = {"kind": PIANO, "arch": arch, "config": {"size": 32, "num_layers": 1}, "length": 60, "batch_size": 4}
    *checks, found = train_performer(learn, choose, recipe, **options)
    assert checks[-1].validation < checks[0].validation
    notes, parameters = played(10)
    mean, _ = found.distributions(notes)
    assert np.corrcoef(mean["velocity"], parameters.velocity)[0, 1] > 0.9
    assert ((mean["pedal"] > 0.5) == (parameters.pedal > 0.5)).mean() > 0.9
    assert set(found.noise) == {"velocity", "tempo", "deviation", "articulation"}


def test_the_same_recipe_gives_the_same_performer():
    learn = [played(seed, 20) for seed in range(2)]
    recipe = Recipe(steps=4, seed=1)
    found = [
        list(train_performer(learn, [], recipe, kind=PIANO, arch="bidirectional_gru", config=TINY))[-1]
        for _ in range(2)
    ]
    for one, other in zip(*(each.network.state_dict().values() for each in found), strict=True):
        assert torch.equal(one, other)


def test_drums_have_velocity_and_deviation_alone():
    notes = drum_notes(song(12, drums=True))
    assert notes is not None
    found = BOTH[DRUMS].predict(notes, 1)
    assert found.velocity.std() > 0 and found.deviation.std() > 0
    assert not found.tempo.any() and not found.articulation.any() and not found.pedal.any()
    assert dataclasses.asdict(found)["mask"].all()
