"""An ensemble plays together, and pieces of so many bars end: with models of random weights, so that only constraints do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from symusic import Note, Score, TextMeta, Track

from musiclm import midi, tokenizers
from musiclm.evaluation.harmony import best_key
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from musiclm.generation.constraints.ensemble import ENTRY, GAP, GAP_ASKED
from musiclm.generation.controls import Controls
from musiclm.generation.prompt import Prompt

SCORE, PLAIN = tokenizers.create("score"), tokenizers.create("score", features=2)
DRUMS = -1
QUINTET = (0, 24, 40, 42, DRUMS)


def band(bars: int, *programs: int, style: str | None = None) -> Score:
    """Return bars of 4/4 with four notes each of some programs."""
    score = Score(480)
    if style is not None:
        score.markers.append(TextMeta(0, f"style: {style}"))
    for program in programs:
        track = Track("", max(program, 0), program == DRUMS)
        for i in range(4 * bars):
            track.notes.append(Note(480 * i, 480, 40 + (7 * i + program) % 24, 80))
        score.tracks.append(track)
    return score


def sampled(rule: constraints.Grammar, tokenizer, bars: int, seed: int, given: Sequence[int] = ()) -> list[int]:
    """Return ids of so many bars behind given ones, each sampled evenly of those that are allowed.

    A bar is twenty times as likely, so that bars are short and nothing comes by itself.
    """
    draw, bar = np.random.default_rng(seed), tokenizer.kinds.index("Bar")
    state, ids = rule.beginning(), list(given) or [tokenizer.bos]
    for i in ids:
        state = rule.after(state, i)
    left = bars
    while True:
        allowed = np.flatnonzero(rule.allowed(state))
        weights = np.where(allowed == bar, 20.0, 1.0)
        i = int(draw.choice(allowed, p=weights / weights.sum()))
        left -= i == bar
        if left < 0:
            return ids
        ids.append(i)
        state = rule.after(state, i)


def playing(tokenizer, ids: Sequence[int]) -> list[set[int]]:
    """Return the programs that begin notes in each bar."""
    found: list[set[int]] = []
    program = 0
    for i in ids:
        kind, value = tokenizer.kinds[i], tokenizer.values[i]
        if kind == "Bar":
            found.append(set())
        elif kind == "Program":
            program = int(value)
        elif kind in ("Pitch", "PitchDrum"):
            found[-1].add(program)
    return found


def longest_silence(bars: Sequence[set[int]], programs: Sequence[int]) -> int:
    """Return for how many whole bars none of some programs plays, at most, from where one first has."""
    plays = [bool(bar & set(programs)) for bar in bars]
    first = plays.index(True)
    return max(map(len, "".join("x" if p else "." for p in plays[first:]).split("x")))


@pytest.mark.parametrize("tokenizer", [SCORE, PLAIN], ids=["planned", "plain"])
@pytest.mark.parametrize("seed", range(4))
def test_all_that_were_asked_for_enter_within_four_bars_and_go_on(tokenizer, seed: int):
    controls = Controls(instruments=QUINTET)
    (rule,) = constraints.constraints(tokenizer, controls=controls, ensemble=True)
    ids = sampled(rule, tokenizer, 40, seed)
    bars = playing(tokenizer, ids)
    assert set().union(*bars[:ENTRY]) == set().union(*bars) == set(QUINTET)
    for program in QUINTET:
        assert longest_silence(bars, [program]) <= GAP_ASKED + 1
    plain = tokenizer.plan.without(np.array(ids)) if tokenizer.plan else np.array(ids)
    again, _ = tokenizer.encode(tokenizer.decode(ids))
    assert (tokenizer.plan.without(again) if tokenizer.plan else again)[: len(plain)].tolist()[:-20] == plain.tolist()[
        :-20
    ]


def test_without_the_ensemble_they_do_not():
    (rule,) = constraints.constraints(SCORE, controls=Controls(instruments=QUINTET, ensemble="none"), ensemble=True)
    missing = 0
    for seed in range(4):
        bars = playing(SCORE, sampled(rule, SCORE, 12, seed))
        missing += set().union(*bars[:ENTRY]) != set(QUINTET)
    assert missing


@pytest.mark.parametrize("seed", range(3))
def test_of_a_family_one_is_enough(seed: int):
    controls = Controls(instruments="strings, flute")
    assert controls.ensemble == (tuple(range(40, 48)), (73,)) and controls.instruments == (*range(40, 48), 73)
    for tokenizer in (SCORE, PLAIN):
        (rule,) = constraints.constraints(tokenizer, controls=controls, ensemble=True)
        bars = playing(tokenizer, sampled(rule, tokenizer, 20, seed))
        assert 73 in set().union(*bars[:ENTRY]) and set(range(40, 48)) & set().union(*bars[:ENTRY])
        assert longest_silence(bars, range(40, 48)) <= GAP_ASKED + 1
        assert set().union(*bars) <= {*range(40, 48), 73}


@pytest.mark.parametrize("seed", range(4))
def test_whom_the_header_names_enters_and_goes_on_and_nobody_else_plays(seed: int):
    (rule,) = constraints.constraints(SCORE, controls=Controls(ensemble="auto"), ensemble=True)
    ids = sampled(rule, SCORE, 30, seed)
    programs = {int(SCORE.values[i]) for i in ids[5 : ids.index(SCORE.kinds.index("Bar"))]}
    bars = playing(SCORE, ids)
    assert set().union(*bars[:ENTRY]) == set().union(*bars) == programs
    assert max(longest_silence(bars, [program]) for program in programs) <= GAP + 1


@pytest.mark.parametrize("tokenizer", [SCORE, PLAIN], ids=["planned", "plain"])
def test_a_continuation_keeps_who_played_last(tokenizer):
    """The flute stops nine bars before the prompt ends: it may come back, but need not."""
    score = band(12, 0, 40, 42)
    flute = Track("", 73)
    flute.notes.append(Note(0, 480, 70, 80))
    score.tracks.append(flute)
    prompt = Prompt.of(tokenizer, score).with_controls(Controls(), new_bars=20)
    controls = Controls(ensemble="auto")
    (rule,) = constraints.constraints(tokenizer, prompt_ids=prompt.ids, controls=controls, ensemble=True)
    ids = sampled(rule, tokenizer, 20, 1, prompt.ids.tolist())
    bars = playing(tokenizer, ids)[12:]
    assert set().union(*bars) <= {0, 40, 42, 73}
    assert set().union(*bars[:ENTRY]) >= {0, 40, 42}
    assert max(longest_silence(bars, [program]) for program in (0, 40, 42)) <= GAP + 1


@pytest.mark.parametrize("asked", [
    {"max_polyphony": 1}, {"max_polyphony": 2, "key": "C major"}, {"pitch_range": "60-62", "time_signature": "1/8"},
    {"key": "d minor", "tempo": 70},
], ids=str)  # fmt: skip
def test_there_is_always_a_way_on_and_all_have_their_turn(asked):
    """Few voices share the time: a note of eight bars leaves no room for another, but the next bar tries again."""
    controls = Controls(instruments=QUINTET, **asked)
    for tokenizer in (SCORE, PLAIN):
        (rule,) = constraints.constraints(tokenizer, controls=controls, ensemble=True)
        assert set().union(*playing(tokenizer, sampled(rule, tokenizer, 60, 2))) == set(QUINTET)


def test_merged_ids_are_kept_to_it():
    merged = PLAIN.trained_bpe([PLAIN.encode(band(8, 0, 40, 42))[0]] * 4, 60)
    controls = Controls(instruments=(0, 40, 42))
    (rule,) = constraints.constraints(merged, controls=controls, ensemble=True)
    draw = np.random.default_rng(0)
    state, ids = rule.after(rule.beginning(), merged.bos), [merged.bos]
    while len(playing(PLAIN, merged.base_ids(ids))) < 12:
        ids.append(int(draw.choice(np.flatnonzero(rule.allowed(state)))))
        state = rule.after(state, ids[-1])
    bars = playing(PLAIN, merged.base_ids(ids))
    assert max(map(int, ids)) >= PLAIN.vocab_size
    assert set().union(*bars[:ENTRY]) == {0, 40, 42}


def composer(untrained, name: str = "score") -> Composer:
    return Composer.load(untrained(name))


def generate(untrained, prompt: Score | None = None, *, seed: int = 0, **options):
    return composer(untrained).generate(prompt, GenerationConfig.from_options(**options), seed=seed)


@pytest.mark.parametrize("bars", [1, 3, 5])
def test_bars_are_exactly_as_many_and_the_last_is_not_empty(untrained, bars: int):
    made = generate(untrained, bars=bars, n=7, time_signature="3/4", loop_guard=False)
    for each in made:
        assert each.ended in ("piece", "length") and each.num_bars == bars
        starts = [n for n, i in enumerate(each.ids) if SCORE.kinds[i] == "Bar"]
        assert len(starts) >= bars and (each.ended == "length" or len(starts) == bars)
        assert SCORE.values[each.ids[1]] == str(bars)
        assert 3.0 * (bars - 1) < midi.end(each.score) <= 3.0 * bars + 1e-6
        assert any(SCORE.kinds[i] in ("Pitch", "PitchDrum") for i in each.ids[starts[bars - 1] :])


def test_the_last_bar_is_the_tonic_of_the_notes_before_it(untrained):
    num_keys = 0
    for each in generate(untrained, bars=4, n=6, key="Eb major", loop_guard=False):
        starts = [n for n, i in enumerate(each.ids) if SCORE.kinds[i] == "Bar"]
        weights = np.zeros(12)
        for n, i in enumerate(each.ids[: starts[3]]):
            if SCORE.kinds[i] == "Pitch":
                beats = SCORE.vocabulary[each.ids[n + 2]].value
                weights[int(SCORE.values[i]) % 12] += min(48, round(12 * beats))
        if not weights.any():  # rests alone have no key
            continue
        num_keys += 1
        key = best_key(weights)
        tonic = f"{key % 12}:{'min' if key >= 12 else 'maj'}"
        assert [SCORE.values[i] for i in each.ids[starts[3] + 4 : starts[3] + 6]] == [tonic] * 2
    assert num_keys > 3


def test_no_finish_cuts_and_the_header_still_says_the_length(untrained):
    for each in generate(untrained, bars=3, n=4, finish=False, loop_guard=False):
        assert each.ended == "length" and midi.num_bars(each.score) <= 3
        assert SCORE.values[each.ids[1]] == "3" and SCORE.eos not in each.ids


def test_a_stream_and_other_lengths_have_no_known_length(untrained):
    streamer = composer(untrained)
    stream = streamer.stream(None, GenerationConfig.from_options(bars=2), seed=1)
    assert list(stream) and stream.continuation.reason == "length"
    assert SCORE.values[stream.continuation.ids[1]] == "unknown"
    for length in ({"tokens": 60}, {"seconds": 5.0}):
        (each,) = generate(untrained, **length)
        assert each.ended == "length" and SCORE.values[each.ids[1]] == "unknown"


def test_a_prompt_has_the_header_of_the_piece_that_it_becomes():
    def header(new_bars: int | None, score: Score, **asked) -> list[str]:
        ids = Prompt.of(SCORE, score).with_controls(Controls(**asked), new_bars).ids
        assert Prompt.of(SCORE, score).ids[0] == ids[0] == SCORE.bos
        return [f"{SCORE.kinds[i]}_{SCORE.values[i]}" for i in ids[1 : 1 + SCORE.header_size(ids[1:])]]

    plain = band(4, 0, DRUMS)
    assert header(8, plain) == ["Style_unknown", "Length_12", "TimeSig_4/4", "Tempo_119.33", "Program_0", "Program_-1"]
    assert header(None, plain, style="band")[:2] == ["Style_band", "Length_unknown"]
    assert header(70, band(4, 0, style="lied"))[:2] == ["Style_lied", "Length_80"]
    assert header(8, band(4, 0, style="lied"), style="hymn")[0] == "Style_hymn"
    joined = ["Program_0", "Program_40", "Program_73", "Program_-1"]
    assert header(8, plain, instruments="strings,flute,piano")[4:] == joined
    assert header(8, plain, instruments="40,41", ensemble="none")[4:] == [
        "Program_0",
        "Program_40",
        "Program_41",
        "Program_-1",
    ]


def test_a_prompt_with_another_header_is_the_same_music_and_its_open_bar_is_left_to_the_model():
    prompt = Prompt.of(SCORE, band(4, 0, 40))
    changed = prompt.with_controls(Controls(style="band"), 4)
    assert sum(SCORE.kinds[i] == "Bar" for i in changed.ids) == 4 and changed.quarters == prompt.quarters == 16.0
    assert changed.with_controls(Controls(style="band"), 4).ids.tolist() == changed.ids.tolist()
    assert SCORE.plan.without(changed.ids).tolist() == SCORE.plan.without(SCORE.encode(band(4, 0, 40))[0][:-1]).tolist()


def test_a_continuation_is_of_the_asked_instruments_and_its_new_bars_are_counted(untrained):
    options = {"bars": 6, "instruments": "violin,cello", "only_new": True, "loop_guard": False}
    (each,) = generate(untrained, band(4, 0, 40), **options)
    assert {t.program for t in each.score.tracks if len(t.notes)} == {40, 42}
    assert each.ended == "length"


def test_drums_that_are_kept_out_stay_in_the_header(untrained, monkeypatch):
    """Where drums have been alone too often, a pitched note comes first; the drums of the header may play after it."""
    from musiclm.generation import loop_guard

    monkeypatch.setattr(loop_guard, "DRUM_TRIES", 0)
    header = [SCORE.plan.styles["band"], SCORE.plan.lengths[8], *ids_of_header("4/4", 120.0, (0, DRUMS))]
    drum = [SCORE.kinds.index("PitchDrum"), SCORE.kinds.index("Velocity"), SCORE.kinds.index("Duration")]
    ids = np.array([*header, *bar_of_drums(drum)])
    guard = loop_guard.LoopGuard(Prompt.of(SCORE, None), {"drums"}, live=False)
    kept = guard.check(ids, 16.0)
    assert kept is not None and kept.tolist() == header and guard.awaits_pitch(kept)


def ids_of_header(signature: str, tempo: float, programs: Sequence[int]) -> list[int]:
    known = {f"{k}_{v}": i for i, (k, v) in enumerate(zip(SCORE.kinds, SCORE.values, strict=True))}
    tempi = [i for i, k in enumerate(SCORE.kinds) if k == "Tempo"]
    nearest = min(tempi, key=lambda i: abs(float(SCORE.values[i]) - tempo))
    return [known[f"TimeSig_{signature}"], nearest, *(known[f"Program_{p}"] for p in programs)]


def bar_of_drums(drum: Sequence[int]) -> list[int]:
    signature, tempo, _, drums = ids_of_header("4/4", 120.0, (0, DRUMS))
    attributes = [SCORE.plan.sections["A"], SCORE.plan.repeats[0], *[SCORE.plan.chords[(-1, "none")]] * 2]
    return [SCORE.kinds.index("Bar"), signature, *attributes, SCORE.kinds.index("Position"), tempo, drums, *drum]


def test_all_tokens_of_the_plan_keep_their_probability_at_any_temperature():
    exempt = SCORE.exempt_from_temperature(None)
    planned = [i for i, k in enumerate(SCORE.kinds) if k in ("Style", "Length", "Section", "Repeat", "Chord")]
    assert len(planned) > 200 and torch.all(exempt[planned])


@pytest.mark.parametrize(
    ("style", "allowed"),
    [("chorale", {52}), ("hymn", {0, 52}), ("piano", {0, 2}), ("drums", {DRUMS}), ("pop-piano", {0, 52})],
)
def test_a_style_of_few_instruments_has_no_others(untrained, style: str, allowed: set[int]):
    """`--style drums` had brought no drums, and `--style piano` a choir: the style was a token of the header alone."""
    config = GenerationConfig(length=Length(bars=2), controls=Controls(style=style))
    (made,) = composer(untrained).generate(None, config, seed=4)
    assert {DRUMS if t.is_drum else t.program for t in made.score.tracks if len(t.notes)} <= allowed


@pytest.mark.parametrize(
    ("style", "sections"),
    [
        ("band", [{DRUMS}, set(range(32, 40)), {*range(8), *range(16, 32)}]),
        ("orchestra", [{40, 48, 49}, {41, 42, 43}, set(range(64, 80)), set(range(56, 64))]),
    ],
)
def test_a_band_and_an_orchestra_have_all_their_sections(untrained, style: str, sections: list[set[int]]):
    config = GenerationConfig(length=Length(bars=ENTRY + 1), controls=Controls(style=style))
    (made,) = composer(untrained).generate(None, config, seed=4)
    played = {DRUMS if t.is_drum else t.program for t in made.score.tracks if len(t.notes)}
    assert all(played & section for section in sections)


def test_instruments_that_are_asked_for_win_over_those_of_the_style(untrained):
    model = composer(untrained)
    for prompt, controls in (
        (None, Controls(style="chorale", instruments="violin")),
        (band(2, 40), Controls(style="chorale")),
    ):
        (made,) = model.generate(
            prompt, GenerationConfig(length=Length(bars=2), only_new=True, controls=controls), seed=4
        )
        assert {t.program for t in made.score.tracks if len(t.notes)} != {52}
    resolved = model.completed(GenerationConfig(length=Length(bars=2), controls=Controls(style="chorale"))).controls
    assert resolved.instruments == (52,)  # goes into the record
