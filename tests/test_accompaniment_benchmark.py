"""benchmarks/accompaniment.py: its measures on hand-made scores with known values, its baselines, and that it runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from symusic import Note, Score, Tempo, TextMeta, TimeSignature, Track

from musiclm import models, tokenizers
from musiclm.data import Corpus, Piece, open_source
from musiclm.midi import parts

from .data_files import ROOT, built, folder_of, midi_bytes, piece

sys.path.append(str(ROOT / "benchmarks"))
import accompaniment
import accompaniment_baselines as baselines
import accompaniment_losses
import accompaniment_tasks
import accompany
import restyling

C, AM = (0, "maj"), (9, "min")
VOICE, PIANO, BASS, BARS = 52, 0, 33, 16
TRIAD = {C: (60, 64, 67), AM: (57, 60, 64)}


def track(program: int, notes: list[tuple[float, float, int]]) -> Track:
    """Return a track of notes of start and length in quarters, and pitch."""
    made = Track("", program, False)
    for start, length, pitch in notes:
        made.notes.append(Note(round(start * 12), round(length * 12), pitch, 64))
    return made


def score_of(*tracks: Track, signature: tuple[int, int] = (4, 4)) -> Score:
    score = Score(12)
    score.tempos.append(Tempo(0, 120))
    score.time_signatures.append(TimeSignature(0, *signature))
    for each in tracks:
        score.tracks.append(each)
    return score


def song(chords: list[tuple[int, str]], semitones: int = 0) -> Score:
    """Return a voice and a piano with one chord a bar: the voice sings its notes, the piano holds all of it."""
    voice = [
        (4 * bar + beat, 1, 12 + TRIAD[c][beat % 3] + semitones) for bar, c in enumerate(chords) for beat in range(4)
    ]
    piano = [(4 * bar, 4, pitch + semitones) for bar, c in enumerate(chords) for pitch in TRIAD[c]]
    return score_of(track(VOICE, voice), track(PIANO, piano))


def hidden_of(score: Score, part: int = 1, kind: str = "song", name: str = "a") -> accompaniment_tasks.Hidden:
    found = accompaniment_tasks.hidden_part(task_of(score, part, kind, name), tokenizers.create("score-pairs"))
    assert found is not None
    return found


def task_of(score: Score, part: int = 1, kind: str = "song", name: str = "a") -> accompany.Task:
    return accompany.Task(kind=kind, name=name, score=score, part=part)


@pytest.fixture
def hidden() -> accompaniment_tasks.Hidden:
    return hidden_of(song([C, AM] * (BARS // 2)))


def test_a_melody_alone_is_given_with_the_chords_of_the_whole_excerpt(hidden: accompaniment_tasks.Hidden) -> None:
    assert hidden.harmony == (C, C, AM, AM) * (BARS // 2)
    assert hidden.edges[:4].tolist() == [0, 2, 4, 6] and hidden.edges[-1] == 4 * BARS
    assert [t.program for t in hidden.given.tracks] == [VOICE] and hidden.program == PIANO


def test_other_music_is_given_with_its_own_chords() -> None:
    clashing = [(4 * bar, 4, pitch) for bar in range(BARS) for pitch in (61, 65, 68)]  # Db major all the time
    found = hidden_of(score_of(*song([C] * BARS).tracks, track(BASS, clashing)), part=2)
    assert set(found.harmony) == {C}


def test_a_task_whose_given_music_ends_early_is_left_out() -> None:
    score = song([C] * BARS)
    score.tracks[0] = track(VOICE, [(beat, 1, 72) for beat in range(20)])
    assert accompaniment_tasks.hidden_part(task_of(score), tokenizers.create("score-pairs")) is None
    assert accompaniment_tasks.hidden_parts([task_of(score), task_of(song([C] * BARS))], 5)[0].harmony[0] == C


def test_measures_of_the_real_part(hidden: accompaniment_tasks.Hidden) -> None:
    found = accompaniment_tasks.values(hidden.real, hidden)
    assert (
        found["note_f1"] == found["chord_accuracy"] == found["chord_notes"] == found["density"] == found["within"] == 1
    )
    assert found["consonance"] == 1  # within a triad all are thirds, fourths, fifths and sixths


def test_notes_match_by_sixteenth_and_pitch() -> None:
    real = np.array([[0, 1, 60], [1, 2, 62], [2, 3, 64], [3, 4, 65]], float)
    part = np.array([[0.1, 1, 60], [1, 4, 62], [2.25, 3, 64]], float)  # two of three are real ones
    assert accompaniment_tasks.note_f1(part, real) == pytest.approx(2 * 2 / 7)
    assert accompaniment_tasks.note_f1(baselines.EMPTY, real) == 0
    assert accompaniment_tasks.note_f1(baselines.EMPTY, baselines.EMPTY) is None


def test_a_strong_beat_is_right_if_all_that_sounds_is_in_the_chord(hidden: accompaniment_tasks.Hidden) -> None:
    part = np.array(
        [
            [0, 2, 60],  # beat 1: C in C major
            [2, 4, 64],  # beat 3: E and F: one of two is in it
            [2, 4, 65],
            [5, 6, 61],  # beat 2 of A minor is weak
            [7, 8.5, 67],  # sounds on beat 1 of the next bar, G in C major, and not on beat 3 before
        ],
        float,
    )
    accuracy, notes = accompaniment_tasks.chord_accuracy(part, hidden)
    assert accuracy == pytest.approx(2 / 3) and notes == pytest.approx(3 / 4)
    assert accompaniment_tasks.chord_accuracy(baselines.EMPTY, hidden) == (None, None)


def test_the_middle_of_a_bar_of_three_is_no_strong_beat() -> None:
    voice = [(beat, 1, 72) for beat in range(3 * BARS)]
    piano = [(3 * bar, 3, pitch) for bar in range(BARS) for pitch in TRIAD[C]]
    found = hidden_of(score_of(track(VOICE, voice), track(PIANO, piano), signature=(3, 4)))
    assert found.strong.tolist() == [3 * bar for bar in range(BARS)]
    assert found.edges[:3].tolist() == [0, 1.5, 3]


def test_tracks_of_a_program_become_one() -> None:
    score = score_of(track(VOICE, [(1, 1, 70)]), track(PIANO, [(0, 1, 60)]), track(VOICE, [(0, 1, 72), (2, 1, 65)]))
    found = accompaniment_tasks.merged(score)
    assert [t.program for t in found.tracks] == [VOICE, PIANO]
    assert [(n.time, n.pitch) for n in found.tracks[0].notes] == [(0, 72), (12, 70), (24, 65)]
    assert [len(t.notes) for t in score.tracks] == [1, 1, 2]


def test_block_chords_have_all_notes_of_each_chord_and_a_bass_the_root() -> None:
    score = song([C, AM] * (BARS // 2))
    part = baselines.block_chords(hidden_of(score))
    assert part[:3].tolist() == [[0, 2, 48], [0, 2, 52], [0, 2, 55]]
    assert part[6:9].tolist() == [[4, 6, 48], [4, 6, 52], [4, 6, 57]]
    bass = [(4 * bar, 4, 36) for bar in range(BARS)]
    part = baselines.block_chords(hidden_of(score_of(*score.tracks, track(BASS, bass)), part=2, kind="bass"))
    assert part[:, 2].tolist() == [36, 36, 45, 45] * (BARS // 2)


def test_the_previous_bar_is_the_given_music_one_bar_late_in_the_register() -> None:
    voice = [(4 * bar, 2, 72 + bar) for bar in range(BARS)]
    piano = [(4 * bar, 4, pitch) for bar in range(BARS) for pitch in TRIAD[C]]
    part = baselines.previous_bar(hidden_of(score_of(track(VOICE, voice), track(PIANO, piano))))
    assert part[0].tolist() == [0, 2, 72 + BARS - 1 - 24]  # the last bar; the median, 79.5, goes nearest to 60
    assert part[1].tolist() == [4, 6, 72 - 24]


def test_retrieval_transposes_the_part_of_the_most_alike_other_piece() -> None:
    chords = [C, C, AM, C] * (BARS // 4)
    index = baselines.Retrieval(
        [
            task_of(song(chords), name="itself"),
            task_of(song([AM] * BARS), name="other chords"),
            task_of(song(chords, semitones=3), name="a third higher"),
            task_of(song(chords), kind="pop", name="another kind"),
        ]
    )
    asked = hidden_of(song(chords), name="itself")
    found = index.find(asked.task)
    assert found is not None and found[0].name == "a third higher" and found[1] == -3
    part = index.part(asked)
    assert part is not None and accompaniment_tasks.note_f1(part, asked.real) == 1
    assert index.find(task_of(song(chords), kind="bass")) is None


@pytest.mark.skipif(not baselines.has_mma(), reason="the program mma is not installed")
def test_mma_plays_the_given_chords() -> None:
    hidden = hidden_of(song([C, AM] * (BARS // 2)))
    part = baselines.mma_part(hidden)
    assert part is not None and part[:, 0].max() < 4 * BARS
    within = part[(part[:, 0] % 8 < 3)]  # of the bars in C
    assert {int(pitch) % 12 for pitch in within[:, 2]} <= {0, 4, 7}
    assert baselines.overlay(score_of(*song([C]).tracks, signature=(5, 4)), (C, C)) is None


def test_without_mma_there_is_no_overlay(hidden: accompaniment_tasks.Hidden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not baselines.has_mma() and baselines.mma_part(hidden) is None


def test_differences_are_over_the_tasks_that_both_methods_have() -> None:
    def row(**densities: float | None) -> dict[str, Any]:
        methods = {
            method: None if value is None else dict.fromkeys(accompaniment_tasks.MEASURES, value)
            for method, value in densities.items()
        }
        return {"kind": "song", "name": "", **dict.fromkeys(accompaniment.METHODS), **methods}

    rows = [row(model=0.5, real=1.0, retrieval=None), row(model=1.0, real=1.0, retrieval=0.25)]
    found = accompaniment.summary(rows)["methods"]["all"]
    assert set(found) == {"model", "real", "retrieval"}
    assert found["model"]["less_real"]["density"]["mean"] == -0.25
    assert found["retrieval"]["model_less"]["density"] == {"mean": 0.75, "standard_error": None, "num_pieces": 1}
    assert found["model"]["median_density"] == 0.75


def test_a_ratio_has_the_error_of_its_residuals_over_songs() -> None:
    tops, bottoms = np.array([2.0, 6.0]), np.array([1.0, 3.0])
    assert accompaniment_losses.ratio(tops, bottoms) == (2.0, 0.0)
    value, error = accompaniment_losses.ratio(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    assert value == 2 and error == pytest.approx(1.0)  # as of a mean: deviation sqrt(2), over sqrt(2)
    assert accompaniment_losses.ratio(tops[:1], bottoms[:1]) == (2.0, None)


def test_kinds_of_pairs_are_told_by_their_place_and_their_programs() -> None:
    score, tokenizer = piece(1), tokenizers.create("score-pairs")
    pairs = tokenizer.split(tokenizer.encode(score)[0])
    kinds = [kind for kind, _, _ in parts.extract_pairs(score)]
    assert kinds == ["melody", "drums", "keys", "winds"]
    found = [accompaniment_losses.kind_of(tokenizer, pair.target, i) for i, pair in enumerate(pairs)]
    assert found == kinds


def test_the_target_alone_has_the_ids_and_notes_of_each_window(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "midi", {f"{i}.mid": midi_bytes(i, num_bars=40) for i in range(6)})
    built(tmp_path / "pairs", source, tokenizer="score-pairs")
    corpus = open_source(tmp_path / "pairs")
    windows = accompaniment_losses.windows_of(corpus.tokenizer, corpus.pieces("train"))
    assert len({window.piece.name for window in windows}) == len(windows)
    alone = open_source(accompaniment_losses.targets_alone(corpus, tmp_path / "targets"))
    assert alone.tokenizer.name == "score" and alone.tokenizer.vocab_size == corpus.tokenizer.vocab_size
    for window, other in zip(windows, alone.pieces("train"), strict=True):
        assert other.name == window.piece.name and other.num_notes == window.piece.num_notes
        assert np.array_equal(other.tokens, corpus.tokenizer.split(window.piece.tokens)[0].target)


def test_windows_of_full_length_are_told_apart() -> None:
    tokenizer = tokenizers.create("score-pairs")
    voice, piano = ([(4 * bar, 4, pitch) for bar in range(40)] for pitch in (72, 48))
    tokens = tokenizer.encode(score_of(track(VOICE, voice), track(PIANO, piano)))[0]
    whole = Piece(name="a", tokens=tokens, num_notes=80, seconds=80.0)
    windows = accompaniment_losses.windows_of(tokenizer, [whole])
    assert [(window.groups, window.piece.num_notes) for window in windows] == [
        (("all", "melody", "32 bars"), 32),
        (("all", "melody"), 8),
    ]
    splits = {"train": [], "validation": [], "test": [whole, dataclasses.replace(whole, name="b")]}
    corpus = Corpus(name="c", tokenizer=tokenizer, splits=splits, dropped={})
    found = accompaniment_losses.held_out(corpus, "test", len(tokens))  # one piece is chosen
    assert sorted(window.groups for window in found) == sorted([*(w.groups for w in windows), ("32 bars",)])
    assert len({window.song for window in found}) == 2


class Loaded:
    """A checkpoint as far as `counts_of` reads one."""

    def __init__(self, arch: str, tokenizer: Any) -> None:
        config = models.preset(arch, "tiny") | {"feature_sizes": tokenizer.feature_sizes}
        self._model, self._tokenizer = models.create(arch, tokenizer.vocab_size, **config), tokenizer

    def model(self) -> Any:
        return self._model

    def tokenizer(self) -> Any:
        return self._tokenizer


@pytest.mark.parametrize(("arch", "name"), [("seq2seq_gru", "score-pairs"), ("transformer", "score")])
def test_runs_with_and_without_a_source_count_the_same_ids(arch: str, name: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "midi", {f"{i}.mid": midi_bytes(i) for i in range(3)})
    built(tmp_path / "pairs", source, tokenizer="score-pairs")
    corpus = open_source(tmp_path / "pairs")
    windows = accompaniment_losses.windows_of(corpus.tokenizer, corpus.pieces("all"))
    found = accompaniment_losses.counts_of(Loaded(arch, tokenizers.create(name)), windows)
    total = np.sum([song["all"] for song in found.values()], axis=0)
    masks = [corpus.tokenizer.eval_mask(window.piece.tokens) for window in windows]
    assert total[2] == sum(int(mask.sum()) for mask in masks)
    assert total[3] == sum(window.piece.num_notes for window in windows)
    assert 0 < total[1] < total[0]
    kinds = np.sum([row for song in found.values() for kind, row in song.items() if kind != "all"], axis=0)
    assert kinds == pytest.approx(total)


def test_content_of_a_song_beside_itself_and_an_octave_higher() -> None:
    one = song([C, AM] * (BARS // 2))
    assert restyling.content(one, one) == {"chroma": pytest.approx(1), "melody_f1": 1.0, "top_line_f1": 1.0}
    silent = score_of(track(PIANO, []))
    assert restyling.content(one, silent) == {"chroma": 0.0, "melody_f1": 0.0, "top_line_f1": 0.0}
    found = restyling.content(one, song([C, AM] * (BARS // 2), semitones=12))
    assert found["chroma"] == pytest.approx(1) and found["melody_f1"] == 0


def test_a_melody_under_other_notes_is_kept_but_is_not_the_top_line() -> None:
    one = song([C] * BARS)
    covered = score_of(*one.tracks, track(73, [(beat, 1, 96) for beat in range(4 * BARS)]))
    found = restyling.content(one, covered)
    assert found["melody_f1"] == 1 and found["top_line_f1"] == 0


def test_profiles_count_onsets_in_the_bar_and_intervals_of_a_track() -> None:
    score = score_of(track(PIANO, [(0, 1, 60), (4, 1, 64), (5.5, 1, 67), (5.5, 1, 60)]))
    onsets = restyling.onset_profile(score)
    assert onsets[0] == 0.5 and onsets[18] == 0.5 and onsets.sum() == 1
    intervals = restyling.interval_profile(score).reshape(24, 41)
    expected = {
        (9, 3): 1,
        (9, -4): 1,
        (0, 7): 1,
    }  # 64 to 67 and to 60, and the two at once; the first note is too far away
    assert intervals.sum() == pytest.approx(1)
    for (time, interval), count in expected.items():
        assert intervals[time, interval + 20] == pytest.approx(count / 3)


def test_a_piece_of_the_style_is_nearer_than_one_of_another() -> None:
    rows = [
        ("held", song([C] * BARS)),
        ("broken", score_of(track(PIANO, [(i / 2, 0.5, 60 + i % 7) for i in range(128)]))),
    ]
    styles = restyling.Styles(rows)
    assert styles.distances(rows[0][1], "held")["style"] == pytest.approx(0)
    assert styles.distances(rows[1][1], "held")["style"] > 0.5
    split = score_of(rows[0][1].tracks[0], track(PIANO, [(4 * b, 4, p) for b in range(BARS) for p in TRIAD[C]]))
    assert styles.distances(split, "held")["style"] == pytest.approx(0)


def test_songs_go_to_styles_in_turn_but_not_to_their_own() -> None:
    one = song([C] * BARS)
    held_out = [("a", "lied", one), ("b", "lied", one), ("c", "chorale", one), ("d", "drums", one)]
    found = restyling.songs_of(held_out, ["lied", "chorale"], 9)
    assert [(each.name, each.own, each.style) for each in found] == [("c", "chorale", "lied"), ("a", "lied", "chorale")]
    marked = one.copy()
    marked.markers.append(TextMeta(0, "style: lied"))
    assert restyling.first_of_each([("a", "lied", marked)] * 5, ["lied"], 2) == [("lied", marked)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("part", ["losses", "parts", "restyle"])
def test_the_benchmark_runs(part: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "accompaniment.py"), "--part", part, "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    if part == "losses":
        assert list(report["runs"]) == list(accompaniment_losses.RUNS)
        assert all(run["losses"]["all"]["nats_per_note"]["mean"] > 0 for run in report["runs"].values())
    elif part == "parts":
        assert report["num_tasks"] == len(report["tasks"]) == 3
        assert report["methods"]["all"]["block chords"]["values"]["chord_accuracy"]["mean"] == 1
        assert report["methods"]["all"]["model"]["values"]["density"]["num_pieces"] == 3
    else:
        assert report["num_songs"] == 3 and not report["problems"]
        assert report["methods"]["all"]["copy"]["melody_f1"]["mean"] == 1


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "midi", {f"{i}.mid": midi_bytes(i) for i in range(3)})
    built(tmp_path / "scores", source)
    script = str(ROOT / "benchmarks" / "accompaniment.py")
    command = [sys.executable, script, "--part", "parts", "--corpus", str(tmp_path / "scores")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and "score-pairs" in done.stderr and len(done.stderr.splitlines()) == 1
