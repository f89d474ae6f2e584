"""What is asked of new music: how it is read, that it is kept to, and what is said where it cannot be."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from musiclm.cli import main

from musiclm import checkpoint, midi, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length, SamplerConfig
from musiclm.generation.controls import Controls
from musiclm.midi.theory import MODES, programs
from tests.data_files import benchmark

validity = benchmark("validity")
SCORE = tokenizers.create("score")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("piano", range(8)),
        ("Strings", range(40, 48)),
        ("violin", [40]),
        ("Electric Bass", [33, 34]),
        ("flute", [73]),
        ("drums", [-1]),
        ("0, 33,drums", [-1, 0, 33]),
        (["bass", 0], [0, *range(32, 40)]),
        (7, [7]),
    ],
    ids=str,
)
def test_instruments_are_families_names_numbers_and_drums(said, meant):
    assert programs(said) == tuple(meant)


@pytest.mark.parametrize(
    ("said", "name", "classes"),
    [
        ("C major", "C major", {0, 2, 4, 5, 7, 9, 11}),
        ("a minor", "A minor", {0, 2, 4, 5, 7, 9, 11}),
        ("Bbm", "Bb minor", {10, 0, 1, 3, 5, 6, 8}),
        ("b minor", "B minor", {11, 1, 2, 4, 6, 7, 9}),
        ("f# dorian", "F# dorian", {6, 8, 9, 11, 1, 3, 4}),
        ("e-flat harmonic minor", "Eb harmonic minor", {3, 5, 6, 8, 10, 11, 2}),
    ],
)
def test_keys_are_read_as_musicians_write_them(said, name, classes):
    controls = Controls(key=said)
    assert controls.key == name
    assert {p % 12 for p in controls.pitches} == classes
    assert controls.outside_key == set(range(128)) - controls.pitches


def test_ranges_count_c4_as_60():
    assert Controls(pitch_range="C3-C6").pitch_range == Controls(pitch_range=(48, 84)).pitch_range == (48, 84)
    assert Controls(pitch_range="C-1-G9").pitch_range == (0, 127)
    assert Controls(pitch_range="f#4-Bb4").pitch_range == (66, 70)


@pytest.mark.parametrize(
    "wrong",
    [
        {"instruments": "banana"},
        {"instruments": "128"},
        {"instruments": ""},
        {"instruments": []},
        {"tempo": 0},
        {"tempo": float("nan")},
        {"time_signature": "3"},
        {"time_signature": "3/5"},
        {"key": "C"},
        {"key": "H major"},
        {"key": "C major", "key_strength": 1.5},
        {"pitch_range": "60"},
        {"pitch_range": "C6-C3"},
        {"pitch_range": "0-200"},
        {"max_polyphony": 0},
        {"key": "C major", "pitch_range": "61-61"},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_a_value_error(wrong):
    with pytest.raises(ValueError):
        Controls(**wrong)


def test_controls_come_back_from_their_description():
    controls = Controls(
        instruments="piano,drums", tempo=97.3, time_signature="6/8", key="am", key_strength=0.5, pitch_range="C3-C6",
        max_polyphony=3,
    )  # fmt: skip
    assert Controls(**json.loads(json.dumps(controls.to_dict()))) == controls
    assert Controls().to_dict() == {}


def some_controls(draw: random.Random) -> Controls:
    """Return a few controls, tight ones among them."""
    said = {
        "instruments": draw.choice(["piano", "violin", "drums", "drums,bass", "5,70"]),
        "tempo": draw.choice([33.0, 120.0, 290.0]),
        "time_signature": draw.choice(["3/4", "2/2", "15/16", "1/4"]),
        "key": f"{draw.choice('CDEFGAB')} {draw.choice(list(MODES))}",
        "pitch_range": draw.choice(["0-127", "60-71", "21-32", "90-108"]),
        "max_polyphony": draw.choice([1, 2, 4]),
    }
    return Controls(**{name: said[name] for name in draw.sample(list(said), draw.randrange(1, 6))})


@pytest.mark.parametrize("name", ["score", "performance", "grid", "score+bpe", "TSD", "MIDILike", "Structured"])
def test_there_is_always_a_way_on(name):
    """Where the tokenizer takes them, no combination of controls leaves a row without any token, prompt or not."""
    tokenizer = validity.tokenizer_called(name)
    draw, tried = random.Random(0), 0
    heard, _ = tokenizer.encode(validity.song(1))
    for seed in range(40):
        prompt = heard[: 1 + draw.randrange(len(heard) - 1)] if seed % 2 else np.array([tokenizer.bos])
        not_before = tokenizer.quarters(prompt) + draw.choice([0.0, 0.3, 3.0]) if seed % 2 else 0.0
        try:
            rules = constraints.constraints(
                tokenizer, not_before=not_before, prompt_ids=prompt if seed % 2 else None, controls=some_controls(draw)
            )
        except TokenizerError:
            continue
        tried += 1
        place = rules[0].beginning()
        for i in prompt.tolist():
            place = rules[0].after(place, i)
        kinds = np.array(getattr(tokenizer, "kinds", ["" for _ in range(tokenizer.vocab_size)]))
        for _ in range(60):
            allowed = np.flatnonzero(rules[0].allowed(place))
            assert len(allowed), place
            if seed % 3 and len(kinds) == tokenizer.vocab_size:  # evenly over kinds, so that all of them come
                allowed = allowed[kinds[allowed] == draw.choice(sorted(set(kinds[allowed])))]
            place = rules[0].after(place, draw.choice(allowed.tolist()))
    assert tried >= 8


def test_a_prompt_that_stops_within_a_note_still_has_a_way_on():
    """Where the prompt ends is the user's choice; what it began has to be ended."""
    tokenizer = tokenizers.create("score")
    ids, _ = tokenizer.encode(validity.song(1))
    for stop in range(1, 60):
        rule = constraints.constraints(
            tokenizer, prompt_ids=ids[:stop], controls=Controls(instruments="violin", max_polyphony=1)
        )[0]
        place = rule.beginning()
        for i in ids[:stop].tolist():
            place = rule.after(place, i)
        assert rule.allowed(place).any()


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("grid", [{"instruments": "piano"}, {"time_signature": "3/4"}]),
        ("performance", [{"instruments": "violin"}, {"tempo": 90}, {"time_signature": "3/4"}, {"pitch_range": "0-20"}]),
        ("score", [{"time_signature": "17/4"}]),
        ("Structured", [{"time_signature": "3/4"}]),
        ("BEAT", [{"instruments": "piano"}, {"max_polyphony": 2}, {"time_signature": "3/4"}]),
        ("MMM", [{"key": "C major"}, {"max_polyphony": 2}]),
        ("PerTok", [{"pitch_range": "C3-C5"}]),
    ],
)
def test_what_a_tokenizer_cannot_express_is_refused_with_a_reason(name, refused):
    for said in refused:
        with pytest.raises(TokenizerError, match=name) as told:
            constraints.constraints(tokenizers.create(name), controls=Controls(**said))
        assert "\n" not in str(told.value)


