"""musiclm classify on odd recordings of one note: each has the note's family, or an error of one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from musiclm.cli import main

RATE = 16_000
TOO_SHORT, SILENT, NOT_FINITE = "too short", "it is silent", "not finite"


def note(rate: int = RATE, seconds: float = 1.2) -> np.ndarray:
    """Return an organ's note, of which the bundled classifier is sure, with a peak of 0.8."""
    t = np.arange(int(seconds * RATE)) / RATE
    stops = {1: 1.0, 2: 0.8, 3: 0.4, 4: 0.6, 6: 0.3, 8: 0.3}
    sound = sum(gain * np.sin(2 * np.pi * 262 * k * t) for k, gain in stops.items())
    sound = sound * np.clip(100 * t, 0, 1) * np.clip(20 * (seconds - t), 0, 1)
    return soxr.resample(0.8 * sound / np.abs(sound).max(), RATE, rate)


def silence(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.zeros(int(seconds * rate))


def with_value(value: float) -> np.ndarray:
    sound = note()
    sound[3000] = value
    return sound


def hiss(num_samples: int, level: float) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(num_samples)


def side_by_side(*gains: float) -> np.ndarray:
    return np.stack([gain * note(44_100) for gain in gains], axis=1)


HIGH, CD = note(96_000), note(44_100)
LATE = np.concatenate([silence(5), note()])
CLICK = np.concatenate([silence(0.5), [1.0, -1.0], silence(3), 0.5 * note()])
SOUNDS = {  # name: (samples, rate, subtype)
    "8-bit.wav": (note(), RATE, "PCM_U8"),
    "8-khz.wav": (note(8000), 8000, "PCM_16"),
    "mu-law-8-khz.wav": (note(8000), 8000, "ULAW"),
    "96-khz.wav": (HIGH, 96_000, "PCM_24"),
    "24-bit.wav": (CD, 44_100, "PCM_24"),
    "float.wav": (CD, 44_100, "FLOAT"),
    "far-above-full-scale.wav": (300 * CD, 44_100, "FLOAT"),
    "out-of-phase.wav": (side_by_side(1, -1), 44_100, "PCM_16"),
    "one-channel-silent.wav": (side_by_side(0, 1), 44_100, "PCM_16"),
    "six-channels.wav": (side_by_side(0.3, 0.3, 0.8, 0, 0.1, 0.1), 44_100, "PCM_16"),
    "clipped.wav": (np.clip(2 * note(), -1, 1), RATE, "PCM_16"),
    "minus-60-db.wav": (1e-3 * note(), RATE, "PCM_16"),
    "offset.wav": (0.4 * CD + 0.5, 44_100, "PCM_16"),
    "after-five-seconds.wav": (LATE, RATE, "PCM_16"),
    "after-five-seconds-of-noise.wav": (LATE + hiss(len(LATE), 2e-3), RATE, "PCM_16"),
    "after-a-click.wav": (CLICK, RATE, "PCM_16"),
    "flac.flac": (CD, 44_100, None),
    "offset.flac": (0.4 * CD + 0.5, 44_100, None),
    "ogg.ogg": (CD, 44_100, None),
    "silence.wav": (silence(1), RATE, "PCM_16"),
    "dither.wav": (hiss(RATE, 1e-5), RATE, "PCM_16"),
    "empty.wav": (silence(0), RATE, "PCM_16"),
    "10-ms.wav": (note()[:160], RATE, "PCM_16"),
    "nan.wav": (with_value(np.nan), RATE, "FLOAT"),
    "infinite.wav": (with_value(np.inf), RATE, "FLOAT"),
}
ERRORS = {
    "silence.wav": SILENT,
    "dither.wav": SILENT,
    "empty.wav": TOO_SHORT,
    "10-ms.wav": TOO_SHORT,
    "nan.wav": NOT_FINITE,
    "infinite.wav": NOT_FINITE,
    "text.wav": "not a readable sound file",
    "cut-in-the-header.flac": "not a readable sound file",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    for name, (samples, rate, subtype) in SOUNDS.items():
        soundfile.write(root / name, samples, rate, subtype=subtype)
    for name in ("24-bit.wav", "flac.flac", "offset.flac"):
        data = (root / name).read_bytes()
        (root / f"cut-{name}").write_bytes(data[: int(0.7 * len(data))])
    (root / "cut-in-the-header.flac").write_bytes((root / "flac.flac").read_bytes()[:200])
    (root / "flac.wav").write_bytes((root / "flac.flac").read_bytes())
    (root / "ogg.mp3").write_bytes((root / "ogg.ogg").read_bytes())
    (root / "text.wav").write_text("not a sound\n" * 30)
    soundfile.write(root / "plain.wav", note(), RATE)
    return root


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, dict[str, object]]:
    """Return the answers of one call by file name."""
    command = [sys.executable, "-m", "musiclm", "classify", "--json", *sorted(map(str, folder.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == len(ERRORS)
    return {Path(each["path"]).name: each for each in json.loads(done.stdout)}


def test_each_odd_recording_has_the_family_of_its_note_or_an_error(answers: dict[str, dict[str, object]]) -> None:
    plain = answers["plain.wav"]
    assert not plain["unsure"]
    for name, answer in answers.items():
        if name in ERRORS:
            assert ERRORS[name] in str(answer["error"]), name
        else:
            may_be_unsure = name == "clipped.wav"  # its new partials are another sound
            assert answer["family"] == plain["family"] or (may_be_unsure and answer["unsure"]), (name, answer)


@pytest.mark.parametrize("name", ["after-five-seconds.wav", "after-a-click.wav"])
def test_what_is_before_a_note_does_not_change_its_answer(answers: dict[str, dict[str, object]], name: str) -> None:
    """A horn after 5 s of silence was a reed: its attack was cut, as that of a note in a melody; after a click, a mallet."""
    assert answers[name]["probability"] == pytest.approx(answers["plain.wav"]["probability"], abs=0.02)


def test_a_cut_flac_file_is_read_up_to_the_cut(answers: dict[str, dict[str, object]]) -> None:
    """Cut files of other formats were read, those of FLAC were refused."""
    for name in ("flac.flac", "offset.flac"):  # one with an offset is read twice
        whole, cut = (float(str(answers[each]["seconds"])) for each in (name, f"cut-{name}"))
        assert 0.5 < cut / whole < 0.9


@pytest.mark.slow
def test_a_note_in_half_an_hour_is_found_in_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[str, dict[str, object]]
) -> None:
    sound = np.zeros(30 * 60 * RATE, np.int16)
    sound[17 * 60 * RATE :][: len(note())] = 30_000 * note()
    soundfile.write(tmp_path / "long.wav", sound, RATE)
    before = time.process_time()
    with pytest.raises(SystemExit) as caught:
        main(["classify", str(tmp_path / "long.wav"), "--json"])
    assert not caught.value.code and time.process_time() - before < 10
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["seconds"] == 1800
    assert answer["family"] == answers["plain.wav"]["family"]


def test_files_that_are_missing_are_told_without_loading_torch() -> None:
    code = (
        "import sys; from musiclm.cli import main\n"
        "try: main(['classify', 'none.wav', 'nor this.wav'])\n"
        "except SystemExit as end: assert end.code == 1\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, second = done.stderr.splitlines()
    assert first == "Error: none.wav: No such file or directory" and "nor this.wav" in second
