"""show --expression: which note is which, the curves, the summary and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from symusic import Note

from musiclm import midi
from musiclm.errors import MidiError
from musiclm.performing.alignment import performed
from musiclm.performing.render import Expression, perform
from musiclm.plotting import expression
from tests.test_performing import BOTH, song


def test_the_parameters_of_a_performance_are_those_it_was_made_of():
    score = song(30, drums=True)
    played = perform(score, BOTH, Expression(seed=2))
    notes, found = performed(score, played)
    mine = BOTH["piano"].predict(notes, 5)
    assert found.mask.all() and len(found.velocity) == len(notes)
    velocities = [n.velocity for n in played.tracks[0].notes]
    assert sorted(round(127 * v) for v in found.velocity) == sorted(velocities)
    assert found.tempo.std() > 0.01 and mine.tempo.std() > 0.01


def test_a_score_is_a_performance_in_strict_time():
    score = song(30)
    notes, found = performed(score, score)
    curve = expression.curve("score", notes, found)
    np.testing.assert_allclose(curve.qpm, 90, rtol=1e-3)
    np.testing.assert_allclose(curve.velocity, 70)
    np.testing.assert_allclose(found.articulation, 0, atol=1e-2)


def test_drums_are_shown_where_they_are_asked_for_or_alone():
    score = song(30, drums=True)
    assert len(performed(score, score, drums=True)[0]) == 30
    del score.tracks[:2]
    assert len(performed(score, score)[0]) == 30
    with pytest.raises(MidiError, match="no drums"):
        performed(song(4), song(4), drums=True)


def test_a_performance_of_other_notes_is_refused():
    other = song(30)
    for note in other.tracks[0].notes:
        note.pitch += 30
    with pytest.raises(MidiError, match="other notes"):
        performed(song(30), other)


def test_a_missing_note_leaves_only_its_pitch_without_partners():
    score, other = song(30), song(30)
    number, lost = next((i, n.pitch) for i, n in enumerate(other.tracks[0].notes) if n.pitch != 60)
    del other.tracks[0].notes[number]
    notes, found = performed(score, other)
    np.testing.assert_array_equal(found.mask, notes.pitch != lost)
    assert np.isfinite(expression.curve("a", notes, found).qpm).all()


def test_the_command_writes_a_summary_and_a_picture(run, tmp_path: Path):
    score = song(30)
    midi.write(score, tmp_path / "score.mid")
    for seed in (1, 2):
        midi.write(perform(score, BOTH, Expression(seed=seed)), tmp_path / f"{seed}.mid")
    code, out, _ = run("show", "--expression", "1.mid", "2.mid", "--score", "score.mid")
    assert code == 0
    assert out.count("tempo") == out.count("velocity") == 2 and "1.mid" in out and "▁" in out
    for name in ("a.png", "b.png", "c.svg"):
        assert run("show", "--expression", "1.mid", "2.mid", "--score", "score.mid", "-o", name)[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert b"2.mid" in Path("c.svg").read_bytes()
    other = song(30)
    other.tracks[0].notes = type(other.tracks[0].notes)([Note(0, 10, 100, 10)])
    midi.write(other, tmp_path / "other.mid")
    code, _, err = run("show", "--expression", "other.mid", "--score", "score.mid")
    assert code == 1 and "other.mid" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ("a.mid", "b.mid"),
        ("--expression", "a.mid"),
        ("a.mid", "--score", "a.mid"),
        ("--expression", "a.mid", "--score", "a.mid", "--bars", "1-2"),
        ("a.mid", "--drums"),
    ],
)
def test_wrong_usage_is_said(run, options):
    assert run("show", *options)[0] == 2