def test_a_metre_without_bars_cannot_change_behind_a_prompt(song):
    tokenizer = tokenizers.create("TSD")
    heard, _ = tokenizer.encode(song)
    assert constraints.constraints(tokenizer, prompt_ids=heard, controls=Controls(time_signature="3/4"))
    with pytest.raises(TokenizerError, match="no bars"):
        constraints.constraints(tokenizer, prompt_ids=heard, controls=Controls(time_signature="4/4"))


@pytest.mark.parametrize("name", ["bach-gru", "score-transformer"])
def test_bundled_models_keep_to_what_is_asked(name, song):
    if name not in checkpoint.bundled():
        pytest.skip(f"{name} is not bundled any more")
    composer = Composer.load(name)
    said = {"key": "D minor", "pitch_range": "C3-C5", "max_polyphony": 2, "tempo": 71.5}
    if composer.tokenizer.name == "score":
        said |= {"instruments": "organ,violin", "time_signature": "4/4"}
    controls = Controls(**said)
    for prompt in (None, song):
        heard = composer.prompt(prompt, bars=2 if prompt else None)
        (composed,) = composer.generate(
            heard,
            GenerationConfig(length=Length(bars=2), controls=controls, sampler=SamplerConfig(temperature=1.3)),
            seed=1,
        )
        score = midi.parse(midi.to_bytes(composed.score), "composed")
        assert validity.violations(score, controls, heard.quarters) == []
        assert midi.without_before(score, heard.quarters).note_num() > 0


