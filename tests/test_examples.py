"""The examples are those of their table, small, and from commands that exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import soundfile

from musiclm import midi
from tests.test_readme import parse

FOLDER = Path(__file__).parents[1] / "examples"
TABLE = (FOLDER / "README.md").read_text("utf-8")
spec = importlib.util.spec_from_file_location("make_examples", FOLDER / "make.py")
assert spec is not None and spec.loader is not None
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.mark.parametrize("kind", make.KINDS)
def test_each_kind_has_a_best_and_a_typical_piece_with_its_command(kind: str):
    line = next(line for line in TABLE.splitlines() if f"`{make.command(kind)}`" in line)
    assert f"no. {make.KINDS[kind][1]}" in line
    parse(make.command(kind))
    for name in (f"{kind}-best", f"{kind}-typical"):
        assert f"({name}.mid)" in line and f"({name}.png)" in TABLE
        assert midi.read(FOLDER / f"{name}.mid").note_num() > 20
        assert (FOLDER / f"{name}.png").stat().st_size <= make.MOST[".png"]


def test_examples_have_no_other_music_than_that_of_the_table():
    pieces = {f"{kind}-{which}" for kind in make.KINDS for which in ("best", "typical")}
    assert {path.stem for path in FOLDER.glob("*.mid")} == pieces | {"hymn", "lied", "orchestra"}
    assert {path.stem for path in FOLDER.glob("*.ogg")} == set(make.SOUNDS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 1_500_000


@pytest.mark.parametrize("name", make.SOUNDS)
def test_sound_is_short_neither_silent_nor_clipped(name: str):
    assert f"({name}.ogg)" in TABLE
    samples, rate = soundfile.read(FOLDER / f"{name}.ogg")
    assert 10 < len(samples) / rate <= 40
    assert 0.5 < abs(samples).max() < 1.0
    assert (samples**2).mean() ** 0.5 > 0.05
