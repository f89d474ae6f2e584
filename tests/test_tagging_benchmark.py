"""benchmarks/tagging.py and recipes/tag.py: their measures by hand, and that they run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musiclm import tokenizers
from musiclm.tagging.dataset import TOKENIZER, read_pieces
from musiclm.tagging.labels import LabelledFile

from .data_files import ROOT
from .test_tagging import MAJOR, tune

sys.path.append(str(ROOT / "benchmarks"))
import tagging_baselines as baselines
import tagging_data as data
import tagging_ways as ways


def files(count: int, split: str) -> list[LabelledFile]:
    return [
        LabelledFile(name=f"{label}{split}{i}", label=label, split=split, read=lambda: tune(MAJOR))
        for label in "ab"
        for i in range(count)
    ]


def test_a_subset_has_so_many_training_pieces_of_each_label_and_all_test_pieces():
    every = [*files(30, "train"), *files(9, "validation"), *files(7, "test")]
    few = data.subset(every, 10, seed=1)
    counts = {
        (label, split): sum(f.label == label and f.split == split for f in few)
        for label in "ab"
        for split in ("train", "validation", "test")
    }
    assert counts == {
        (label, split): n for label in "ab" for split, n in (("train", 10), ("validation", 2), ("test", 7))
    }
    assert [f.name for f in few] == [f.name for f in data.subset(every, 10, seed=1)]
    assert [f.name for f in few] != [f.name for f in data.subset(every, 10, seed=2)]


def test_what_is_kept_of_pieces_is_not_read_for_other_labels_or_splits(tmp_path: Path):
    tokenizer = tokenizers.parse(TOKENIZER)
    every = [*files(2, "train"), *files(1, "test")]
    assert len(data.pieces(every, tokenizer, 12, tmp_path).pieces("test")) == 2
    moved = [dataclasses.replace(file, split="train", label="c") for file in every]
    found = data.pieces(moved, tokenizer, 12, tmp_path)
    assert not found.pieces("test") and found.labels == ["c"]


def test_the_error_of_macro_f1_shrinks_with_the_number_of_pieces():
    matrix = np.array([[8, 2], [3, 7]])
    small, large = ways.macro_f1_error(matrix), ways.macro_f1_error(100 * matrix)
    assert 0.05 < small < 0.2 and large == pytest.approx(small / 10, rel=0.15)


def test_histograms_are_shares_and_pitch_classes_do_not_change_with_the_key():
    tokenizer = tokenizers.parse(TOKENIZER)
    moved = tune(MAJOR)
    for note in moved.tracks[0].notes:
        note.pitch += 5
    given = [
        LabelledFile(name=n, label="a", split=None, read=lambda s=s: s) for n, s in (("x", tune(MAJOR)), ("y", moved))
    ]
    one, other = (baselines.histograms(tokenizer, piece) for piece in read_pieces(given, tokenizer))
    assert one.shape == other.shape and one.min() >= 0 and one.sum() == pytest.approx(7)
    np.testing.assert_array_equal(one[32:], other[32:])
    assert (one[:32] != other[:32]).any()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["composer", "curve", "style"])
def test_a_part_runs_and_an_answer_is_kept(part: str, tmp_path: Path):
    command = [
        sys.executable,
        "benchmarks/tagging.py",
        "--part",
        part,
        "--quick",
        "--json",
        "-o",
        str(tmp_path / "work"),
    ]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
        for _ in range(2)
    ]
    assert {row["way"] for row in found[0]["rows"]} >= {"most frequent label", "gru from scratch"}
    assert all(0 <= row["accuracy"] <= 1 for row in found[0]["rows"])
    of_network = [[row for row in each["rows"] if row["way"] == "gru from scratch"] for each in found]
    assert part != "composer" or of_network[0] == of_network[1]  # read, not trained again
    assert part != "style" or found[0]["others"][0]["label"] == "unsure"


@pytest.mark.slow
def test_the_recipe_writes_a_tagger_with_its_card(tmp_path: Path):
    command = [sys.executable, "recipes/tag.py", "style", "--quick", "-o", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert (tmp_path / "style-tagger.safetensors").stat().st_size < 2_000_000
    page = (tmp_path / "style-tagger.md").read_text("utf-8")
    assert page.startswith("# style-tagger\n\nA tagger of 2 labels: gru, mean pooling, ")
    assert "**licence**: MIT" in page and "**training pieces**: chorale " in page and "| validation accuracy | " in page
    lines = (tmp_path / "labels-style.csv").read_text("utf-8").splitlines()
    assert lines[0] == "file,label,split" and {line.split(",")[1] for line in lines[1:]} == {"chorale", "piano"}
