"""musiclm classify and musiclm classifier, as a newcomer types them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from musiclm.cli import _classifier_training, main

from musiclm.audio import FAMILIES
from musiclm.audio import models as note_models
from musiclm.audio.classifier import NoteClassifier
from tests.real_data import DATA

torch.set_num_threads(1)


def note(hz: float = 220.0, seconds: float = 0.6, rate: int = 44_100) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return (0.4 * sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 10)) * np.exp(-3 * t)).astype(np.float32)


def run(*arguments: str | Path) -> int:
    """Return the exit code of musiclm with these arguments."""
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with a note in several formats."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, subtype in (("a.wav", "PCM_16"), ("b.flac", "PCM_16"), ("c.ogg", "VORBIS"), ("d.mp3", "MPEG_LAYER_III")):
        soundfile.write(folder / name, np.stack([note(), note()], axis=1), 44_100, subtype=subtype)
    soundfile.write(folder / "e.opus", note(rate=48_000), 48_000, format="OGG", subtype="OPUS")
    soundfile.write(folder / "f.aiff", note(rate=8000), 8000)
    return folder


def test_one_prediction_per_file_in_the_order_given(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = [files / "c.ogg", files / "a.wav", files / "e.opus"]
    assert run("classify", *order, "--json", "--top", "4") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [a["path"] for a in answers] == [str(p) for p in order]
    for answer in answers:
        assert list(answer) == ["path", "family", "probability", "unsure", "top", "seconds", "sample_rate"]
        assert answer["family"] in FAMILIES
        assert answer["top"][0] == {"family": answer["family"], "probability": answer["probability"]}
        assert len(answer["top"]) == 4
        assert answer["unsure"] is (answer["probability"] < 0.5)
        assert answer["seconds"] == pytest.approx(0.6, abs=0.1)
    assert [a["sample_rate"] for a in answers] == [44_100, 44_100, 48_000]


def test_formats_agree(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", files / "a.wav", files / "b.flac", "--json") == 0
    wav, flac = json.loads(capsys.readouterr().out)
    assert [t["family"] for t in wav["top"]] == [t["family"] for t in flac["top"]]
    assert wav["probability"] == pytest.approx(flac["probability"], abs=1e-3)


def test_a_folder_stands_for_the_sounds_in_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "notes.txt").write_text("no sound")
    assert run("classify", files, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    assert [Path(a["path"]).name for a in answers] == ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.opus", "f.aiff"]


def test_a_table_for_people(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", files / "a.wav") == 0
    printed = capsys.readouterr().out
    assert "a.wav" in printed
    assert any(f in printed for f in FAMILIES)


def test_failed_files_are_reported_and_the_others_classified(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "text.wav": b"a letter, not a sound\n" * 9,
        "empty.wav": b"",
        "film.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "three.wav", np.ones(3, np.float32), 16_000)
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000, np.float32), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    (tmp_path / "nothing").mkdir()
    names = [*bad, "three.wav", "silence.wav", "nan.wav", "nothing", "absent.wav"]
    assert run("classify", *(tmp_path / n for n in names), files / "a.wav", "--json") == 1
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert [Path(a["path"]).name for a in answers] == [*names, "a.wav"]
    assert all(list(a) == ["path", "error"] for a in answers[:-1])
    assert answers[-1]["family"] in FAMILIES
    assert len(captured.err.splitlines()) == len(names)
    assert "ffmpeg" in answers[2]["error"]


def test_standard_input_is_a_file(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((files / "c.ogg").read_bytes())))
    assert run("classify", "-", files / "c.ogg", "--json") == 0
    piped, named = json.loads(capsys.readouterr().out)
    assert piped["path"] == "-"
    assert [t["family"] for t in piped["top"]] == [t["family"] for t in named["top"]]


def test_notes_classifies_each_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = np.concatenate([note(hz, 0.7) for hz in (220, 330, 440)])
    soundfile.write(tmp_path / "tune.wav", tune, 44_100)
    assert run("classify", tmp_path / "tune.wav", "--notes", "--json") == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert [n["start"] for n in answer["notes"]] == pytest.approx([0, 0.7, 1.4], abs=0.06)
    assert all(list(n) == ["start", "end", "family", "probability"] for n in answer["notes"])
    assert run("classify", tmp_path / "tune.wav", "--notes") == 0
    assert len(capsys.readouterr().out.splitlines()) == 5  # the head, the file, its notes


def test_any_file_name_is_read_and_shown(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets were taken for colours, and names that are not UTF-8 could not be opened."""
    names = [files / "[red]a.wav", Path(os.fsdecode(os.fsencode(files) + b"/b\xff.wav"))]
    try:
        for name in names:
            name.write_bytes((files / "a.wav").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert run("classify", *names) == 0
    printed = capsys.readouterr().out
    assert "[red]a.wav" in printed
    assert "b\ufffd.wav" in printed


def test_wrong_usage_is_exit_code_two(files: Path) -> None:
    assert run("classify") == 2
    assert run("classify", files, "--top", "12") == 2
    assert run("classifier", "train", files) == 2


def test_a_wrong_model_is_one_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", files / "a.wav", "--model", files / "a.wav") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def families(folder: Path) -> Path:
    """Make a set of two families with two instruments each."""
    for family, power in (("flute", 3.0), ("reed", 0.3)):
        for player in range(2):
            inside = folder / family / str(player)
            inside.mkdir(parents=True)
            for i in range(4):
                t = np.arange(8000) / 16_000
                sound = sum(np.sin(2 * np.pi * (300 + 40 * i) * k * t) / k**power for k in range(1, 8))
                soundfile.write(inside / f"{i}.wav", 0.2 * sound, 16_000)
    return folder


@pytest.mark.parametrize("step", [1, 4])
def test_training_that_diverges_is_an_error_and_keeps_the_best_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Scores that are NaN were taken for a best check, and their weights were saved."""
    from musiclm.training.optim import Recipe

    rate = Recipe.rate
    monkeypatch.setattr(Recipe, "rate", lambda self, at, *a: float("nan") if at == step - 1 else rate(self, at, *a))
    notes, mine = families(tmp_path / "notes"), tmp_path / "mine.safetensors"
    options = ["--steps", "6", "--seed", "3", "--versions", "1", "--json"]
    assert run("classifier", "train", notes, "-o", mine, *options) == 1
    captured = capsys.readouterr()
    (line,) = [each for each in captured.err.splitlines() if each.startswith("Error")]
    assert captured.out == ""
    assert f"of step {step} was not finite" in line
    assert mine.exists() is (step > 1)
    if step > 1:
        assert f"is in '{mine}'" in line
        assert all(torch.isfinite(p).all() for p in NoteClassifier.load(mine).model.state_dict().values())


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_an_interrupted_training_saves_the_best_classifier_so_far(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Nothing of it was saved, however long it had trained."""
    from musiclm.audio import fit

    passed = []

    def interrupted(step: Any, choose: Any) -> float | None:
        passed.append(step.number)
        if len(passed) == 2:
            os.kill(os.getpid(), number)
            signal.getsignal(number)  # a moment for the handler to run in
            return 0.0  # worse than the check before
        return 1.0

    monkeypatch.setattr(fit, "_checked_recall", interrupted)
    notes, mine = families(tmp_path / "notes"), tmp_path / "mine.safetensors"
    options = ["--steps", "60", "--seed", "3", "--versions", "1"]
    assert run("classifier", "train", notes, "-o", mine, *options, "--json") == 128 + number
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert passed == [3, 6] and printed["steps"] == 6 and printed["interrupted"]
    assert printed["validation_mean_family_recall"] == 1.0
    assert captured.err.splitlines()[-1].startswith("Stopped and saved: the best classifier so far, of step 3, is in '")
    assert NoteClassifier.load(mine).card["interrupted_at_step"] == 6


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("when", ["prepare", "_recipe"])
def test_a_training_that_is_interrupted_before_its_first_validation_saves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    called = getattr(_classifier_training, when)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        signal.getsignal(signal.SIGINT)
        return called(*arguments, **options)

    monkeypatch.setattr(_classifier_training, when, interrupted)
    notes, mine = families(tmp_path / "notes"), tmp_path / "mine.safetensors"
    assert run("classifier", "train", notes, "-o", mine, "--steps", "9", "--versions", "1") == 130
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines()[-1] == "Stopped. Nothing was saved."
    assert not mine.exists()


@pytest.mark.slow
def test_train_evaluate_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes, mine = families(tmp_path / "notes"), tmp_path / "mine.safetensors"
    assert (
        run("classifier", "train", notes, "-o", mine, "--steps", "2", "--seed", "3", "--versions", "1", "--json") == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 2
    assert printed["seed"] == 3
    assert run("classifier", "train", notes, "-o", mine, "--steps", "2") == 1  # the file exists already
    capsys.readouterr()

    matrix = tmp_path / "confusion.png"
    assert run("classifier", "evaluate", notes, "--model", mine, "--json", "-o", matrix) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_notes"] == 16
    assert 0 <= report["mean_family_recall"] <= 1
    assert sum(map(sum, report["confusion"])) == 16
    assert matrix.read_bytes().startswith(b"\x89PNG")
    assert run("classifier", "evaluate", notes, "--model", mine) == 0
    assert "mean family recall" in capsys.readouterr().out

    one = notes / "flute/0/0.wav"
    assert run("classifier", "show", "-o", tmp_path / "pictures", "--data", notes, "--note", one) == 0
    drawn = capsys.readouterr().out.split()
    assert [Path(p).name for p in drawn] == ["kernels.png", "excitation.png", "saliency.png"]
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in drawn)
    assert run("classifier", "show", "-o", tmp_path / "pictures") == 1  # nothing is overwritten without --force


def test_an_ast_is_trained_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes, mine, pictures = families(tmp_path / "notes"), tmp_path / "mine.safetensors", tmp_path / "pictures"
    options = ["--arch", "ast", "--steps", "1", "--seed", "3", "--versions", "1", "--json"]
    assert run("classifier", "train", notes, "-o", mine, *options) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert "--arch ast" in NoteClassifier.load(mine).card["command"]
    one = notes / "flute/0/0.wav"
    assert run("classifier", "show", "--model", mine, "-o", pictures, "--note", one, "--data", notes) == 0
    captured = capsys.readouterr()
    made = [Path(p) for p in captured.out.split()]
    assert [p.name for p in made] == ["patches.png", "positions.png", "saliency.png", "rollout.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in made)
    assert "no kernels: --data has no effect" in captured.err
    assert run("classifier", "show", "--model", mine, "-o", pictures) == 1  # nothing is overwritten without --force


def test_notes_of_one_family_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = families(tmp_path / "notes")
    shutil.rmtree(notes / "reed")
    assert run("classifier", "train", notes, "-o", tmp_path / "mine.safetensors", "--steps", "1") == 1
    assert "are of the family flute: a classifier needs two" in capsys.readouterr().err
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("wrong", [["--model", "none.safetensors"], ["--note", "none.wav"], ["--data", "none"]])
def test_show_writes_nothing_if_anything_fails(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plots before the one that failed were left, and refused the next attempt without --force."""
    monkeypatch.chdir(tmp_path)
    assert run("classifier", "show", "-o", "pictures", *wrong) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and f"{wrong[1]}" in captured.err
    assert not (tmp_path / "pictures").exists()


def test_help_names_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classifier", "train", "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The architecture, cnn or ast" in printed and sorted(note_models.names()) == ["ast", "cnn"]


def test_an_architecture_of_another_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classifier", "train", tmp_path, "-o", tmp_path / "mine.safetensors", "--arch", "vit") == 2
    assert "one of ast, cnn" in capsys.readouterr().err


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; from musiclm.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'soundfile' not in sys.modules"
    )
    for arguments in (["--help"], ["classify", "--help"], ["classifier", "--help"], ["classifier", "train", "--help"]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.skipif(
    not (DATA / "notes.tar").is_file(), reason="needs notes.tar: set MUSICLM_DATA to the folder that has it"
)
@pytest.mark.slow
def test_the_bundled_classifier_recognizes_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """60 development recordings, which were used neither for training nor for selection."""
    import tarfile

    with tarfile.open(DATA / "notes.tar") as archive:
        members = [m for m in archive.getmembers() if m.isfile() and "/dev/" in m.name and m.name.endswith(".ogg")]
        chosen = {m.name: m for m in sorted(members, key=lambda m: m.name)[::8]}
        table = archive.extractfile(next(m for m in archive.getmembers() if m.name.endswith("notes.csv")))
        assert table is not None
        lines = table.read().decode().splitlines()
        for member in chosen.values():
            archive.extract(member, tmp_path, filter="data")
    root = tmp_path / next(iter(chosen)).split("/")[0]
    kept = [line for line in lines[1:] if f"{root.name}/{line.split(',')[0]}" in chosen]
    (root / "notes.csv").write_text("\n".join([lines[0], *kept]))
    assert run("classifier", "evaluate", root, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_notes"] == len(chosen)
    assert report["accuracy"] > 0.7


def test_a_folder_reads_every_format_of_libsndfile_and_counts_those_to_convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of m4a, webm, caf, w64 and au were passed over without a word."""
    soundfile.write(tmp_path / "a.caf", note(), 44_100)
    soundfile.write(tmp_path / "b.w64", note(), 44_100)
    soundfile.write(tmp_path / "c.au", note(), 44_100)
    soundfile.write(tmp_path / "d", note(), 44_100, format="WAV")  # a sound by its first bytes
    mpeg, webm, aac = b"\0\0\0\x20ftypM4A " + bytes(99), b"\x1a\x45\xdf\xa3" + bytes(99), b"\xff\xf1" + bytes(99)
    for name, content in (("e.m4a", mpeg), ("f", mpeg), ("g.webm", webm), ("h.aac", aac)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x20ftypheic" + bytes(99))
    (tmp_path / "notes.txt").write_text("no sound")
    assert run("classify", tmp_path, "--json") == 0
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert [Path(a["path"]).name for a in answers] == ["a.caf", "b.w64", "c.au", "d", "e.m4a", "f", "g.webm", "h.aac"]
    assert len({a["family"] for a in answers[:4]}) == 1
    assert all("ffmpeg" in a["error"] for a in answers[4:])
    printed = captured.err.splitlines()
    assert len(printed) == 3 and all(line.startswith("passed over: ") for line in printed)
    assert any("2 files: MPEG-4" in line for line in printed)
    for name in "abcd":
        next(tmp_path.glob(f"{name}*")).unlink()
    assert run("classify", tmp_path) == 1  # nothing was classified
    assert run("classify", tmp_path / "e.m4a") == 1  # a file that is named must be read
