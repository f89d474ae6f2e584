"""Large corpora in training: what is read does not grow with the number of tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from symusic import TextMeta

from musiclm import midi
from musiclm.data import open_store
from musiclm.data.crops import RandomCrops, kinds_of, lengths_of
from musiclm.data.store import StoredTokens
from musiclm.tokenizers.score_plan import STYLE_MARKER
from tests.data_files import built, folder_of, midi_bytes, piece

MUSIC = {f"{i:02d}.mid": midi_bytes(i) for i in range(30)}
PROBE = """
import json, resource, sys, time
from musiclm.data import open_store
from musiclm.training.config import TrainConfig
from musiclm.training.setup import _crops
import musiclm.tokenizers.score, torch
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, began = peak(), time.process_time()
corpus = open_store(sys.argv[1])
opened = time.process_time() - began
pieces = corpus.pieces("train")
crops = _crops(TrainConfig(arch="transformer", batch_size=2, window=64), pieces, corpus.tokenizer, None)
crops(0)
print(json.dumps({"seconds": opened, "megabytes": peak() - before, "tokens": crops.tokens_an_epoch}))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streaming")
    built(folder / "corpus", folder_of(folder / "music", MUSIC))
    return folder / "corpus"


def many_times(store: Path, output: Path, copies: int, stretch: int) -> Path:
    """Write a store with all pieces several times, each that many times longer in a sparse file: nothing is on the disk."""
    output.mkdir()
    for name in ("corpus.json", "names.bin", "files.jsonl"):
        (output / name).write_bytes((store / name).read_bytes())
    rows = np.tile(np.load(store / "pieces.npy"), copies)
    rows["length"] *= stretch
    rows["start"] = np.cumsum(rows["length"]) - rows["length"]
    np.save(output / "pieces.npy", rows)
    if (store / "kinds.npy").exists():
        np.save(output / "kinds.npy", np.tile(np.load(store / "kinds.npy"), copies))
    id_type = np.dtype(json.loads((store / "corpus.json").read_text())["id_type"])
    with (output / "tokens.bin").open("wb") as file:
        file.write((store / "tokens.bin").read_bytes())
        file.truncate(int(rows["length"].sum()) * id_type.itemsize)
    return output


def test_stored_tokens_are_those_of_the_pieces(store: Path):
    pieces = open_store(store).pieces("train")
    tokens = pieces.tokens
    assert isinstance(tokens, StoredTokens)
    assert len(tokens) == len(pieces) > 5
    for each, ids in zip(pieces, tokens, strict=True):
        assert np.array_equal(each.tokens, ids)
    assert [len(each.tokens) for each in pieces] == lengths_of(tokens).tolist()
    assert [tuple(row) for row in pieces.pitches] == [each.pitches for each in pieces]
    assert [each.name for each in pieces[2:5]] == [pieces[i].name for i in range(2, 5)]


def test_kinds_are_stored_and_are_those_of_the_ids(tmp_path: Path):
    files = {}
    for i, style in enumerate(["chorale", "band", "drums", "piano"] * 5):
        score = piece(i)
        score.markers.append(TextMeta(0, f"{STYLE_MARKER}{style}"))
        files[f"{i:02d}.mid"] = midi.to_bytes(score)
    built(tmp_path / "corpus", folder_of(tmp_path / "music", files))
    opened = open_store(tmp_path / "corpus")
    tokens = opened.pieces("train").tokens
    found = kinds_of(tokens, opened.tokenizer)
    assert found.tolist() == [opened.tokenizer.kind_of(ids) for ids in tokens]
    assert len(set(found.tolist())) == 4
    (tmp_path / "corpus" / "kinds.npy").unlink()  # a store of an earlier version
    assert kinds_of(open_store(tmp_path / "corpus").pieces("train").tokens, opened.tokenizer).tolist() == found.tolist()


def test_crops_of_a_store_are_those_of_its_pieces_in_memory(store: Path):
    opened = open_store(store)
    pieces = opened.pieces("train")
    options = {"length": 48, "batch_size": 3, "seed": 1}
    lazy = RandomCrops(pieces.tokens, opened.tokenizer, pitches=pieces.pitches, **options)
    listed = [np.array(p.tokens) for p in pieces]
    eager = RandomCrops(listed, opened.tokenizer, pitches=[p.pitches for p in pieces], **options)
    for number in range(5):
        a, b = lazy(number), eager(number)
        assert a.tokens.equal(b.tokens) and a.targets.equal(b.targets) and a.features.equal(b.features)


@pytest.mark.slow
def test_ten_billion_tokens_are_opened_at_once_in_little_memory(store: Path, tmp_path: Path):
    tokens = sum(len(p.tokens) for p in open_store(store).pieces("all"))
    copies = 10_000
    large = many_times(store, tmp_path / "large", copies, stretch=10_000_000_000 // (tokens * copies) + 1)
    found = []
    for path in (store, large):
        done = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert found[1]["tokens"] > 7e9  # those for training
    assert found[1]["seconds"] < 1 + found[0]["seconds"]
    assert found[1]["megabytes"] < found[0]["megabytes"] + 200  # 300,000 pieces; 64 bits each would be 80 GB
