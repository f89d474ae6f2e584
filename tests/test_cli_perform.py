"""musiclm perform: the same notes, seeds, strength, bad input, and performers that are there or not."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from symusic import ControlChange, KeySignature, Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.performing.model import DRUMS, PIANO
from tests.test_performing import performer, pitches, song

SECOND = 2 * 960  # ticks of a performance


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Files of tiny performers, by kind."""
    folder = tmp_path_factory.mktemp("performers")
    found = {kind: folder / f"performer-{kind}.safetensors" for kind in (PIANO, DRUMS)}
    for kind, path in found.items():
        mine = performer(kind)
        mine.card = {"data": "made up", "licence": "CC BY-NC-SA 4.0", "figures": {"test_velocity_r": 0.5}}
        mine.save(path)
    return found


@pytest.fixture
def models(files: dict[str, Path]) -> list[str]:
    return ["--model", str(files[PIANO]), "--model", str(files[DRUMS])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    midi.write(song(12, drums=True), tmp_path / "score.mid")
    return tmp_path / "score.mid"


def written(score: Score, tmp_path: Path, name: str = "score.mid") -> Path:
    midi.write(score, tmp_path / name)
    return tmp_path / name


def test_a_performance_is_written_and_says_its_seed(run, path: Path, models):
    code, out, err = run("perform", path, *models, "--seed", 7, "-o", "played.mid")
    assert (code, out) == (0, "played.mid\n"), err
    assert "seed 7" in err
    played = midi.read("played.mid")
    assert pitches(played) == pitches(midi.read(str(path)))
    record = next(m.text for m in played.markers if m.text.startswith("performed by musiclm"))
    assert json.loads(record.partition(": ")[2])["seed"] == 7
    code, _, err = run("repro", "played.mid")
    assert code == 1 and "no record" in err  # a performance is no generated file


def test_the_same_seed_gives_the_same_bytes_on_standard_output_too(run, path: Path, models):
    for name, seed in (("a.mid", 3), ("c.mid", 4)):
        assert run("perform", path, *models, "--seed", seed, "-o", name)[0] == 0
    command = [sys.executable, "-m", "musiclm", "perform", "-", *models, "--seed", "3", "-o", "-"]
    done = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=True)
    assert done.stdout == Path("a.mid").read_bytes() != Path("c.mid").read_bytes()


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), strength=st.sampled_from([0, 0.5, 1, 2]), which=st.integers(0, 20), drums=st.booleans())
def test_exactly_the_scores_notes_come_out_of_the_command(run, tmp_path, models, seed, strength, which, drums):
    score = song(10, drums=drums, seed=which)
    path = tmp_path / "score.mid"
    path.write_bytes(midi.to_bytes(score))
    options = ("--seed", seed, "--strength", strength, "--force", "-o", tmp_path / "played.mid")
    code, _, err = run("perform", path, *models[: 2 + 2 * drums], *options)
    assert code == 0, err
    played = midi.read(tmp_path / "played.mid")
    assert pitches(played) == pitches(score)
    for track, before in zip(played.tracks, score.tracks, strict=True):
        for pitch in {note.pitch for note in before.notes}:
            mine = sorted((n.time, n.end) for n in track.notes if n.pitch == pitch)
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(mine))  # none overlaps


def test_a_strength_of_0_leaves_times_and_velocities_as_they_are_written(run, tmp_path, models):
    score = song(16)
    score.tempos.append(Tempo(480 * 3, 50.0))  # within a bar
    rng = np.random.default_rng(0)
    for note in score.tracks[0].notes:
        note.velocity = int(rng.integers(20, 110))
    code, _, err = run("perform", written(score, tmp_path), *models[:2], "--strength", 0, "--seed", 1, "-o", "0.mid")
    assert code == 0, err
    before, after = score.to("second"), midi.read("0.mid").to("second")
    for one, other in zip(before.tracks, after.tracks, strict=True):
        mine, theirs = (sorted((n.pitch, n.time, n.end, n.velocity) for n in t.notes) for t in (one, other))
        np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=2e-3)


