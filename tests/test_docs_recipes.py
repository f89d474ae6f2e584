"""Each recipe of docs/contributing is followed literally in a copy of the package: files, edits, Python and commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from musiclm import midi
from tests.docs_pages import DOCS, ROOT, blocks

RECIPES = sorted((DOCS / "contributing").glob("add-a*.md"))
RUN = """
import json, shlex, sys, traceback
import torch
from musiclm.cli import main

torch.set_num_threads(1)
for language, text in json.load(sys.stdin):
    if language == "python":
        exec(compile(text, "the page", "exec"), {})
    for line in text.splitlines() if language == "sh" else ():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "musiclm", line
        try:
            main(arguments)
        except SystemExit as stopped:
            sys.stdout.flush()
            assert stopped.code == 0, f"exit code {stopped.code}: {line}"
"""


def follow(page: Path, folder: Path) -> str:
    """Do in a folder what a page says: make its files and edits, then run its code; return what that printed."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "musiclm", folder / "musiclm", ignore=ignored)
    for name in ("cli", "checkpoints"):  # where the installed package has them
        shutil.copytree(ROOT / name, folder / "musiclm" / name, ignore=ignored)
    weights = "bach-gru.safetensors"
    (folder / "musiclm" / "checkpoints" / weights).symlink_to(ROOT / "checkpoints" / weights)
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "tests").mkdir()
    (folder / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    to_run = []
    for block in blocks(page):
        path = folder / block.caption.replace("cli/", "musiclm/cli/", 1) if block.caption else None
        if path is None and block.language in ("python", "sh"):
            to_run.append((block.language, block.text))
        elif path is not None and block.language == "python":
            assert not path.exists(), f"{block.caption} exists"
            path.write_text(block.text, "utf-8")
        elif path is not None and block.language == "diff":
            edit(path, block.text)
    assert to_run, "the page runs nothing"
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "MUSICLM_CACHE": str(folder / "cache"),
    }
    found = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(to_run),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    return found.stdout


def edit(path: Path, diff: str) -> None:
    """Apply a diff without line numbers: its unmarked and removed lines must occur in the file exactly once, together."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    text = path.read_text("utf-8")
    assert before and text.count(before) == 1, f"{path.name} has {text.count(before)} places with\n{before}"
    path.write_text(text.replace(before, after), "utf-8")


def pitches(path: Path) -> list[int]:
    return [note.pitch for track in midi.read(path).tracks for note in track.notes]


def options(path: Path) -> dict[str, object]:
    (marker,) = midi.read(path).markers
    found: dict[str, object] = json.loads(marker.text)["options"]
    return found


def architecture(folder: Path, said: str) -> None:
    run = json.loads((folder / "runs" / "bigram" / "run.json").read_text())
    assert "bigram" in json.dumps(run)
    assert pitches(folder / "bigram.mid")


def tokenizer(folder: Path, said: str) -> None:
    new = pitches(folder / "onsets.mid")
    assert new and min(new) >= 60 and max(new) <= 72
    assert {track.program for track in midi.read(folder / "onsets.mid").tracks if len(track.notes)} == {40}


def control(folder: Path, said: str) -> None:
    assert min(pitches(folder / "high.mid")) >= 60
    assert options(folder / "high.mid")["lowest_note"] == 60


def sampling_option(folder: Path, said: str) -> None:
    assert options(folder / "epsilon.mid")["epsilon"] == 0.1


def command(folder: Path, said: str) -> None:
    song = midi.read(ROOT / "examples" / "hymn.mid")
    assert f'"notes": {len(song.tracks[0].notes)}' in said
    assert "Count the notes of each track of the MIDI file FILE" in said


def plot(folder: Path, said: str) -> None:
    assert (folder / "hymn.png").read_bytes()[1:4] == b"PNG"
    assert b"<svg" in (folder / "hymn.svg").read_bytes()


def dataset(folder: Path, said: str) -> None:
    assert "ten_songs" in said
    corpus = json.loads((folder / "corpora" / "songs" / "corpus.json").read_text())
    assert "52" in json.dumps(corpus)


CHECKS = {
    "add-an-architecture": architecture,
    "add-a-tokenizer": tokenizer,
    "add-a-control": control,
    "add-a-sampling-option": sampling_option,
    "add-a-command": command,
    "add-a-plot": plot,
    "add-a-dataset": dataset,
}


@pytest.mark.slow
@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_works_as_it_is_written(page: Path, tmp_path: Path):
    said = follow(page, tmp_path)
    CHECKS[page.stem](tmp_path, said)


def test_every_recipe_is_checked():
    assert {page.stem for page in RECIPES} == set(CHECKS)


def test_an_edit_that_does_not_fit_is_refused(tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("one\ntwo\n")
    with pytest.raises(AssertionError, match="0 places"):
        edit(path, " three\n+four\n")
    edit(path, " one\n+new\n")
    assert path.read_text() == "one\nnew\ntwo\n"
