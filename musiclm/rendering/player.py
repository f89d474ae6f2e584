"""Playback: by an audio player of the machine, or by an installed sound library."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import soundfile

from ..errors import AudioError

PLAYERS = (  # each takes a WAV file after these options
    ("afplay",),
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("play", "-q"),
    ("mpv", "--no-video", "--really-quiet"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("cvlc", "--quiet", "--play-and-exit"),
)
HOW = "install aplay (alsa-utils), sox or ffmpeg, or pip install sounddevice; or 'musiclm render FILE -o out.wav'"


def check_player() -> None:
    """Check that something on this machine can play sound.

    Raises:
        AudioError: there is neither a player nor a sound library.
    """
    if not (_players() or os.name == "nt" or find_spec("sounddevice")):
        raise AudioError(f"nothing here can play sound: {HOW}")


def _players() -> list[tuple[str, ...]]:
    return [player for player in PLAYERS if shutil.which(player[0])]


def play(path: Path) -> str:
    """Play a WAV file to its end, and return the name of the player. Ctrl-C stops it.

    Raises:
        AudioError: there is no player, or all players failed.
    """
    check_player()
    failures = []
    length = soundfile.info(path).duration
    for player in _players():
        began = time.monotonic()
        done = subprocess.run(
            [*player, str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        # ffplay exits with 0 if it finds no audio device: a player that ends too early has not played
        if done.returncode == 0 and time.monotonic() - began > length / 2 - 1:
            return player[0]
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        failures.append(f"{player[0]} says: {said[-1].strip()}")
    if os.name == "nt":
        import winsound

        winsound.PlaySound(str(path), winsound.SND_FILENAME)  # type: ignore[attr-defined,unused-ignore]
        return "Windows"
    if find_spec("sounddevice"):
        try:
            import sounddevice

            sounddevice.play(*soundfile.read(path, dtype="float32"), blocking=True)
            return "sounddevice"
        except Exception as error:  # no PortAudio (OSError), no device (PortAudioError)
            failures.append(f"sounddevice says: {error}")
    raise AudioError(f"nothing here could play the sound ({failures[0]}): {HOW}")