def test_velocity_only_changes_no_time(run, path: Path, models):
    assert run("perform", path, *models, "--velocity-only", "--seed", 1, "-o", "v.mid")[0] == 0
    for one, other in zip(midi.read(str(path)).tracks, midi.read("v.mid").tracks, strict=True):
        assert sorted((n.time, n.end, n.pitch) for n in one.notes) == sorted(
            (n.time, n.end, n.pitch) for n in other.notes
        )


def test_a_tempo_is_the_mean_of_the_performance(run, path: Path, models):
    for tempo in (60, 120):
        assert run("perform", path, *models, "--tempo", tempo, "--mean", "-o", f"{tempo}.mid")[0] == 0
    lengths = [max(n.time for n in midi.read(f"{tempo}.mid").tracks[1].notes) for tempo in (60, 120)]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.01)


def test_keyboard_and_drums_are_treated_by_what_they_are_and_others_follow(run, path: Path, models):
    assert run("perform", path, *models, "--seed", 1, "-o", "p.mid")[0] == 0
    before, played = midi.read(str(path)), midi.read("p.mid")
    spread = [len({n.velocity for n in track.notes}) for track in played.tracks]
    assert spread[0] > 3 and spread[2] > 3 and spread[1] == 1  # the flute keeps its velocity, and follows
    assert np.std(np.diff(sorted({n.time for n in played.tracks[1].notes}))) > 2
    assert [(t.name, t.program, t.is_drum) for t in played.tracks] == [
        (t.name, t.program, t.is_drum) for t in before.tracks
    ]


def test_what_a_score_says_beside_its_notes_is_kept_in_time(run, tmp_path, models):
    score = song(16)
    score.time_signatures.append(TimeSignature(0, 3, 4))
    score.key_signatures.append(KeySignature(480 * 3, 1, 0))
    score.tracks[1].controls.append(ControlChange(480 * 4, 7, 90))
    assert run("perform", written(score, tmp_path), *models[:2], "--seed", 1, "-o", "p.mid")[0] == 0
    played = midi.read("p.mid")
    volume = next(c for c in played.tracks[1].controls if c.number == 7)
    onset = sorted({n.time for n in played.tracks[1].notes})[8]
    assert volume.value == 90 and volume.time == pytest.approx(onset, abs=2)
    assert played.time_signatures[0].numerator == 3 and played.key_signatures[0].time > 0


def test_without_the_piano_performer_one_line_says_how_to_install_it(run, tmp_path, files):
    code, _, err = run("perform", written(song(8), tmp_path), "--seed", 1)
    assert code == 1 and err.count("\n") == 1
    assert "musiclm models install" in err and "performer-piano" in err


def test_drums_are_performed_while_the_keyboard_stays_where_its_performer_is_not_installed(run, path: Path, files):
    code, _, err = run("perform", path, "--model", files[DRUMS], "--seed", 1, "-o", "p.mid")
    assert code == 0 and "keyboard stays as it is" in err and "musiclm models install" in err
    before, played = midi.read(str(path)).to("second"), midi.read("p.mid").to("second")
    assert {n.velocity for n in played.tracks[0].notes} == {70}
    for one, other in zip(before.tracks[:2], played.tracks[:2], strict=True):
        mine, theirs = (sorted((n.pitch, n.time, n.end) for n in t.notes) for t in (one, other))
        np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=2e-3)
    assert len({n.velocity for n in played.tracks[2].notes}) > 3


