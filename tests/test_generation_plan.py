"""Chords and forms that are asked for: what is read, what is forced, and what is refused."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import checkpoint, midi, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints, infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.controls import Controls
from musiclm.generation.prompt import Prompt
from musiclm.generation.sampler import Sampler
from musiclm.midi.chords import CHORDS, NO_CHORD, parse_symbol, pitch_classes, symbol
from musiclm.tokenizers import score_plan
from musiclm.tokenizers.vocabulary import Kind, find, ids_of
from tests.conftest import tiny
from tests.crops_data import band

SCORE, PLAIN = tokenizers.create("score"), tokenizers.create("score", features=2)
PROMPT = Prompt.of(SCORE, band(1, 6))


def test_every_chord_has_a_symbol_that_reads_as_it():
    assert [parse_symbol(symbol(chord)) for chord in (*CHORDS, NO_CHORD)] == [*CHORDS, NO_CHORD]


@pytest.mark.parametrize(
    ("text", "chord"),
    [
        ("C", (0, "maj")), ("Am", (9, "min")), ("F#m7", (6, "min7")), ("Bbmaj7", (10, "maj7")), ("G7", (7, "7")),
        ("Cdim", (0, "dim")), ("C°", (0, "dim")), ("C°7", (0, "dim7")), ("Bm7b5", (11, "m7b5")), ("Bø", (11, "m7b5")),
        ("Caug", (0, "aug")), ("C+", (0, "aug")), ("Dsus4", (2, "sus4")), ("C/E", (0, "maj")), ("Am7/G", (9, "min7")),
        ("E♭", (3, "maj")), ("A♭-7", (8, "min7")), ("CΔ7", (0, "maj7")), ("G7(b9)", (7, "7")), ("Fm(maj7)", (5, "min")),
        ("C6/9", (0, "maj")), ("Cb", (11, "maj")), ("B#", (0, "maj")), ("N.C.", NO_CHORD), ("Csus2", (7, "sus4")),
    ],
)  # fmt: skip
def test_symbols_are_read_as_musicians_write_them(text: str, chord: tuple[int, str]):
    assert parse_symbol(text) == chord


@pytest.mark.parametrize("text", ["", "H", "am", "Cx", "C5", "C7b5", "Csus9", "C/X", "N", "C//E"])
def test_what_is_no_clear_chord_is_refused(text: str):
    with pytest.raises(ValueError, match="is no chord"):
        parse_symbol(text)


def test_a_progression_is_stored_by_half_bars_and_written_as_it_was():
    controls = Controls(chords="Am | F/2, C/E/2 | G7 ", chord_strength=0.25, form="aaba")
    assert controls.chords == ((9, "min"),) * 2 + ((5, "maj"), (0, "maj")) + ((7, "7"),) * 2
    stored = controls.to_dict()
    assert stored == {"chords": "Am F/2 C/2 G7", "chord_strength": 0.25, "form": "AABA"}
    assert Controls(**stored) == controls


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"chords": "Am/2 F"}, "half a bar"), ({"chords": "Am/2"}, "half a bar"), ({"chords": " "}, "no chords"),
        ({"chords": "Am Q"}, "'Q' is no chord"), ({"chords": "Am", "chord_strength": 1.5}, "must be 0 to 1"),
        ({"chord_strength": 0.5}, "chord_strength needs chords"), ({"form": "A"}, "is no form"),
        ({"form": "AABZ"}, "is no form"), ({"form": "AAB"}, "bars 15 or 18, not 16"),
        ({"form": "AABA", "bars": 3}, "bars 4, not 3"), ({"form": "AABA", "seconds": 9.0}, "needs a length in bars"),
        ({"form": "AABA", "accompany": True}, "is for music from a bar on"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(asked, said: str):
    with pytest.raises(ValueError, match=said):
        GenerationConfig.from_options(**asked)


def test_a_record_says_the_strength_and_nothing_of_what_is_off():
    resolved = GenerationConfig.from_options(chords="Am F").resolved({})
    assert resolved.to_record().items() >= {"chords": "Am F", "chord_strength": 0.5}.items()
    assert GenerationConfig.from_record(resolved.to_record()) == GenerationConfig.from_record(resolved.to_record())
    old = GenerationConfig.from_record({"chords": "Am F"})
    assert old.resolved({}).controls.chord_strength == 0
    assert not GenerationConfig().resolved({}).to_record().keys() & {"chords", "chord_strength", "form"}
    assert not GenerationConfig.from_record({}).resolved({}).to_record().keys() & {"chords", "chord_strength", "form"}


def walk(made: list, prompt: np.ndarray, num_bars: int, seed: int = 0) -> list[dict[Kind, list]]:
    """Return the attributes of random bars behind a prompt, each choice among what all constraints allow."""
    rng, table = np.random.default_rng(seed), SCORE.vocabulary
    states = [each.start(1) for each in made]

    def take(token: int) -> None:
        nonlocal states
        states = [each.step(state, torch.tensor([token])) for each, state in zip(made, states, strict=True)]

    def draw(kind: Kind) -> int:
        allowed = sum(each.allow(state)[0] for each, state in zip(made, states, strict=True)).numpy()
        return int(rng.choice([i for i in ids_of(table, kind) if np.isfinite(allowed[i])]))

    for i in prompt.tolist():
        take(i)
    bars = []
    for _ in range(num_bars):
        found: dict[Kind, list] = {}
        for kind in (Kind.BAR, Kind.TIME_SIGNATURE, Kind.SECTION, Kind.REPEAT, Kind.CHORD, Kind.CHORD, Kind.POSITION):
            token = draw(kind)
            take(token)
            found.setdefault(kind, []).append(table[token].value)
        bars.append(found)
    return bars


@pytest.mark.parametrize("prompt", [np.array([SCORE.bos]), PROMPT.ids])
def test_bars_have_the_chords_that_are_asked_for(prompt: np.ndarray):
    controls = Controls(chords="Am F/2 Cmaj7/2 G")
    first = len(ids_of_bars(prompt))
    bars = walk(constraints.planned(SCORE, controls, first=first), prompt, 7)
    expected = [["Am", "Am"], ["F", "Cmaj7"], ["G", "G"]]
    assert [[symbol(c) for c in bar[Kind.CHORD]] for bar in bars] == [expected[i % 3] for i in range(7)]
    assert len({bar[Kind.SECTION][0] for bar in bars}) > 1  # they stay free


def ids_of_bars(ids: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(ids, ids_of(SCORE.vocabulary, Kind.BAR)))


@pytest.mark.parametrize(("form", "num_bars"), [("AABA", 16), ("ABAC", 32), ("AABACA", 24), ("AA", 18), ("ABCABC", 6)])
@pytest.mark.parametrize("prompt", [np.array([SCORE.bos]), PROMPT.ids])
@pytest.mark.parametrize("chords", [None, "Dm G"])
def test_a_form_brings_its_sections_back(form: str, num_bars: int, prompt: np.ndarray, chords: str | None):
    controls = Controls(form=form, chords=chords)
    first, size = len(ids_of_bars(prompt)), num_bars // len(form)
    bars = walk(constraints.planned(SCORE, controls, first=first, num_bars=num_bars), prompt, num_bars, seed=len(form))
    assert "".join(bar[Kind.SECTION][0] for bar in bars) == "".join(letter * size for letter in form)
    for number, bar in enumerate(bars):
        part, within = divmod(number, size)
        (back,) = bar[Kind.REPEAT]
        earlier = [(part - p) * size for p in range(part) if form[p] == form[part]]
        known = [distance for distance in earlier if distance in score_plan.REPEATS]
        if not earlier:
            assert back is not None and back <= within
        elif known and number < num_bars - 1:
            assert back == min(known) and form[(number - back) // size] == form[part]
            if chords is None:
                assert bar[Kind.CHORD] == bars[number - back][Kind.CHORD]
    if chords is not None:
        assert [symbol(bar[Kind.CHORD][0]) for bar in bars] == ["Dm", "G"] * (num_bars // 2)


def test_new_bars_are_counted_behind_the_prompt():
    at_line, within = Prompt.of(SCORE, band(1, 6), bars=4), Prompt.of(SCORE, band(1, 6), seconds=7)
    assert at_line.num_bars == 4
    starts = SCORE.bars(within.ids)[1]
    assert within.num_bars == (starts < within.quarters - 1e-6).sum()
    assert Prompt.of(SCORE, None).num_bars == 0


def outside(tokenizer: tokenizers.Tokenizer, words: list[str], strength: float, chords: str = "C/2 G/2") -> set[str]:
    """Return the pitch classes that cost something behind some tokens."""
    (made,) = constraints.chord_tones(tokenizer, Controls(chords=chords, chord_strength=strength), first=1)
    state = made.start(1)
    for word in words:
        state = made.step(state, torch.tensor([tokenizer.midi_tokenizer[word]]))
    bias = made.allow(state)[0].numpy()
    cost = np.log(1 - strength) if strength < 1 else -1e4
    assert np.allclose(bias[bias != 0], cost)
    assert all(tokenizer.vocabulary[i].kind == Kind.NOTE_ON for i in np.flatnonzero(bias))
    return {tokenizer.vocabulary[i].value % 12 for i in np.flatnonzero(bias)}


@pytest.mark.parametrize("tokenizer", [SCORE, PLAIN])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_notes_outside_the_chord_of_their_half_bar_are_less_likely(tokenizer, strength: float):
    bars = ["Bar_None", "TimeSig_3/4", "Position_0", "Bar_None", "TimeSig_3/4"]
    in_c, in_g = (set(range(12)) - pitch_classes(chord) for chord in ((0, "maj"), (7, "maj")))
    assert outside(tokenizer, bars[:2], strength) == set()
    assert outside(tokenizer, [*bars, "Position_17"], strength) == in_c
    assert outside(tokenizer, [*bars, "Position_18", "Program_0"], strength) == in_g
    assert outside(tokenizer, [*bars, "Position_0", "Program_-1"], strength) == set()
    assert outside(tokenizer, [*bars, "Bar_None", "TimeSig_6/8", "Position_36"], strength) == in_g
    assert outside(tokenizer, [*bars, "Position_0"], strength, "N.C.") == set()


def test_on_a_grid_a_voice_may_hold_a_pitch_outside_the_chord():
    grid = tokenizers.create("grid")
    (made,) = constraints.chord_tones(grid, Controls(chords="C F", chord_strength=1.0), first=0)
    state = made.start(1)
    (cell_61, cell_60, cell_65) = (find(grid.vocabulary, Kind.CELL, pitch) for pitch in (61, 60, 65))
    for token in (cell_61, *[cell_60] * 3):
        state = made.step(state, torch.tensor([token]))
    bias = made.allow(state)[0]
    assert bias[cell_61] == 0 == bias[cell_60] and bias[cell_65] == -1e4
    for _ in range(4 * 16):
        state = made.step(state, torch.tensor([cell_60]))
    bias = made.allow(state)[0]
    assert bias[cell_65] == 0 == bias[cell_60] and bias[cell_61] == -1e4


def test_the_penalty_leaves_rhythm_and_density_alone():
    (made,) = constraints.chord_tones(PLAIN, Controls(chords="C", chord_strength=0.75), first=0)
    state = made.start(1)
    for word in ("Bar_None", "TimeSig_4/4", "Position_0", "Program_0"):
        state = made.step(state, torch.tensor([PLAIN.midi_tokenizer[word]]))
    logits = torch.zeros(1, PLAIN.vocab_size)
    exempt = PLAIN.exempt_from_temperature(None)
    exempt = exempt if exempt is not None else PLAIN._exempt
    plain = Sampler().probabilities(logits, exempt)[0]
    leaning = Sampler().probabilities(logits, exempt, made.allow(state))[0]
    assert torch.allclose(plain[exempt], leaning[exempt], atol=1e-6)
    inside, beside = (find(PLAIN.vocabulary, Kind.NOTE_ON, pitch) for pitch in (60, 61))
    assert torch.isclose(leaning[beside], 0.25 * leaning[inside])


@pytest.mark.parametrize("name", ["performance", "TSD"])
def test_tokens_without_bars_have_no_chords(name: str):
    with pytest.raises(TokenizerError, match="no chords can be asked for"):
        constraints.chord_tones(tokenizers.create(name), Controls(chords="C"), first=0)


def test_a_form_needs_a_plan():
    with pytest.raises(TokenizerError, match="say no form"):
        constraints.planned(PLAIN, Controls(form="AABA"), first=0, num_bars=16)


def test_a_model_without_a_plan_follows_chords(tmp_path: Path):
    model = tiny("gru", PLAIN.vocab_size, **PLAIN.model_config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.1)
    file = tmp_path / "plain.safetensors"
    checkpoint.save(file, model, arch="gru", tokenizer=PLAIN, card={"data": "nothing", "figures": {}})
    config = GenerationConfig.from_options(chords="C F", chord_strength=1.0, bars=4, instruments="piano", n=2)
    for made in Composer.load(str(file)).generate(None, config, seed=3):
        lines = [bar.start for bar in islice(midi.bars(made.score), 8)]
        notes = [(n.time / made.score.ticks_per_quarter, n.pitch) for track in made.score.tracks for n in track.notes]
        for start, pitch in notes:
            bar = int(np.searchsorted(lines, start + 1e-6, "right")) - 1
            assert pitch % 12 in pitch_classes(((0, "maj"), (5, "maj"))[bar % 2])
        assert len(notes) > 4


def test_a_filled_voice_follows_chords(untrained):
    score = Score(480)
    tune = Track("Tune", 73)
    for at in range(8):
        tune.notes.append(Note(480 * at, 480, 72, 90))
    score.tracks.append(tune)
    config = GenerationConfig.from_options(accompany=True, chords="C F", chord_strength=1.0)
    (made,) = infill.fill(Composer.load(untrained("grid-infill")), score, config, seed=0)
    new = [n for track in made.score.tracks if track.name != "Tune" for n in track.notes]
    assert new and all(n.pitch % 12 in pitch_classes(((0, "maj"), (5, "maj"))[n.time // 1920]) for n in new)


def test_unconditional_music_has_no_pickup_bars_unless_they_are_asked_for():
    """Bars of 1/8 at the beginning of samples came from pickups of training pieces."""
    from musiclm.generation.constraints.limits import limits

    lengths = {
        i: 4 * SCORE.vocabulary[i].value[0] / SCORE.vocabulary[i].value[1]
        for i in ids_of(SCORE.vocabulary, Kind.TIME_SIGNATURE).tolist()
    }
    assert min(lengths.values()) == 0.5
    free = limits(SCORE, Controls(), is_unconditional=True)
    assert {i for i in lengths if free.permitted[i]} == {i for i, quarters in lengths.items() if quarters >= 1.5}
    asked = limits(SCORE, Controls(time_signature=(1, 8)), is_unconditional=True)
    assert [SCORE.vocabulary[i].value for i in lengths if asked.permitted[i]] == [(1, 8)]
    behind = limits(SCORE, Controls(), Prompt.of(SCORE, band(1, 6)).ids)
    assert {SCORE.vocabulary[i].value for i in lengths if behind.permitted[i]} == {(3, 4)}
