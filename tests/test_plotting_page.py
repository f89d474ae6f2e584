"""A piece as one HTML page: what is in the file. What it does in a browser is in test_plotting_page_browser.py."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import midi
from musiclm.errors import MidiError
from musiclm.plotting import page
from musiclm.plotting.page import page_data, piece_page
from musiclm.rendering.ogg import to_ogg
from musiclm.rendering.soundfont import bundled

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "'\"><svg onload=alert(1)>&lt;",
    "/*DATA*/ /*SOUND*/ ${alert(1)}",
    "\u2028\u202eevil",
    "\ud800",
)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def sound_of(text: str) -> bytes:
    return base64.b64decode(re.search(r'src="data:audio/ogg;base64,([\w+/=]+)"', text)[1])


def elements(text: str) -> list[tuple[str, list[str]]]:
    """Return the tags of a page with the names of their attributes."""
    found: list[tuple[str, list[str]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append((tag, [name for name, _ in attrs]))

    Parser().feed(text)
    return found


@pytest.fixture
def hostile(song: Score) -> Score:
    for name in HOSTILE[:-1]:  # the last cannot be in a MIDI file, but can be in a file's name
        track = Track(name, 10)
        track.notes.append(Note(0, 480, 70, 80))
        song.tracks.append(track)
    return song


def test_names_from_files_are_text_whatever_they_are(song: Score, hostile: Score):
    plain = Score(480)
    plain.tracks.append(Track("Plain", 0))
    plain.tracks[0].notes.append(Note(0, 480, 60, 80))
    expected = elements(piece_page(plain, title="plain"))
    for title in HOSTILE:
        text = piece_page(hostile, title=title, soundfont=bundled())
        assert elements(text) == expected
        data = data_of(text)
        assert data["title"] == title
        assert [t["name"] for t in data["tracks"]] == [t.name.strip() for t in hostile.tracks]
        assert text.encode()


def test_the_page_needs_nothing_else_and_its_policy_allows_nothing_else(song: Score):
    text = piece_page(song, title="song")
    addresses = re.findall(r'\b(?:src|href|action|srcset|poster)\s*=\s*"([^"]*)"', text)
    assert len(addresses) == 2
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", text)
    assert not re.search(r'\son\w+="|\sstyle="', text), "an inline handler or style, which the policy refuses"
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', text)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": hash_of(re.search(r"<script>(.*?)</script>", text, re.S)[1]),
        "style-src": hash_of(re.search(r"<style>(.*?)</style>", text, re.S)[1]),
        "media-src": "data:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert text.index("Content-Security-Policy") < text.index("<style>"), "it holds for what comes after it"


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_notes_are_the_scores_in_seconds(song: Score):
    song.tempos.append(Tempo(5 * 480, 61))
    song.tempos.append(Tempo(11 * 480, 133.5))
    data = page_data(song, prompt=None, kept=None, first_bar=1)
    timed = song.to("second")
    expected = sorted((n.time, n.end, n.pitch, i, 0) for i, t in enumerate(timed.tracks) for n in t.notes)
    found = sorted((n[0], n[1], n[2], n[3], n[5]) for n in data["notes"])
    assert len(found) == song.note_num()
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert [n[0] for n in data["notes"]] == sorted(n[0] for n in data["notes"])
    assert [(t["name"], t["instrument"], t["notes"], t["drum"]) for t in data["tracks"]] == [
        ("Tune", "Flute", 24, False),
        ("Chords", "Acoustic Grand Piano", 24, False),
        ("Drums", "Drums", 24, True),
    ]
    assert data["tracks"][1]["compass"] == "C3 to G3"
    assert data["drums"] == [[42, "hat"], [36, "kick"]]
    assert data["end"] == pytest.approx(max(n.end for t in timed.tracks for n in t.notes), abs=2e-4)


def test_bars_follow_the_tempo_and_say_their_time_signature(song: Score):
    song.time_signatures.append(TimeSignature(2 * 1440, 4, 4))
    song.tempos.append(Tempo(1440, 180))
    bars = page_data(song, prompt=None, kept=None, first_bar=9)["bars"]
    assert bars[:5] == [[0, 9, "3/4"], [2, 10, ""], [3, 11, "4/4"], [4.3333, 12, ""], [5.6667, 13, ""]]
    assert len(bars) == 2 + 5, "18 quarters in 4/4, the last bar is not full"


def test_the_prompt_and_the_given_notes_are_pale(song: Score):
    data = page_data(song, prompt=6.0, kept=None, first_bar=1)
    assert data["prompt"] == pytest.approx(4.0)
    assert all(n[5] == (n[0] < 4 - 1e-3) for n in data["notes"])
    original = song.copy()
    original.tracks = type(song.tracks)([t for t in song.tracks if t.name == "Chords"])
    data = page_data(song, prompt=None, kept=original, first_bar=1)
    assert data["kept"] and data["prompt"] is None
    assert [n for n in data["notes"] if n[5]] == [n for n in data["notes"] if n[3] == 1]


def test_the_sound_is_small_mono_and_in_time():
    score = Score(480)
    score.tempos.append(Tempo(0, 60))
    score.tracks.append(Track("", 0))
    score.tracks[0].notes.append(Note(3 * 480, 480, 60, 100))
    sound, rate = soundfile.read(io.BytesIO(to_ogg(score, bundled())))
    assert (sound.ndim, rate) == (1, 32_000)
    assert np.abs(sound).max() == pytest.approx(0.89, abs=0.05)
    assert np.argmax(np.abs(sound) > 0.05) / rate == pytest.approx(3.0, abs=0.03)
    assert len(sound) / rate > 4
    score.tracks[0].is_drum = True
    score.tracks[0].notes[0].pitch = 3
    assert to_ogg(score, bundled()) is None


def test_a_page_without_a_sound_has_no_source(monkeypatch, song: Score):
    monkeypatch.setattr("musiclm.rendering.ogg.to_ogg", lambda score, soundfont: None)
    assert "<audio" in (text := piece_page(song, title="song"))
    assert "data:audio" not in text and "src=" not in re.search("<audio.*?>", text)[0]


def band(seconds: int) -> Score:
    """Return dense music for that many seconds: chords, a bass and drums, four onsets a second each, 32 notes a second."""
    draw = random.Random(0)
    score = Score(480)
    score.tempos.append(Tempo(0, 120))
    for name, program, low, count in (
        ("Keys", 4, 55, 3),
        ("Guitar", 27, 50, 2),
        ("Bass", 33, 30, 1),
        ("Drums", 0, 35, 2),
    ):
        track = Track(name, program, name == "Drums")
        for step in range(4 * seconds):
            for pitch in draw.sample(range(low, low + 15), count):
                track.notes.append(Note(240 * step, 230, pitch, draw.randrange(50, 120)))
        score.tracks.append(track)
    return score


def test_a_minute_of_dense_music_takes_at_most_600_kilobytes():
    text = piece_page(band(60), title="band", soundfont=bundled())
    assert soundfile.info(io.BytesIO(sound_of(text))).duration >= 60
    assert len(text) <= 600_000


def test_a_longer_piece_is_cut_and_the_page_says_so(monkeypatch, song: Score):
    monkeypatch.setattr(page, "MAX_SECONDS", 5.0)
    data = data_of(text := piece_page(song, title="song"))
    assert data["whole"] == pytest.approx(midi.seconds(song), abs=0.1)
    assert data["end"] == pytest.approx(5.0, abs=0.01)
    assert len(data["notes"]) == sum(n.time < 5.0 - 1e-3 for t in song.to("second").tracks for n in t.notes)
    assert soundfile.info(io.BytesIO(sound_of(text))).duration < 12
    late = midi.without_before(song, 12.0)
    with pytest.raises(MidiError, match="no note begins within the first"):
        piece_page(late, title="late")


def test_show_writes_a_page(run, song_file: Path):
    assert run("show", song_file, "-o", "a.html", "--prompt-bars", 2)[:2] == (0, "a.html\n")
    data = data_of(Path("a.html").read_text("utf-8"))
    assert (data["title"], data["prompt"]) == ("song.mid", 4.0)
    assert run("show", song_file, "-o", "a.html")[0] == 1
    assert run("show", song_file, "-o", "a.html", "--force", "--bars", "3-4", "--soundfont", bundled())[0] == 0
    assert [bar[1] for bar in data_of(Path("a.html").read_text("utf-8"))["bars"]] == [3, 4]
    assert run("show", song_file, "-o", "b.html", "--soundfont", "nowhere.sf2")[0] == 1
    assert run("show", song_file, "-o", "b.svg", "--soundfont", bundled())[0] == 2
    assert run("show", song_file, "--soundfont", bundled())[0] == 2
    assert not Path("b.html").exists()


def test_show_says_that_a_long_piece_is_cut(run, monkeypatch, song_file: Path):
    monkeypatch.setattr(page, "MAX_SECONDS", 5.0)
    code, _, told = run("show", song_file, "-o", "a.html")
    assert code == 0 and "--bars A-B" in told
    assert run("show", song_file, "-o", "a.html", "--force", "-q")[2] == ""


def test_generate_writes_pages_beside_the_same_files(run, song_file: Path, untrained):
    shared = ("generate", "--model", untrained("score"), "--seed", 1, "--bars", 1, "--prompt", song_file, "-n", 2)
    assert run(*shared, "-o", "plain.mid")[0] == 0
    code, out, told = run(*shared, "-o", "new.mid", "--html")
    assert code == 0, told
    assert out.split() == ["new-1.mid", "new-2.mid", "new-1.html", "new-2.html"]
    for i in (1, 2):
        assert Path(f"new-{i}.mid").read_bytes() == Path(f"plain-{i}.mid").read_bytes()
        data = data_of(Path(f"new-{i}.html").read_text("utf-8"))
        assert data["title"] == f"new-{i}.mid"
        assert sum(n[5] for n in data["notes"]) == 72 and data["prompt"] == 16.0
    Path("other.html").touch()
    code, out, told = run("generate", "--model", "nowhere", "-o", "other.mid", "--html")
    assert (code, out) == (1, "") and "other.html" in told, "before a model is loaded"
    assert run("generate", "-o", "-", "--html")[0] == 2
    assert run("generate", "--stream", "--html")[0] == 2
    assert json.loads(run(*shared, "-o", "j.mid", "--html", "--json")[1])["pages"] == ["j-1.html", "j-2.html"]


def test_what_infilling_kept_is_pale(run):
    hymn = Path(__file__).parents[1] / "examples" / "hymn.mid"
    asked = [
        "generate",
        "--model",
        "bach-infill",
        "--prompt",
        hymn,
        "--infill",
        "3",
        "--seed",
        1,
        "-o",
        "f.mid",
        "--html",
    ]
    code, _, told = run(*asked)
    assert code == 0, told
    data = data_of(Path("f.html").read_text("utf-8"))
    assert data["kept"] and data["prompt"] is None
    begin, end = (next(bar[0] for bar in data["bars"] if bar[1] == number) for number in (3, 4))
    outside = [n for n in data["notes"] if not begin - 1e-3 < n[0] < end - 1e-3]
    assert len(outside) > 20 and all(n[5] for n in outside)
    assert not all(n[5] for n in data["notes"])