def test_the_file_has_the_tempo_asked_for_and_the_model_hears_its_nearest(untrained, song):
    composer = Composer.load(untrained("score"))
    controls = Controls(tempo=97.3)
    (alone,) = composer.generate(None, GenerationConfig(length=Length(bars=2), controls=controls), seed=1)
    assert [(t.time, t.mspq) for t in alone.score.tempos] == [(0, round(60e6 / 97.3))]
    prompt = composer.prompt(song, bars=2)
    (longer,) = composer.generate(prompt, GenerationConfig(length=Length(bars=2), controls=controls), seed=1)
    assert [(t.time, round(t.qpm, 2)) for t in longer.score.tempos] == [(0, 90.0), (6 * 480, 97.3)]
    (new,) = composer.generate(
        prompt, GenerationConfig(length=Length(bars=2), controls=controls, only_new=True), seed=1
    )
    assert [(t.time, round(t.qpm, 2)) for t in new.score.tempos] == [(0, 97.3)]
    rule = constraints.constraints(SCORE, prompt_ids=prompt.ids, controls=controls)[0]
    permitted = {SCORE.miditok_vocabulary[i] for i in rule._tempi}
    assert permitted == {min((f"Tempo_{t}" for t in SCORE.tempi), key=lambda t: abs(float(t[6:]) - 97.3))}


def test_seconds_are_counted_at_the_tempo_asked_for(untrained):
    composer = Composer.load(untrained("grid"))
    (composed,) = composer.generate(
        None, GenerationConfig(length=Length(seconds=6), controls=Controls(tempo=40)), seed=1
    )
    assert midi.end(composed.score) == pytest.approx(4, abs=0.26)


def test_a_metre_asked_for_begins_at_the_next_bar_line(untrained, song):
    composer = Composer.load(untrained("score"))
    prompt = composer.prompt(song, seconds=1.4)  # within the first bar of 3/4
    controls = Controls(time_signature="7/8", instruments="violin")
    (composed,) = composer.generate(
        prompt,
        GenerationConfig(length=Length(bars=2), controls=controls, sampler=SamplerConfig(temperature=2.0)),
        seed=3,
    )
    signs = [(t.time / 480, t.numerator, t.denominator) for t in composed.score.time_signatures]
    assert signs == [(0, 3, 4), (3, 7, 8)]
    new = {t.program for t in midi.without_before(composed.score, prompt.quarters).tracks if t.notes}
    assert new <= {40}


@pytest.mark.slow
def test_a_leaning_key_is_kept_the_more_the_stronger_it_is(untrained):
    composer = Composer.load(untrained("performance"))

    def outside(strength: float) -> float:
        composed = composer.generate(
            None,
            GenerationConfig(length=Length(tokens=300), controls=Controls(key="C major", key_strength=strength), n=4),
            seed=1,
        )
        pitches = [n.pitch % 12 for c in composed for t in c.score.tracks for n in t.notes]
        return sum(p not in MODES["major"] for p in pitches) / len(pitches)

    assert outside(0.0) > 0.3 > outside(0.8) > 0.0 == outside(1.0)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", *arguments])
    return stopped.value.code, *capsys.readouterr()


def test_the_command_line_takes_them_and_tells_them_in_the_file(capsys, tmp_path, monkeypatch, song_file):
    monkeypatch.chdir(tmp_path)
    options = ["--instruments", "piano,drums", "--tempo", "101", "--key", "d minor", "--pitch-range", "C2-C5"]
    code, _, err = run(
        capsys, *options, "--max-polyphony", "3", "--time-signature", "3/4", "--prompt", str(song_file), "--bars", "2",
        "--seed", "1", "-o", "out.mid",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(midi.read("out.mid").markers[0].text)["options"]
    assert told["key"] == "D minor" and told["tempo"] == 101 and told["max_polyphony"] == 3
    names = Controls.__dataclass_fields__.keys() & told.keys()
    controls = Controls(**{name: told[name] for name in names})
    assert validity.violations(midi.read("out.mid"), controls, 24.0) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--key", "H major"], 2),
        (["--instruments", "banana"], 2),
        (["--pitch-range", "C6-C3"], 2),
        (["--time-signature", "3"], 2),
        (["--tempo", "0"], 2),
        (["--max-polyphony", "0"], 2),
        (["--key-strength", "0.5"], 2),
        (["--key", "C major", "--pitch-range", "61-61"], 2),
        (["--model", "bach", "--instruments", "piano"], 1),
        (["--model", "bach", "--time-signature", "3/4"], 1),
    ],
    ids=str,
)
def test_wrong_values_exit_with_2_and_what_cannot_be_expressed_with_1(capsys, tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *options, "-o", "out.mid")
    assert found == code
    assert out == ""
    assert err.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "out.mid").exists()
