"""Scores to sound."""

from __future__ import annotations

import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from symusic import ControlChange, Note, Score, Tempo, Track

from musiclm import midi, rendering
from musiclm.errors import AudioError, MusicLMError, OutputError
from musiclm.rendering import player as playing
from musiclm.rendering import synthesizer
from musiclm.rendering.soundfont import Soundfont, bundled
from musiclm.rendering.synthesizer import RATE, Synthesizer


@pytest.fixture(scope="module")
def player() -> Synthesizer:
    return Synthesizer(Soundfont(bundled()))


@pytest.fixture(autouse=True)
def small_soundfont(monkeypatch):
    """The same sound on every machine, whatever soundfonts it has."""
    monkeypatch.setattr("musiclm.rendering.soundfont.on_this_system", lambda: None)


def music(*notes: tuple[int, int, int, int], program: int = 0, is_drum: bool = False, controls=()) -> Score:
    """Return a score at 120 quarters a minute: each note's start and length in ticks of 480, pitch and velocity."""
    score = Score(480)
    score.tempos.append(Tempo(0, 120))
    track = Track("", program, is_drum)
    for note in notes:
        track.notes.append(Note(*note))
    for control in controls:
        track.controls.append(ControlChange(*control))
    score.tracks.append(track)
    return score


def sound(player: Synthesizer, score: Score) -> np.ndarray:
    return np.concatenate([block.copy() for block in player.blocks(score)], 1)


def loudness(frames: np.ndarray, begin: float, end: float) -> float:
    part = frames[:, int(begin * RATE) : int(end * RATE)]
    return float(np.sqrt((part**2).mean())) if part.size else 0.0


def test_a_note_struck_harder_is_louder_as_the_specification_says(player):
    """symusic's synthesiser gives every velocity the same sound."""
    soft, hard = (np.abs(sound(player, music((0, 480, 60, v)))).max() for v in (64, 127))
    assert soft / hard == pytest.approx((64 / 127) ** 2, rel=0.02)


def test_a_piano_dies_away_while_it_is_held_and_an_organ_does_not(player):
    piano = sound(player, music((0, 3840, 60, 100)))
    organ = sound(player, music((0, 3840, 60, 100), program=16))
    assert loudness(piano, 2.5, 3.0) < 0.1 * loudness(piano, 0.0, 0.5)
    assert loudness(organ, 2.5, 3.0) > 0.7 * loudness(organ, 0.5, 1.0)


def test_the_pedal_holds_a_note(player):
    dry = sound(player, music((0, 240, 60, 100)))
    wet = sound(player, music((0, 240, 60, 100), controls=[(0, 64, 127), (1920, 64, 0)]))
    assert loudness(wet, 1.0, 1.5) > 20 * loudness(dry, 1.0, 1.5)


def test_volume_and_place_of_a_channel_are_heard(player):
    plain = sound(player, music((0, 480, 60, 100), program=73))
    softer = sound(player, music((0, 480, 60, 100), program=73, controls=[(0, 7, 50)]))
    left = sound(player, music((0, 480, 60, 100), program=73, controls=[(0, 10, 0)]))
    assert np.abs(softer).max() == pytest.approx(np.abs(plain).max() / 4, rel=0.05)
    assert np.abs(left[0]).max() > 100 * np.abs(left[1]).max()


def test_a_closed_hat_ends_an_open_one(player):
    open_hat = sound(player, music((0, 120, 46, 100), is_drum=True))
    both = sound(player, music((0, 120, 46, 100), (240, 120, 42, 100), is_drum=True))
    assert loudness(both, 0.5, 0.7) < 0.5 * loudness(open_hat, 0.5, 0.7)


