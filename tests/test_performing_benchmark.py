"""The measures of performances, the rules, and benchmarks/performing.py, which continues where it stopped."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

from musiclm.performing import metrics, rules
from musiclm.performing.model import DRUMS, PIANO

from .data_files import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import performing
import performing_runs

HUMANS = performing.made_up(3, PIANO)


def test_a_human_is_like_itself():
    _, _, notes, human = HUMANS[0]
    found = metrics.compare(notes, human, human)
    for name, value in found.items():
        expected = 0.0 if name.endswith(("_js", "_error", "_ms")) else 1.0
        assert value == pytest.approx(expected, abs=1e-9), name


def test_only_notes_that_were_played_count():
    _, _, notes, human = HUMANS[0]
    wrong = dataclasses.replace(human, velocity=np.where(np.arange(len(notes)) < 30, human.velocity, 1.0))
    known = dataclasses.replace(human, mask=np.arange(len(notes)) < 30)
    assert metrics.compare(notes, wrong, human)["velocity_error"] > 10
    assert metrics.compare(notes, wrong, known)["velocity_error"] == pytest.approx(0)


def test_a_constant_correlates_with_nothing_and_the_distance_is_between_0_and_1():
    assert metrics.pearson(np.ones(9), np.arange(9.0)) == 0
    edges = np.linspace(0, 1, 11)
    assert metrics.js_distance(np.full(5, 0.1), np.full(7, 0.9), edges) == pytest.approx(1)


def test_the_mean_human_is_the_mean_over_those_who_played_a_note():
    one, other = (
        dataclasses.replace(h.parameters, mask=np.ones(60, bool), velocity=np.full(60, v))
        for h, v in zip(HUMANS, (0.2, 0.4), strict=False)
    )
    other = dataclasses.replace(other, mask=np.arange(60) < 10)
    mean = metrics.mean_human([one, other])
    np.testing.assert_allclose(mean.velocity, np.where(np.arange(60) < 10, 0.3, 0.2))
    np.testing.assert_allclose(mean.tempo, (one.tempo + other.tempo) / 2)


def test_rules_do_what_their_names_say():
    notes = HUMANS[0].notes
    np.testing.assert_allclose(rules.by_pitch(notes).velocity * 127, notes.pitch)
    assert not rules.flat(notes).tempo.any() and np.ptp(rules.flat(notes).velocity) == 0
    slowed = np.flatnonzero(rules.slow_ending(notes).tempo)
    assert slowed.tolist() == [56, 57, 58, 59]  # the last 7 % of 60
    np.testing.assert_allclose(rules.top_of_chord(notes).velocity * 127, notes.pitch + 8)  # each note is alone


def test_the_mean_of_drums_is_that_of_drum_and_position_where_there_are_enough():
    humans = performing.made_up(8, DRUMS)
    notes, parameters = humans[0].notes, humans[0].parameters
    means = rules.DrumMeans([(notes, dataclasses.replace(parameters, velocity=np.full(60, 0.25)))])
    np.testing.assert_allclose(means(notes).velocity, 0.25)
    loud = dataclasses.replace(parameters, velocity=np.where(notes.pitch == notes.pitch[0], 0.8, 0.2))
    means = rules.DrumMeans([(notes, loud)] * 5)
    assert means(notes).velocity[0] == pytest.approx(0.8)


def test_differences_are_paired_by_piece():
    made = [
        {"piece": [piece], "systems": {"a": {"r": r}, "b": {"r": s}}}
        for piece, r, s in (("x", 1.0, 0.5), ("x", 0.0, 0.5), ("y", 0.9, 0.5))
    ]
    found = performing_runs.difference(made, "a", "b", "r")
    assert found["pieces"] == 2 and found["difference"] == pytest.approx(0.2)  # of 0.0 and 0.4
    assert found["standard_error"] == pytest.approx(0.2)


def test_humans_who_play_two_scores_of_a_piece_are_not_compared():
    """ASAP has some pieces with and without repeats: their notes could not be compared."""
    from musiclm.performing.model import Performer, new_network

    scales = {name: (0.5, 0.1) for name in performing_runs.metrics.Parameters.__dataclass_fields__ if name != "mask"}
    tiny = Performer(new_network("bidirectional_rnn", PIANO, {"size": 16}), arch="", kind=PIANO, scales=scales)
    short = dataclasses.replace(HUMANS[0].parameters, mask=np.ones(40, bool))
    fields = ("velocity", "tempo", "deviation", "articulation", "pedal")
    short = dataclasses.replace(short, **{name: getattr(short, name)[:40] for name in fields})
    other = HUMANS[0]._replace(notes=HUMANS[0].notes.take(np.arange(40)), parameters=short)
    found = performing_runs.rows(tiny, [], [*HUMANS[:2], other])
    assert [performing_runs.HUMAN in row["systems"] for row in found].count(False) == 1
    assert {tuple(row["piece"]) for row in found} == {HUMANS[0].piece}


@pytest.mark.parametrize("part", ["piano", "drums"])
def test_a_part_is_trained_once_and_then_read(part, tmp_path, monkeypatch, capsys):
    def document() -> dict:
        arguments = ["performing.py", "--part", part, "--quick", "--json", "-o", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", arguments)
        performing.main()
        return json.loads(capsys.readouterr().out)

    first = document()
    assert "model, mean" in first["systems"] and first["differences"]
    monkeypatch.setattr(performing_runs, "train_performer", None)
    assert document() == first