def test_an_installed_performer_is_found_listed_used_and_removed(run, tmp_path, files, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    code, out, err = run("models", "install", files[PIANO])
    assert code == 0 and "not for commercial use" in err and "musiclm perform score.mid" in err
    assert Path(out.strip()) == tmp_path / "mine" / "performer-piano.safetensors"
    listed = {each["name"]: each for each in json.loads(run("models", "--json")[1])}
    assert listed["performer-piano"]["installed"] and listed["performer-piano"]["tokenizer"] is None
    assert "performer-piano" in run("models")[1]
    code, _, err = run("perform", written(song(8), tmp_path), "--seed", 1, "-o", "p.mid")
    assert code == 0 and "performer-piano" in err
    code, _, err = run("models", "install", files[PIANO])
    assert code == 1 and "--force" in err
    assert run("models", "install", files[PIANO], "--name", "mine")[0] == 0
    assert run("perform", "score.mid", "--model", "mine", "--seed", 1, "-o", "q.mid")[0] == 0
    for name in ("performer-piano", "performer-mine"):
        assert run("models", "remove", name)[0] == 0
    assert not list((tmp_path / "mine").iterdir())


def test_a_damaged_performer_is_not_installed(run, tmp_path, files, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    data = bytearray(files[PIANO].read_bytes())
    data[-5] ^= 255
    (tmp_path / "bad.safetensors").write_bytes(data)
    code, _, err = run("models", "install", "bad.safetensors")
    assert code == 1 and "damaged" in err
    assert not list((tmp_path / "mine").glob("*.safetensors"))


def real_time(score: Score) -> Score:
    rng = np.random.default_rng(0)
    for track in score.tracks:
        for note in track.notes:
            note.time += int(rng.integers(3, 17))
    return score


def test_a_performance_is_refused_unless_forced(run, tmp_path, models):
    path = written(real_time(song(20)), tmp_path)
    code, _, err = run("perform", path, *models[:2], "--seed", 1, "-o", "p.mid")
    assert code == 1 and "grid" in err and "--force" in err and err.count("\n") == 1
    assert run("perform", path, *models[:2], "--seed", 1, "--force", "-o", "p.mid")[0] == 0


def test_a_score_with_nothing_to_perform_is_refused_in_one_line(run, tmp_path, models):
    score = song(4)
    del score.tracks[0]  # the flute stays
    path = tmp_path / "score.mid"
    path.write_bytes(midi.to_bytes(score))
    code, out, err = run("perform", path, *models, "--seed", 1)
    assert (code, out) == (1, "") and "neither a keyboard nor drums" in err and err.count("\n") == 1
    path.write_bytes(b"")
    code, _, err = run("perform", path, *models, "--seed", 1)
    assert code == 1 and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--strength", 3), 2, "strength"),
        (("--tempo", 1), 2, "tempo"),
        (("--mean", "--seed", 1), 2, "--mean"),
        (("-o", "-", "--json"), 2, "-o -"),
        (("--model", "nobody"), 1, "no performer 'nobody'"),
        (("-o", "nowhere/p.mid"), 1, "nowhere"),
    ],
)
def test_wrong_options_are_said(run, path: Path, options, code: int, said: str):
    found, _, err = run("perform", path, *options)
    assert found == code and said in err


def test_two_performers_of_one_kind_are_wrong_usage(run, path: Path, files):
    code, _, err = run("perform", path, "--model", files[DRUMS], "--model", files[DRUMS])
    assert code == 2 and "drums" in err


def test_a_language_model_is_no_performer(run, path: Path):
    from musiclm.checkpoint import bundled_path

    code, _, err = run("perform", path, "--model", bundled_path("bach-gru"))
    assert code == 1 and "not a performer" in err


def test_json_has_the_path_and_the_notes(run, path: Path, models):
    code, out, _ = run("perform", path, *models, "--seed", 5, "--json", "-o", "p.mid")
    document = json.loads(out)
    assert code == 0 and document["seed"] == 5 and document["outputs"][0]["path"] == "p.mid"
    assert document["outputs"][0]["num_notes"] == midi.read(str(path)).note_num()


def test_a_piece_of_10000_notes_takes_little_time(run, tmp_path, models):
    """Windows are read one after the other: time and memory grow with the notes, not with their square."""
    score = Score(480)
    track = Track("piano", 0, False)
    for i in range(10_000):
        track.notes.append(Note(120 * i, 120, 40 + i * 7 % 40, 64))
    score.tracks.append(track)
    began = time.process_time()
    code, _, err = run("perform", written(score, tmp_path), *models[:2], "--seed", 1, "-o", "p.mid")
    assert code == 0, err
    assert time.process_time() - began < 20
    assert Counter(n.pitch for n in midi.read("p.mid").tracks[0].notes) == Counter(n.pitch for n in track.notes)
