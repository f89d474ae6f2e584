"""benchmarks/notes.py and its parts: values that can be counted by hand, and that each part runs and continues."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from symusic import Note, Score, Tempo, Track

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import notes_failures  # noqa: E402
import notes_onsets  # noqa: E402
import notes_runs  # noqa: E402

from musiclm.audio import FAMILIES, mel, models  # noqa: E402
from musiclm.audio.classifier import NoteClassifier  # noqa: E402
from musiclm.audio.dataset import LabelledNote  # noqa: E402
from musiclm.errors import DivergedError  # noqa: E402
from tests.data_files import benchmark  # noqa: E402

notes = benchmark("notes")


def test_folds_have_whole_sources_and_about_as_many_notes_each():
    of = ["a"] * 9 + ["b"] * 5 + ["c"] * 3 + ["d"] * 2
    assert notes.folds_of(of, 2) == [["a"], ["b", "c", "d"]]
    assert notes.folds_of(of, 3) == [["a"], ["b"], ["c", "d"]]
    assert notes.folds_of(of, 9) == [["a"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("made", "left"),
    [
        ("a train, b train, a dev, c -", "b train, c -"),
        ("nsynth train, nsynth validation, nsynth test", "nsynth train, nsynth validation"),
        ("a train, a -", ""),
    ],
)
def test_notes_of_measured_sources_are_left_out_unless_the_splits_are_of_one_source(made: str, left: str):
    rows = [row.split() for row in made.split(", ")]
    of = [
        LabelledNote(path=Path("x"), family="reed", source=s, instrument="i", split=None if split == "-" else split)
        for s, split in rows
    ]
    assert ", ".join(f"{n.source} {n.split or '-'}" for n in notes.learnable(of, {"a", "nsynth"})) == left


def test_figures_by_source_have_an_interval_over_sources():
    """Of family 0 source a is all right and b all wrong; family 1 has one source, and does not count."""
    made = [("a", 0, 0)] * 3 + [("b", 0, 1)] * 3 + [("b", 1, 1)] * 3
    measured = notes_runs.MeasuredSet(
        notes=[LabelledNote(path=Path("x"), family=FAMILIES[f], source=s, instrument="i") for s, f, _ in made],
        pictures=torch.zeros(len(made), 64, 64),
        targets=torch.tensor([f for _, f, _ in made]),
        dropped=0,
    )
    probabilities = torch.full((len(made), 11), 0.02, dtype=torch.float64)
    probabilities[range(len(made)), [answer for *_, answer in made]] = 0.8
    found = notes.by_source(probabilities, measured, 3)
    assert found["families"] == {FAMILIES[0]: {"num_notes": 6, "num_sources": 2, "recall": 0.5}}
    assert found["mean_family_recall"] == 0.5
    assert found["mean_family_recall_interval"] == (0.0, 1.0)
    assert found["calibration_error"] == pytest.approx((3 * 0.2 + 3 * 0.8 + 3 * 0.2) / 9)
    assert found["sources"] == {"a": {"num_notes": 3, "accuracy": 1.0}, "b": {"num_notes": 6, "accuracy": 0.5}}


def test_bins_are_in_order_and_beside_what_their_families_give():
    names = [notes_failures.binned(v, (48, 60)) for v in (60, 47, 48, None, 59.9, 200)]
    assert names == ["60 and above", "below 48", "48 to 60", "not known", "48 to 60", "60 and above"]
    found = notes_failures.groups(names, [True, False, True, False, False, True], [0.5] * 3 + [1.0] * 3)
    assert list(found) == ["below 48", "48 to 60", "60 and above", "not known"]
    assert found["60 and above"] == {"num_notes": 2, "accuracy": 1.0, "expected_accuracy": 0.75}
    assert found["48 to 60"]["accuracy"] == 0.5
    assert list(notes_failures.groups(["b", "a"], [True, True], [1, 1])) == ["a", "b"]


def test_confusions_are_counted_by_hand():
    matrix = [[0] * 11 for _ in range(11)]
    matrix[0][0], matrix[0][2], matrix[1][0] = 6, 2, 3
    assert notes_failures.confusions(matrix) == [
        {"family": "brass", "answer": "bass", "num_notes": 3, "share": 1.0},
        {"family": "bass", "answer": "flute", "num_notes": 2, "share": 0.25},
    ]


def test_loudness_and_attack_of_a_known_note():
    """A sine that reaches its full amplitude of 0.5 after 200 ms is at -3 dB after 141 ms; its power is 0.125."""
    t = torch.arange(16_000) / mel.SAMPLE_RATE
    sound = 0.5 * torch.sin(2 * torch.pi * 400 * t) * (t / 0.2).clamp(max=1)
    found = notes_failures.properties_of(sound, 1.0, 67)
    assert found["attack, ms"] == pytest.approx(141 - 6, abs=12)  # the onset is at -30 dB, after 6 ms
    assert found["loudness, dBFS"] == pytest.approx(-9.03, abs=0.05)
    assert (found["pitch, MIDI"], found["duration, s"]) == (67, 1.0)


def score_of(*at_pitch: tuple[int, int, int]) -> Score:
    """Return a score of one track, at 120 quarters per minute, from (time, duration, pitch)."""
    score, track = Score(480), Track("", 0)
    score.tempos.append(Tempo(0, 120))
    for time, duration, pitch in at_pitch:
        track.notes.append(Note(time, duration, pitch, 80))
    score.tracks.append(track)
    return score


def test_a_melody_is_the_highest_notes_each_until_the_next():
    score = score_of((0, 960, 60), (0, 960, 67), (480, 100, 59), (960, 480, 62))
    line = notes_onsets.top_line(score.tracks[0])
    assert [(n.time, n.duration, n.pitch) for n in line] == [(0, 480, 67), (480, 100, 59), (960, 480, 62)]
    assert notes_onsets.top_line(Track("", 0)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_melody_is_played_in_the_range_of_its_instrument(family):
    score = score_of(*((480 * i, 480, pitch) for i, pitch in enumerate((20, 60, 64, 67, 120))))
    made = notes_onsets.played_by(score, notes_onsets.top_line(score.tracks[0]), family)
    program, lowest, highest = notes_onsets.PROGRAMS[family]
    pitches = [n.pitch for n in made.tracks[0].notes]
    assert made.tracks[0].program == program and all(lowest <= p <= highest for p in pitches)
    assert [p % 12 for p in pitches] == [20 % 12, 0, 4, 7, 0]
    assert notes_onsets.onsets_of(made) == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_onsets_that_are_nearly_together_are_one():
    score = score_of((0, 10, 60), (24, 10, 64), (480, 10, 60), (528, 10, 64))  # 25 ms and 50 ms apart
    assert notes_onsets.onsets_of(score) == pytest.approx([0, 0.5, 0.55])


def test_a_summary_has_means_over_pieces_and_accuracies_over_notes():
    row = {"precision": 1.0, "recall": 1.0, "num_onsets": 10, "num_matched": 10, "median_late_ms": 4.0}
    rows = [row | {"family": "bass", "f": f, "num_right": n} for f, n in ((1.0, 9), (0.5, 4))]
    found = notes_onsets.summary([*rows, row | {"family": None, "f": 0.8}])
    assert found["melodies"]["f"] == 0.75 and found["melodies"]["f_standard_error"] == pytest.approx(0.25)
    assert found["polyphonic"]["f"] == 0.8
    assert found["families"] == {"bass": {"num_notes": 20, "num_right": 13, "accuracy": 0.65}}


def run(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["notes.py", *arguments])
    notes.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("part", ["architectures", "sources"])
def test_a_part_is_trained_once_and_then_read(part, tmp_path, monkeypatch, capsys):
    asked = ["--part", part, "--quick", "-o", str(tmp_path), "--seeds", "1"]
    first = run(monkeypatch, capsys, *asked)
    assert first.count("|---") >= 3 and "mean family recall" in first
    document = json.loads((tmp_path / f"{part}.json").read_text("utf-8"))
    assert set(document["archs"]) == {"ast", "cnn"}
    monkeypatch.setattr(notes_runs, "trained", None)
    monkeypatch.setattr(notes_runs.training, "prepare", None)
    assert run(monkeypatch, capsys, *asked) == first
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="other options"):  # with more distortions it is another run
        run(monkeypatch, capsys, *asked, "--extended")
    (stored,) = (tmp_path / part).glob("cnn-*1.json")
    answer = json.loads(stored.read_text("utf-8"))
    answer["asked"]["steps"] += 1
    stored.write_text(json.dumps(answer), "utf-8")
    with pytest.raises(SystemExit, match="other options"):
        run(monkeypatch, capsys, *asked)


@pytest.mark.parametrize("part", ["architectures", "sources"])
def test_no_measured_source_is_learnt_from_or_chooses(part, tmp_path, monkeypatch, capsys):
    """The made-up measured notes are among the training notes, too: their sources must be left out."""
    seen = []

    def result(_, run, learn, choose, sets):
        measured = {n.source for each in sets.values() for n in each.notes}
        assert not measured & {n.source for n in [*learn.notes, *choose.notes]}
        seen.append((run.name, measured, {n.source for n in learn.notes}))
        probabilities = {name: torch.full((len(each.notes), 11), 1 / 11).tolist() for name, each in sets.items()}
        figures = {"steps": 1, "cpu_seconds": 1.0, "validation_mean_family_recall": 0.0}
        return figures | {"num_parameters": 1, "num_learnt": len(learn.notes), "probabilities": probabilities}

    make_quick = notes.make_quick

    def with_all(a, folder):
        make_quick(a, folder)
        a.train = [*a.train, folder / "measured"]

    monkeypatch.setattr(notes, "make_quick", with_all)
    monkeypatch.setattr(notes_runs, "result", result)
    run(monkeypatch, capsys, "--part", part, "--quick", "--archs", "cnn", "--seeds", "1")
    rendered, others = {"made-1", "made-2"}, {"other-1", "other-2", "other-3"}
    assert set().union(*(measured for _, measured, _ in seen)) == others
    for _, measured, learnt in seen:
        assert learnt == rendered | (others - measured)
    assert len(seen) == (1 if part == "architectures" else 2)


def test_the_hardest_instruments_are_those_with_the_lowest_accuracy():
    names = [("a", "x", "bass")] * 12 + [("a", "y", "reed")] * 12 + [("b", "z", "reed")] * 11
    found = notes_failures.hardest(names, ["bass"] * 9 + ["reed"] * 3 + ["flute"] * 7 + ["reed"] * 5 + ["bass"] * 11)
    assert [(row["instrument"], row["num_notes"], row["accuracy"], row["answer"]) for row in found] == [
        ("y", 12, 5 / 12, "flute"),
        ("x", 12, 0.75, "bass"),
    ]


def test_failures_run_for_the_bundled_classifier(monkeypatch, capsys):
    printed = run(monkeypatch, capsys, "--part", "failures", "--quick")
    assert "the bundled classifier: mean family recall" in printed
    assert all(f"| {name} |" in printed for name in ("source", *notes_failures.EDGES))


def test_a_training_that_diverges_is_an_error(monkeypatch, tmp_path, capsys):
    """The classifier that comes before the error was taken for the result."""

    def fit(*_, **__):
        yield NoteClassifier(models.create("cnn", channels=(4,)))
        raise DivergedError("the loss", 3, "")

    monkeypatch.setattr(notes_runs.fit, "fit", fit)
    with pytest.raises(SystemExit, match="the loss of step 3 was not finite"):
        run(monkeypatch, capsys, "--part", "architectures", "--quick", "-o", str(tmp_path))
    assert not list((tmp_path / "architectures").glob("*"))


@pytest.mark.parametrize(
    "wrong", [["--archs", "vit"], ["--seeds", "a"], ["--seeds", "0"], ["--folds", "1"], ["--minutes", "0"]]
)
def test_impossible_options_are_refused_at_once(wrong, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, capsys, "--part", "sources", "--quick", *wrong)
    assert stopped.value.code == 2


def test_onsets_of_no_pieces_are_an_error(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="no MIDI files with notes"):
        run(monkeypatch, capsys, "--part", "onsets", "--midi", str(tmp_path))


@pytest.mark.slow
def test_onsets_run_on_an_example(monkeypatch, capsys):
    pytest.importorskip("mir_eval", reason="not installed: pip install '.[bench]'")
    printed = run(monkeypatch, capsys, "--part", "onsets", "--quick")
    assert "| melodies |" in printed and "| polyphonic |" in printed
