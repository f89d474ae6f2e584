"""Penalties of four-part writing: what they count, that holds keep their share, and that they never leave no token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import midi, tokenizers
from musiclm.errors import TokenizerError
from musiclm.evaluation import chorale
from musiclm.evaluation.music_metrics import notes_of
from musiclm.generation import infill, provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.constraints import VoiceLeading, voice_leading
from musiclm.generation.constraints.voice_leading import (
    CLASH,
    CROSSED,
    FORBIDDEN,
    OUT_OF_RANGE,
    OVERLAP,
    PARALLEL,
    PREPARED_CLASH,
    Cells,
)
from musiclm.generation.sampler import Sampler
from musiclm.tokenizers.grid import BOS, EOS, FIRST_PITCH, SILENCE
from tests.test_cli import one_line

GRID = tokenizers.create("grid")
C = (72, 67, 60, 48)  # C5 G4 C4 C3


def weights(cells: Cells, **options) -> np.ndarray:
    """Return the weights of the faults of each pitch, (128,)."""
    penalties = VoiceLeading(GRID, 1.0, **options).penalties(cells)
    assert penalties[[BOS, EOS, SILENCE]].tolist() == [0, 0, 0]
    return -penalties[FIRST_PITCH : FIRST_PITCH + 128]


def cells(before=C, now=(), beat=None, number=1) -> Cells:
    return Cells(before, now, beat or before, number)


def test_parallel_fifths_and_octaves_are_penalized_and_contrary_motion_is_not():
    # soprano C5 -> D5; the bass was two octaves below: D3 and D2 are octaves, by similar and by contrary motion
    bass = weights(cells(now=(74, 67, 60)))
    assert bass[50] == PARALLEL
    assert bass[38] == 0 and bass[36] == 0 and bass[48] == 0  # contrary, to another interval, held
    # alto G4 -> A4 over the tenor's C4: D4 is a fifth again; the tenor to B3 goes the other way
    tenor = weights(cells(now=(72, 69)))
    assert tenor[62] == pytest.approx(PARALLEL) and tenor[59] > 0 and tenor[57] == 0
    # nobody moves but the bass: no parallels
    assert weights(cells(now=C[:3]))[50] == 0
    # a rest before, or after, makes no motion
    assert weights(cells(before=(0, 67, 60, 48), now=(74, 67, 60)))[50] == 0
    assert weights(cells(now=(0, 67, 60)))[50] == 0


def test_parallels_of_two_beats_count_less_than_immediate_ones():
    """C3 under C5, then D3 under D5, with E3 between: hidden from the sixteenth before, not from the beat before."""
    hidden = Cells((72, 67, 60, 52), (74, 67, 60), C, 4)
    assert 0 < weights(hidden)[50] < PARALLEL
    assert weights(hidden._replace(number=6))[50] == 0  # no beat


def test_crossings_overlaps_and_ranges_are_penalized():
    tenor = weights(cells(now=(72, 64)))
    assert tenor[66] == pytest.approx(CROSSED) and tenor[64] == 0 and tenor[62] == 0
    assert weights(cells(before=(72, 64, 60, 48), now=(72, 67)))[65] == pytest.approx(OVERLAP)
    assert weights(cells(before=(72, 64, 65, 48), now=(72, 67)))[65] == 0  # held, it overlaps nothing
    soprano = weights(cells(before=(-1,) * 4, number=0))
    assert soprano[59] == soprano[82] == OUT_OF_RANGE and not soprano[60:82].any()


def test_clashes_on_the_beat_are_penalized_and_suspensions_less():
    # the soprano moves to B4 on the beat; the alto may hold C5 against it, but not move to it
    prepared = cells(before=(76, 72, 64, 48), now=(83,), number=4)
    assert weights(prepared)[72] == pytest.approx(PREPARED_CLASH)
    moved = cells(before=(76, 69, 64, 48), now=(83,), number=4)
    assert weights(moved)[72] == pytest.approx(CLASH)
    assert 0 < weights(moved._replace(number=6))[72] < PREPARED_CLASH
    strict = weights(prepared, strict=True)
    assert strict[72] < FORBIDDEN and weights(moved, strict=True)[72] >= FORBIDDEN


def test_voices_to_come_that_are_given_are_known():
    free, bound = (VoiceLeading(GRID, 1.0, given=given) for given in (None, {7: 50 + FIRST_PITCH}))
    at = cells(number=1)
    assert free.penalties(at)[74 + FIRST_PITCH] == 0
    assert bound.penalties(at)[74 + FIRST_PITCH] == -PARALLEL


def test_the_state_is_that_of_the_cells_of_the_last_step_and_this_one():
    rule = VoiceLeading(GRID, 1.0)
    state = rule.start(2)
    tokens = [BOS, *[p + FIRST_PITCH for p in C], *[p + FIRST_PITCH for p in (74, 67)], SILENCE, EOS]
    for i in tokens:
        state = rule.step(state, torch.tensor([i, i]))
    assert state == [Cells(C, (74, 67, 0), C, 1)] * 2
    assert torch.equal(rule.allow(state)[1], torch.from_numpy(rule.penalties(state[0])))


def test_penalties_choose_among_pitches_and_leave_a_hold_its_share():
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0]])
    exempt = torch.tensor([True, False, False, False])
    plain = Sampler(temperature=0.5).probabilities(logits, exempt)
    some = Sampler(temperature=0.5).probabilities(logits, exempt, torch.tensor([[0.0, -4.0, 0.0, 0.0]]))
    assert some[0, 0].item() == pytest.approx(plain[0, 0].item(), abs=1e-6)
    assert some[0, 1] < plain[0, 1] / 5 and some[0, 2] > plain[0, 2]
    held = Sampler().probabilities(logits, exempt, torch.tensor([[-1.0, 0.0, 0.0, 0.0]]))
    assert held[0, 0].item() == pytest.approx(torch.softmax(logits - torch.tensor([1.0, 0, 0, 0]), 1)[0, 0].item())
    # what all moves have moves the hold
    moves = Sampler().probabilities(logits, exempt, torch.tensor([[0.0, -1e4, -1e4, -1e4]]))
    assert moves[0].tolist() == [1, 0, 0, 0]
    every = Sampler().probabilities(logits, exempt, torch.tensor([[-2e4, -2e4, -1e4, -2e4]]))
    assert every[0].tolist() == pytest.approx([0, 0, 1, 0])
    greedy = Sampler(temperature=0.0).probabilities(logits[:, 1:], None, torch.tensor([[-4.0, 0.0, 0.0]]))
    assert greedy[0].tolist() == [0, 1, 0]


def config(**options) -> GenerationConfig:
    return GenerationConfig.from_options(**{"bars": 3, "precision": "fp32", "finish": False} | options)


def notes(composition) -> list[tuple[int, int, int]]:
    return [(n.time, n.duration, n.pitch) for t in composition.score.tracks for n in t.notes]


def test_strict_music_has_no_parallels_and_stays_in_range(untrained):
    composer = Composer.load(untrained("grid"))
    measures = chorale.parallel_fifths, chorale.parallel_octaves, chorale.out_of_range
    found = []
    for strict in (False, True):
        made = composer.generate(None, config(strict=strict, n=3), seed=1)
        voices = [chorale.voices_of(notes_of(composition.score)) for composition in made]
        found.append([sum(measure(each) for each in voices) for measure in measures])
    assert all(value > 0 for value in found[0]) and found[1] == [0, 0, 0]


@pytest.mark.parametrize("asked", [{"pitch_range": "C4-C#4"}, {"max_polyphony": 1}, {"key": "c major pentatonic"}])
def test_strict_is_never_a_dead_end(untrained, asked: dict[str, object]):
    """Where every pitch is a fault, the music goes on with one of them."""
    (composition,) = Composer.load(untrained("grid")).generate(None, config(bars=2, strict=True, **asked), seed=1)
    assert composition.num_new_tokens == 2 * 64


def test_a_variation_is_the_same_alone_and_among_others(untrained):
    composer = Composer.load(untrained("grid"))
    alone, several = (composer.generate(None, config(bars=2, voice_leading=4.0, n=n), seed=7) for n in (1, 3))
    assert notes(alone[0]) == notes(several[0]) != notes(several[1])


def test_without_the_option_and_at_0_music_is_as_it_was(untrained):
    composer = Composer.load(untrained("grid"))
    old = GenerationConfig.from_record({"n": 1, "precision": "fp32", "bars": 3, "temperature": 1.0, "loop_guard": True})
    made = [composer.generate(None, each, seed=3)[0] for each in (old, config(), config(voice_leading=0.0))]
    assert notes(made[0]) == notes(made[1]) == notes(made[2])
    assert composer.penalties(old) == []
    assert notes(composer.generate(None, config(voice_leading=4.0), seed=3)[0]) != notes(made[0])


def test_the_prompt_is_read(untrained):
    """Behind a last step of C5 G4 C4 C3 and with a soprano on D5, the bass on D3 makes octaves, and is never sampled."""
    score = Score(4)
    for name, pitch in zip(("Soprano", "Alto", "Tenor", "Bass"), C, strict=True):
        score.tracks.append(Track(name, 52, False))
        score.tracks[-1].notes.append(Note(0, 4, pitch, 80))
    composer = Composer.load(untrained("grid"))
    (rule,) = composer.penalties(config(strict=True))
    state = rule.start(1)
    for i in [*composer.prompt(score).ids, 74 + FIRST_PITCH, 67 + FIRST_PITCH, 60 + FIRST_PITCH]:
        state = rule.step(state, torch.tensor([i]))
    assert rule.allow(state)[0, 50 + FIRST_PITCH] <= -FORBIDDEN
    (composition,) = composer.generate(score, config(strict=True, bars=2), seed=2)
    voices = chorale.voices_of(notes_of(composition.score))
    assert chorale.parallel_octaves(voices) == chorale.parallel_fifths(voices) == 0


def test_tokenizers_without_voices_are_refused(run, untrained):
    for name in ("score", "performance"):
        assert voice_leading(tokenizers.create(name), 0.0) == []
        with pytest.raises(TokenizerError, match="has no voices: --voice-leading"):
            voice_leading(tokenizers.create(name), 2.0)
    code, out, err = run("generate", "--model", untrained("score"), "--tokens", 20, "--strict", "-o", "out.mid")
    assert code == 1 and one_line(err) and "has no voices" in err and out == "" and not Path("out.mid").exists()


def test_a_recommendation_is_stored_and_made_again(run, untrained, monkeypatch):
    monkeypatch.setattr("musiclm.checkpoint.Checkpoint.sampling", property(lambda _: {"voice_leading": 3.5}))
    code, _, err = run("generate", "--model", untrained("grid"), "--bars", 2, "--strict", "--seed", 5, "-o", "out.mid")
    assert code == 0, err
    stored = provenance.read(midi.read("out.mid"), "out.mid").request
    assert stored.voice_leading == 3.5 and stored.strict
    monkeypatch.setattr("musiclm.checkpoint.Checkpoint.sampling", property(lambda _: {"voice_leading": 1.0}))
    code, out, _ = run("repro", "out.mid", "--model", untrained("grid"), "--json")
    assert code == 0 and json.loads(out)["same"] is True


def test_a_voice_that_is_added_is_led_against_those_that_are_kept(untrained):
    """A soprano in sixteenths over a bass in the same rhythm: with --strict there are no parallels between them."""
    score = Score(4)
    draw = np.random.default_rng(0)
    for name, low in (("Soprano", 62), ("Bass", 40)):
        track = Track(name, 52, False)
        for step in range(32):
            track.notes.append(Note(step, 1, low + int(draw.integers(12)), 80))
        score.tracks.append(track)
    composer = Composer.load(untrained("grid-infill"))

    def parallels(**options) -> int:
        asked = GenerationConfig.from_options(keep_tracks="Bass", precision="fp32", **options)
        (made,) = infill.fill(composer, score, asked, 1)
        voice = {t.name: {n.time: n.pitch for n in t.notes} for t in made.score.tracks}
        line, bass = (np.array([voice[name].get(step, 0) for step in range(32)]) for name in ("Soprano", "Bass"))
        assert bass.tolist() == [n.pitch for n in score.tracks[1].notes]
        interval, up = (line - bass) % 12, np.sign(np.diff(line)) * np.sign(np.diff(bass))
        sounds = (line[1:] > 0) & (line[:-1] > 0)
        return int((np.isin(interval[1:], (0, 7)) & (interval[1:] == interval[:-1]) & (up > 0) & sounds).sum())

    assert parallels(strict=True) == 0
