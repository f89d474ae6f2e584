"""benchmarks/ensembles.py and accompany.py: their measures on scores whose values can be counted by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from symusic import Note, Score, TextMeta, Track

from musiclm import midi
from musiclm.evaluation.music_metrics import notes_of

from .data_files import ROOT, built, piece

sys.path.append(str(ROOT / "benchmarks"))
import accompany
import ensembles

PIANO, EPIANO, VIOLIN, CELLO, DRUMS, VOICE, BASS = 0, 4, 40, 42, -1, 52, 33
TRIO = ensembles.seats("piano,violin,cello")


def score_of(parts: dict[int, list[tuple[float, float, int]]], style: str = "") -> Score:
    """Return a score of programs, each with notes of start and length in quarters, and pitch."""
    score = Score(12)
    for program, notes in parts.items():
        track = Track("", max(program, 0), program == DRUMS)
        for start, length, pitch in notes:
            track.notes.append(Note(round(start * 12), round(length * 12), pitch, 64))
        score.tracks.append(track)
    if style:
        score.markers.append(TextMeta(0, f"style: {style}"))
    return score


def bars(first: int, stop: int, pitch: int = 60, each: int = 1) -> list[tuple[float, float, int]]:
    """Return so many notes in each of the bars [first, stop), counted from 0."""
    return [(4 * bar + i, 1, pitch) for bar in range(first, stop) for i in range(each)]


def test_an_ensemble_is_one_program_for_each_word_and_nobody_else() -> None:
    found = ensembles.ensemble(
        score_of({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(3, 16)}), TRIO, num_bars=16
    )
    assert found["broken"] == [] and found["others"] == []
    assert found["players"]["cello"] == {"program": CELLO, "notes": 13, "bars": 1.0}


@pytest.mark.parametrize(
    ("parts", "broken"),
    [
        ({PIANO: bars(0, 16)}, {f"{w}: {r}" for w in ("violin", "cello") for r in ("few", "silent")}),
        ({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(4, 11)}, {"cello: few"}),
        ({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 9, each=2)}, {"cello: silent"}),
        ({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 10, each=2)}, set()),
        ({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 16), BASS: bars(0, 1)}, {"somebody else plays"}),
        ({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 16), DRUMS: bars(0, 1)}, {"somebody else plays"}),
        ({EPIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 16)}, set()),
        (
            {PIANO: bars(0, 2), EPIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 16)},
            {"somebody else plays"},
        ),
        (
            {PIANO: bars(0, 9, each=2), VIOLIN: bars(0, 9), CELLO: bars(0, 9)},
            {f"{w}: silent" for w in ("piano", "violin", "cello")},
        ),
    ],
)
def test_what_an_ensemble_breaks(parts: dict[int, list[tuple[float, float, int]]], broken: set[str]) -> None:
    short = {f"fewer than {ensembles.FEWEST} notes": "few", "silent in most bars": "silent"}
    found = ensembles.ensemble(score_of(parts), TRIO, num_bars=16)["broken"]
    for long, word in short.items():
        found = [reason.replace(long, word) for reason in found]
    assert set(found) == broken


def test_a_long_note_sounds_in_each_bar_that_it_overlaps_and_a_drum_in_one() -> None:
    notes = notes_of(score_of({PIANO: [(0, 9, 60), (19, 1, 60)], DRUMS: [(2, 16, 36)]}))
    assert ensembles.sounding_bars(notes, PIANO).tolist() == [True, True, True, False, True]
    assert ensembles.sounding_bars(notes, DRUMS).tolist() == [True, False, False, False, False]


def test_good_ensembles_and_what_breaks_the_others_are_counted() -> None:
    good = score_of({PIANO: bars(0, 16), VIOLIN: bars(0, 16), CELLO: bars(0, 16)})
    found = ensembles.ensembles(
        [good, good, score_of({PIANO: bars(0, 16), VIOLIN: bars(0, 16)})], "piano,violin,cello", 16
    )
    assert (found["good"], found["num_pieces"]) == (2, 3)
    assert found["broken"] == {"cello: fewer than 8 notes": 1, "cello: silent in most bars": 1}


C_MAJOR = [(i, 1, 60 + step) for i, step in enumerate((0, 4, 7, 5, 9, 12, 4, 7, 11, 14, 12, 5, 4, 0))]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([(14, 2, 48), (14, 2, 64), (14, 2, 67)], 1),  # C E G
        ([(14, 2, 52), (14, 2, 60), (14, 2, 67)], 1),  # its first inversion
        ([(14, 2, 43), (14, 2, 71), (14, 2, 62)], 0),  # G B D
        ([(14, 2, 45), (14, 2, 60), (14, 2, 64)], 0),  # A C E
        ([(14, 2, 48), (14, 2, 72)], 1),
        ([(14, 2, 53)], 0),
    ],
)
def test_the_root_of_the_last_chord_is_the_tonic(last: list[tuple[float, float, int]], expected: int) -> None:
    assert ensembles.last_chord_is_tonic(notes_of(score_of({PIANO: C_MAJOR + last}))) == expected


def test_without_a_pitch_there_is_no_last_chord() -> None:
    assert ensembles.last_chord_is_tonic(notes_of(score_of({DRUMS: bars(0, 4)}))) is None


def test_instruments_of_the_prompts_end_are_silent_or_go_on() -> None:
    score = score_of({PIANO: bars(0, 16), VIOLIN: bars(0, 9), VOICE: bars(0, 5), DRUMS: bars(7, 16)}, "band")
    assert ensembles.last_players(score) == {PIANO, VIOLIN, DRUMS}
    new = score_of({PIANO: bars(0, 8), VOICE: bars(0, 8)})
    found = ensembles.continuations([("a", score)], [new])
    assert found["model"]["silent"]["mean"] == pytest.approx(2 / 3)
    assert found["real"]["silent"]["mean"] == 0
    assert found["real"]["silent_later"]["mean"] == pytest.approx(1 / 3)
    assert found["difference"]["silent_later"]["mean"] == pytest.approx(1 / 3)
    assert found["pieces"][0]["style"] == "band"
    assert not ensembles.plain(score).markers and score.markers


def notes(*rows: tuple[float, float, int]) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, 3)


def test_consonance_is_weighted_by_time_and_leaves_doublings_out() -> None:
    kept = notes((0, 4, 60))
    found = accompany.harmony(notes((0, 1, 64), (1, 2, 61), (2, 4, 48), (3, 6, 55), (8, 9, 61)), kept)
    assert found["consonance"] == pytest.approx(2 / 3)  # a third and a fifth; a semitone; an octave does not count
    assert found["clash"] == pytest.approx(1 / 3)
    longer = accompany.harmony(notes((0, 3, 64), (3, 4, 61)), kept)
    assert (longer["consonance"], longer["counted_pairs"]) == (0.75, 0.5)
    assert accompany.harmony(notes((0, 4, 72)), kept) == {"consonance": None, "counted_pairs": None, "clash": None}


@pytest.mark.parametrize("interval", range(12))
def test_an_interval_is_the_same_above_and_below(interval: int) -> None:
    above, below = (accompany.harmony(notes((0, 1, 60 + way * interval)), notes((0, 1, 60))) for way in (1, -1))
    assert above == below
    assert above["consonance"] == (None if interval == 0 else float(interval in (3, 4, 5, 7, 8, 9)))
    assert above["clash"] == (None if interval == 0 else float(interval in (1, 11)))


def test_a_shifted_part_comes_round() -> None:
    found = accompany.shifted(notes((0, 1, 60), (50, 55, 61), (56, 64, 62)), 8.0, 64.0)
    assert found.tolist() == [[8, 9, 60], [58, 63, 61], [0, 8, 62]]
    assert accompany.shifted(notes((54, 58, 60)), 8.0, 64.0).tolist() == [[62, 64, 60]]


def test_onsets_together() -> None:
    assert accompany.together(notes((0, 1, 60), (0, 1, 64), (1.5, 2, 60)), notes((0, 4, 50))) == 0.5
    assert accompany.together(notes(), notes((0, 4, 50))) is None


def song(style: str = "lied", num_bars: int = 24) -> Score:
    return score_of({PIANO: bars(0, num_bars, 48, 2), VOICE: bars(0, num_bars, 64, 2), DRUMS: bars(0, num_bars)}, style)


def test_the_part_of_a_task() -> None:
    band = {VOICE: bars(0, 16, 70), PIANO: bars(0, 16, 50), BASS: bars(0, 16, 60), CELLO: bars(0, 15, 30)}
    assert accompany.part_of("song", "a", song()) == 0
    assert accompany.part_of("bass", "a", score_of(band)) == 2
    del band[BASS]
    assert accompany.part_of("bass", "a", score_of(band)) is None  # the cello is lowest and has 15 notes
    assert {accompany.part_of("part", name, score_of(band)) for name in "abcdefgh"} == {0, 1}
    assert accompany.part_of("song", "a", score_of({PIANO: bars(0, 16), DRUMS: bars(0, 16)})) is None


def test_an_excerpt_is_the_ninth_bar_and_what_follows_or_the_beginning() -> None:
    late, early = accompany.excerpt_of(song(num_bars=24)), accompany.excerpt_of(song(num_bars=23))
    assert late is not None and early is not None
    assert midi.num_bars(late) == midi.num_bars(early) == 16
    assert not late.markers
    only_late = song(num_bars=24)
    only_late.tracks[1].notes = type(only_late.tracks[1].notes)([Note(8 * 48, 12, 64, 64)])
    found = accompany.excerpt_of(only_late)
    assert found is not None and [n.time for n in found.tracks[1].notes] == [0]
    assert accompany.excerpt_of(song(num_bars=15)) is None


def test_a_part_is_beside_the_real_one_and_that_two_bars_late() -> None:
    kept = [(4 * bar, 4, 60 + bar % 4) for bar in range(16)]
    real = [(4 * bar + i, 1, 64 + bar % 4) for bar in range(16) for i in range(2)]
    task = accompany.Task(kind="song", name="a", score=score_of({PIANO: real, VOICE: kept}), part=0)
    new = score_of({PIANO: [(4 * bar, 1, 61 + bar % 4) for bar in range(16)], VOICE: kept})
    row = accompany.compared(task, new)
    assert row["real"] == {"consonance": 1, "counted_pairs": 1, "clash": 0, "density": 1, "together": 0.5}
    assert row["shifted"]["consonance"] == 0 and row["shifted"]["density"] == 1  # sixths become seconds and tritones
    assert (row["new"]["clash"], row["new"]["density"], row["new"]["together"]) == (1, 0.5, 1)
    assert (row["above_shifted"], row["density_within"]) == (False, True)
    found = accompany.summary([row, accompany.compared(task, task.score)])
    assert (found["above_shifted"], found["density_within"], found["both"]) == (1, 2, 1)
    assert found["measures"]["all"]["consonance"]["new_less_real"]["mean"] == -0.5


@pytest.mark.slow
def test_the_programs_measure_a_small_model(tmp_path) -> None:
    import torch

    from musiclm import checkpoint, models, tokenizers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    (tmp_path / "pieces").mkdir()
    for seed in range(4):
        drawn, style = piece(seed, num_bars=16), ("lied", "band")[seed % 2]
        drawn.markers.append(TextMeta(0, f"style: {style}"))
        (tmp_path / "pieces" / f"{style}{seed}.mid").write_bytes(midi.to_bytes(drawn))
    built(tmp_path / "corpus", tmp_path / "pieces")
    tokenizer = tokenizers.create("score-infill", features=2)
    model = models.create(
        "transformer", tokenizer.vocab_size, **models.preset("transformer", "tiny"), **tokenizer.model_config
    )
    checkpoint.save(tmp_path / "tiny.safetensors", model, arch="transformer", tokenizer=tokenizer, card={"figures": {}})
    for name, more in (("ensembles", ["--bars", "5"]), ("accompany", [])):
        command = [
            sys.executable,
            str(ROOT / "benchmarks" / f"{name}.py"),
            str(tmp_path / "tiny.safetensors"),
            "--quick",
        ]
        command += ["--corpus", str(tmp_path / "corpus"), "--split", "all", "--json", *more]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        if name == "ensembles":
            assert found["ensemble"]["num_pieces"] == found["unconditional"]["model"]["instruments"]["num_pieces"] == 2
            assert found["continuations"]["real"]["silent"] == {"mean": 0, "standard_error": 0, "num_pieces": 2}
        else:
            assert {row["kind"] for row in found["tasks"]} == {"song", "bass"}
            assert found["num_tasks"] == 4
