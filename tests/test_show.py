"""musiclm show in the terminal: the first bars of a long piece, exactly the bars that are asked for, and their speed."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from symusic import Note, Score, Track

from musiclm import midi
from musiclm.plotting import piano_roll, terminal_roll


def performance(num_bars: int, notes_a_bar: int = 16, seed: int = 0) -> Score:
    """Return piano music in 4/4 as it is played: any time, any length, some notes over many bars."""
    draw = random.Random(seed)
    score = Score(480)
    track = Track("Piano", 0)
    for bar in range(num_bars):
        for _ in range(notes_a_bar):
            at = bar * 1920 + draw.randrange(1920)
            length = draw.choice([60, 240, 700, 9000 if draw.random() < 0.05 else 100])
            track.notes.append(Note(at, min(length, num_bars * 1920 - at), draw.randrange(30, 95), 80))
    track.notes.append(Note(num_bars * 1920 - 100, 100, 60, 80))
    score.tracks.append(track)
    return score


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    midi.write(performance(800), tmp_path / "long.mid")
    return tmp_path / "long.mid"


def test_a_long_piece_shows_its_first_bars_and_says_so(run, long_file: Path):
    """It printed some 6,000 lines in ten seconds."""
    began = time.process_time()
    code, out, told = run("show", long_file)
    took = time.process_time() - began
    assert code == 0
    assert 20 < out.count("\n") <= 62
    shown = re.search(r"shown: bars 1-(\d+) of 800; --bars A-B shows others, -o writes a picture", told)
    assert shown, told
    code, same, told = run("show", long_file, "--bars", f"1-{shown[1]}", "-q")
    assert (code, told) == (0, "")
    assert same == out
    code, out, told = run("show", long_file, "-q")
    assert (code, told) == (0, "") and out == same
    assert took < 5, "seconds of CPU time; it takes less than one on an idle core"


def test_bars_that_are_asked_for_are_shown_however_many(run, long_file: Path):
    code, out, told = run("show", long_file, "--bars", "101-9999")
    assert code == 0 and "shown" not in told
    numbers = [
        int(n) for line in out.splitlines() if re.fullmatch(r" {6}\d[\d /]*", line) for n in re.findall(r"\d+", line)
    ]
    numbers = [n for n in numbers if n > 100]
    assert numbers == list(range(101, 801))
    assert out.count("\n") > 1000


def test_a_short_piece_is_shown_whole(run, song_file: Path):
    code, out, told = run("show", song_file)
    assert code == 0 and "shown" not in told
    assert out == run("show", song_file, "--bars", "1-8")[1]


def test_the_notes_of_a_system_are_those_that_sound_in_it():
    """The index by time finds what a search through all notes finds, in the same order."""
    notes = piano_roll.notes(performance(40, seed=3))
    random.Random(1).shuffle(notes)
    index = terminal_roll._Index(notes)
    for begin, end in [(0.0, 4.0), (3.5, 8.25), (16.0, 16.1), (150.0, 170.0), (200.0, 300.0)]:
        assert index.between(begin, end) == [n for n in notes if n.start < end - 1e-6 and n.end > begin + 1e-6]