def test_the_last_note_rings_out(player):
    frames = sound(player, music((0, 480, 60, 100), program=48))
    assert frames.shape[1] > 1.0 * RATE
    assert np.abs(frames[:, -RATE // 100 :]).max() < 1e-3 * np.abs(frames).max()


def test_pieces_are_the_whole(player, song, monkeypatch):
    whole = sound(player, song)
    monkeypatch.setattr(synthesizer, "BLOCK", 10_007)
    np.testing.assert_array_equal(sound(player, song), whole)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_every_kind_of_file_is_stereo_levelled_and_as_long_as_the_music(song, tmp_path, suffix: str):
    path = tmp_path / f"song{suffix}"
    told = rendering.render(song, path)
    frames, rate = soundfile.read(path)
    assert (rate, frames.shape[1]) == (44_100, 2)
    assert np.abs(frames).max() == pytest.approx(10 ** (-1 / 20), abs=0.02 if suffix in (".wav", ".flac") else 0.1)
    assert len(frames) / rate == pytest.approx(told.seconds, abs=0.1)
    assert midi.seconds(song) < told.seconds < midi.seconds(song) + 5
    if suffix == ".wav":
        assert soundfile.info(path).subtype == "PCM_16"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_music_too_long_to_keep_is_played_twice_and_sounds_the_same(song, tmp_path, monkeypatch):
    rendering.render(song, tmp_path / "kept.wav")
    monkeypatch.setattr(synthesizer, "BLOCK", RATE)
    monkeypatch.setattr(rendering, "MAX_KEPT", 2)
    rendering.render(song, tmp_path / "again.wav")
    assert (tmp_path / "kept.wav").read_bytes() == (tmp_path / "again.wav").read_bytes()


def test_what_wav_cannot_count_is_rf64(song, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "MAX_WAV", 1000)
    rendering.render(song, tmp_path / "long.wav")
    assert soundfile.info(tmp_path / "long.wav").format == "RF64"


def test_a_bad_soundfont_is_one_line(song, tmp_path):
    data = bundled().read_bytes()
    wrong = {
        "empty.sf2": b"",
        "text.sf2": b"I am a text\n" * 9,
        "half.sf2": data[: len(data) // 2],
        "head.sf2": data[:12],
    }
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
    for name in (*wrong, "nowhere.sf2", "."):
        with pytest.raises(AudioError) as caught:
            rendering.render(song, tmp_path / "out.wav", soundfont=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.wav").exists()


def test_a_soundfont_with_nonsense_in_its_tables_is_sound_or_one_line(song, tmp_path):
    data = bundled().read_bytes()
    first = data.index(b"pdta")
    draw = np.random.default_rng(0)
    for number in range(12):
        broken = bytearray(data)
        for at in draw.integers(first, len(data), 200):
            broken[at] = draw.integers(256)
        path = tmp_path / f"{number}.sf2"
        path.write_bytes(broken)
        try:
            frames = sound(Synthesizer(Soundfont(path)), song)
        except MusicLMError as error:
            assert "\n" not in str(error)
        else:
            assert np.isfinite(frames).all()
        path.unlink()


def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(song, tmp_path):
    (tmp_path / "mine.wav").write_text("mine")
    for place in ("nowhere/out.wav", "out.midi", "mine.wav", "out"):
        with pytest.raises(OutputError):
            rendering.render(song, tmp_path / place)
    assert (tmp_path / "mine.wav").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.wav"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(song, tmp_path):
    (tmp_path / "full.wav").symlink_to("/dev/full")
    with pytest.raises(OutputError) as caught:
        rendering.render(song, tmp_path / "full.wav", force=True)
    assert "\n" not in str(caught.value)


def fake_player(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.skipif(sys.platform == "win32", reason="needs scripts that run")
def test_the_machines_own_player_is_given_the_music(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(playing, "find_spec", lambda name: None)
    with pytest.raises(AudioError, match="nothing here can play"):
        playing.check_player()
    fake_player(tmp_path, "aplay", "sys.exit('no sound card')")
    rendering.render(music((0, 480, 60, 100)), tmp_path / "song.wav")
    with pytest.raises(AudioError, match="aplay says: no sound card"):
        playing.play(tmp_path / "song.wav")
    fake_player(tmp_path, "ffplay", f"open({str(tmp_path / 'heard')!r}, 'wb').write(open(sys.argv[-1], 'rb').read(4))")
    assert playing.play(tmp_path / "song.wav") == "ffplay"
    assert (tmp_path / "heard").read_bytes() == b"RIFF"
    rendering.render(music((0, 480, 60, 100), (9600, 480, 60, 100)), tmp_path / "long.wav")
    with pytest.raises(AudioError, match="nothing here could play"):
        playing.play(tmp_path / "long.wav")


def test_the_commands_render_to_a_file_to_a_pipe_and_beside_new_music(run, song_file):
    code, out, err = run("render", song_file, "--soundfont", bundled())
    assert code == 0, err
    assert Path(out.strip()).stat().st_size == 44 + 4 * soundfile.info("song.wav").frames
    assert run("render", song_file)[0] == 1
    command = [sys.executable, "-m", "musiclm", "render", "-", "-o", "-", "--soundfont", str(bundled())]
    piped = subprocess.run(command, input=song_file.read_bytes(), capture_output=True, check=True).stdout
    assert piped == Path("song.wav").read_bytes()
    code, out, err = run("generate", "--bars", 1, "--seed", 1, "--wav", "--model", "bach-gru")
    assert code == 0, err
    assert [Path(p).suffix for p in out.split()] == [".mid", ".wav"]
    assert soundfile.info(out.split()[1]).frames > RATE
    assert run("generate", "--wav", "-o", "-")[0] == 2


def test_bad_input_of_render_is_one_line(run, tmp_path):
    (tmp_path / "bad.mid").write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk")
    (tmp_path / "text.mid").write_text("I am a text")
    midi.write(Score(480), tmp_path / "empty.mid")
    for arguments in (["bad.mid"], ["text.mid"], ["nowhere.mid"], ["empty.mid"], ["text.mid", "-o", "x.midi"]):
        code, out, err = run("render", *arguments)
        assert (code, out) == (1, "")
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
