"""What tests share: one thread (torch on two busy cores spins), tiny models, and real data where it is at hand."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import checkpoint, midi, models, tokenizers
from musiclm.data import Corpus, Piece, bundled
from musiclm.data.crops import RandomCrops
from musiclm.models import base
from tests.real_data import real_files

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MUSICLM_MODELS"] = os.devnull  # what a developer has installed changes no test
torch.set_num_threads(1)
settings.register_profile("same", derandomize=True, deadline=None)  # a change fails by its own fault, not by the draw
settings.load_profile("same")


@pytest.fixture(scope="session")
def real_midi() -> Callable[..., list[tuple[str, bytes]]]:
    """Give some files of one of the data sets, by the name of its archive: (name, bytes) pairs. See `real_files`."""
    return real_files


@pytest.fixture
def song() -> Score:
    """Eight bars of 3/4 at 90 bpm: a tune, chords and drums on three tracks."""
    score = Score(480)
    score.tempos.append(Tempo(0, 90))
    score.time_signatures.append(TimeSignature(0, 3, 4))
    tune, chords, drums = Track("Tune", 73), Track("Chords", 0), Track("Drums", 0, True)
    draw = random.Random(0)
    for bar in range(8):
        for beat in range(3):
            at = (3 * bar + beat) * 480
            tune.notes.append(Note(at, 240, draw.choice([72, 74, 76, 77, 79]), 90))
            drums.notes.append(Note(at, 120, 36 if beat == 0 else 42, 100))
        for pitch in (48, 52, 55):
            chords.notes.append(Note(3 * bar * 480, 1440, pitch, 70))
    for track in (tune, chords, drums):
        score.tracks.append(track)
    return score


@pytest.fixture
def song_file(song: Score, tmp_path: Path) -> Path:
    path = tmp_path / "song.mid"
    midi.write(song, path)
    return path


GRID = tokenizers.create("grid")


@pytest.fixture(scope="session")
def chorales() -> Corpus:
    return bundled(GRID)


def windows(pieces: list[Piece], **options) -> RandomCrops:
    options = {"length": 64, "batch_size": 3, "seed": 1} | options
    return RandomCrops([p.tokens for p in pieces], GRID, **options)


SMALL = {
    "num_heads": 2,
    "context": 8,
    "memory": 8,
    "window": 4,
    "dilations": (1, 2),
    "num_global": 3,
    "global_ids": (2, 3, 5, 7, 11, 13),
    "num_rounds": 2,
    "num_buckets": 4,
    "bucket_context": 4,
}  # of the fields that an architecture has


def tiny(arch: str, vocab_size: int = 40, **config: object) -> base.LanguageModel:
    """Return a model with weights large enough that every path through it shows."""
    sizes = {"size": 16, "num_layers": 2, "dropout": 0.0}
    fields = models._architecture(arch).Config.__dataclass_fields__
    sizes |= {name: value for name, value in SMALL.items() if name in fields}
    torch.manual_seed(0)
    model = models.create(arch, vocab_size, **{**sizes, **config}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Give the path of an untrained checkpoint of a tokenizer: NAME, or NAME VERSION of its features."""
    made: dict[str, str] = {}

    def path(tokenizer_name: str) -> str:
        if tokenizer_name not in made:
            name, _, version = tokenizer_name.partition(" ")
            tokenizer = tokenizers.create(name, **({"features": int(version)} if version else {}))
            arch = "seq2seq_transformer" if tokenizer.is_paired else "gru"
            model = tiny(arch, tokenizer.vocab_size, **tokenizer.model_config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.1)
            file = tmp_path_factory.mktemp("checkpoints") / f"{tokenizer_name.replace(' ', '-')}.safetensors"
            checkpoint.save(file, model, arch=arch, tokenizer=tokenizer, card={"data": "nothing", "figures": {}})
            made[tokenizer_name] = str(file)
        return made[tokenizer_name]

    return path


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in a new folder: (exit code, standard output, standard error)."""
    from musiclm.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call
