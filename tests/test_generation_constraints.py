"""Whatever is drawn is music that can be played, written and read again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from symusic import TextMeta

from musiclm import midi, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length, SamplerConfig
from musiclm.generation.controls import Controls

SCORE = tokenizers.create("score")
OURS = ("score", "grid")  # the others have tests of their own


def random_walk(rules: constraints.Grammar, length: int, seed: int) -> list[int]:
    """Return ids drawn evenly over the kinds that are allowed, then over the ids of that kind."""
    draw, all_kinds = np.random.default_rng(seed), np.array(SCORE.kinds)
    state, ids = rules.start(1), [SCORE.bos]
    state = rules.step(state, torch.tensor(ids))
    while len(ids) < length or SCORE.kinds[ids[-1]] != "Duration":
        allowed = np.flatnonzero(rules.allow(state)[0].numpy() == 0)
        kinds = sorted(set(all_kinds[allowed]))
        kind = kinds[draw.integers(len(kinds))]
        ids.append(int(draw.choice(allowed[all_kinds[allowed] == kind])))
        state = rules.step(state, torch.tensor(ids[-1:]))
    return ids


@pytest.mark.parametrize("seed", range(40))
def test_any_walk_through_the_grammar_decodes_whole_and_comes_back(seed: int):
    ids = random_walk(constraints.ScoreGrammar(SCORE), 200, seed)
    score = SCORE.decode(ids)
    assert score.note_num() == sum(SCORE.kinds[i] in ("Pitch", "PitchDrum") for i in ids)
    assert all(n.duration > 0 for t in score.tracks for n in t.notes)
    assert notes_alone(SCORE.encode(score)[0][:-1]) == notes_alone(ids)
    planned, _ = SCORE.encode(SCORE.decode(notes_alone(ids)))
    assert SCORE.encode(SCORE.decode(planned))[0].tolist() == planned.tolist(), "the plan is that of the notes"


def notes_alone(ids: np.ndarray | list[int]) -> list[int]:
    """Return ids without their plan, which a walk has at random."""
    return SCORE.plan.without(np.array(ids)).tolist()


def sampled_header(rules: constraints.Grammar, seed: int) -> list[int]:
    """Return the header of a random walk."""
    return (ids := random_walk(rules, 6, seed))[1 : ids.index(SCORE.kinds.index("Bar"))]


@pytest.mark.parametrize("seed", range(10))
def test_a_header_is_whole_and_the_first_bar_and_all_notes_keep_to_it(seed: int):
    ids = random_walk(constraints.ScoreGrammar(SCORE), 300, seed)
    bar = ids.index(SCORE.kinds.index("Bar"))
    kinds = [SCORE.kinds[i] for i in ids[1:bar]]
    assert kinds[:4] == ["Style", "Length", "TimeSig", "Tempo"] and {*kinds[4:]} == {"Program"}
    assert "unknown" not in {SCORE.values[i] for i in ids}
    programs = ids[5:bar]
    assert programs == SCORE.plan.in_order(np.array(programs)).tolist()
    played = {i for i in ids[bar:] if SCORE.kinds[i] == "Program"}
    assert played <= set(programs)
    body = [i for i in ids[bar:] if SCORE.kinds[i] in ("TimeSig", "Tempo")]
    assert body[0] == ids[3] and body[1] == ids[4]
    drums = SCORE.midi_tokenizer["Program_-1"]
    assert programs[0] != drums or SCORE.values[ids[1]] == "drums"


@pytest.mark.parametrize("seed", range(10))
def test_each_bar_has_its_attributes_and_repeats_only_bars_that_there_are(seed: int):
    ids = random_walk(constraints.ScoreGrammar(SCORE), 400, seed)
    bars = [n for n, i in enumerate(ids) if SCORE.kinds[i] == "Bar"]
    for number, at in enumerate(bars[:-1]):
        kinds = [SCORE.kinds[i] for i in ids[at : at + 6]]
        assert kinds == ["Bar", "TimeSig", "Section", "Repeat", "Chord", "Chord"]
        assert int(SCORE.values[ids[at + 3]]) <= number
    others = [i for n, i in enumerate(ids) if not any(at <= n < at + 6 for at in bars)][5:]
    assert not {SCORE.kinds[i] for i in others} & {"Section", "Repeat", "Chord", "Style", "Length"}


def test_controls_hold_for_the_header():
    controls = Controls(time_signature="3/4", tempo=100, instruments="violin,drums", style="lied")
    (rules,) = constraints.constraints(SCORE, controls=controls, bars=70)
    for seed in range(5):
        header = sampled_header(rules, seed)
        said = [f"{SCORE.kinds[i]}_{SCORE.values[i]}" for i in header]
        assert said[:3] == ["Style_lied", "Length_72", "TimeSig_3/4"] and abs(float(said[3][6:]) - 100) < 3
        assert set(said[4:]) <= {"Program_40", "Program_-1"} and said[4] == "Program_40"


@pytest.mark.parametrize(
    ("asked", "may_be"), [({}, False), ({"instruments": "piano,drums"}, False), ({"instruments": "drums"}, True),
                          ({"style": "drums"}, True), ({"style": "band"}, False)]
)  # fmt: skip
def test_music_from_nothing_is_of_drums_alone_only_if_they_were_asked_for(asked, may_be: bool):
    (rules,) = constraints.constraints(SCORE, controls=Controls(**asked))
    drums, style = SCORE.midi_tokenizer["Program_-1"], SCORE.plan.styles["drums"]
    headers = [sampled_header(rules, seed) for seed in range(10)]
    assert {SCORE.values[header[1]] for header in headers} == {"unknown"}
    for header in headers:
        state = rules.after(rules.beginning(), SCORE.bos)
        assert rules.allowed(state)[style] == may_be
        for i in header[:4]:
            state = rules.after(state, i)
        is_drums = header[0] == style or asked.get("instruments") == "drums"
        assert rules.allowed(state)[drums] == is_drums


def test_a_style_is_refused_where_tokens_have_none():
    with pytest.raises(TokenizerError, match="no styles"):
        constraints.constraints(tokenizers.create("score", features=2), controls=Controls(style="lied"))
    with pytest.raises(ValueError, match="no style 'jazz': one of chorale, "):
        Controls(style="jazz")


@pytest.mark.parametrize("name", ["free-game-midi", "pop909", "openscore-lieder-midi", "groove-v1.0.0-midi"])
def test_the_grammar_allows_all_real_music(real_midi, name: str):
    rules = constraints.ScoreGrammar(SCORE)
    for file, data in real_midi(name, 3):
        score = midi.parse(data, file)
        score.markers.append(TextMeta(0, "style: drums"))  # what is unknown is not sampled
        ids, _ = SCORE.encode(score)
        (place,) = rules.step(rules.start(1), torch.tensor([SCORE.bos]))
        for i in ids[1:-1]:
            assert rules.allowed(place)[i], (file, place, SCORE.kinds[i], SCORE.values[i])
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
    base = tokenizers.create("score", features=2)
    merged = base.trained_bpe([base.encode(song)[0]] * 2, 40)
    ids, _ = merged.encode(song)
    strange = merged.new_to_prompt(ids[:-1])
    programs = {base.miditok_vocabulary[i] for i in base.base_ids(range(base.vocab_size)) if base.kinds[i] == "Program"}
    heard = {base.miditok_vocabulary[i] for i in merged.base_ids(ids) if base.kinds[i] == "Program"}
    assert {
        base.miditok_vocabulary[i] for i in strange if i < base.vocab_size and base.kinds[i] == "Program"
    } == programs - heard
    assert not set(strange.tolist()) & set(ids.tolist())
