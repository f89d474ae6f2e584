"""What `accompaniment.py --quick` works on: bundled chorales as songs, and an untrained model."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import accompany
from accompaniment_tasks import merged
from symusic import Score, TextMeta

from musiclm import midi, tokenizers
from musiclm.data import SPLITS, Options, build_corpus, open_source
from musiclm.tokenizers.score_plan import STYLE_MARKER
from musiclm.training import setup
from musiclm.training.config import TrainConfig
from musiclm.training.run import Run

NUM_SONGS, NUM_TASKS = 12, 3
STYLES = ("lied", "pop-piano")  # in turn: a voice, and a piano for the other voices
PIANO = 0


def make_quick(a: argparse.Namespace, folder: Path) -> None:
    """Make options small, and the data and the model that are not named."""
    setup.MAX_VALIDATION_TOKENS = 1000
    a.n = min(a.n or NUM_TASKS, NUM_TASKS)
    a.preset, a.length, a.most_tokens, a.retrieve, a.profile = "tiny", 256, 4000, 100, 20
    a.output = a.output or folder / "runs"
    a.option, a.infill_option = ["draw=1", *a.option], ["draw=1", *a.infill_option]
    if a.corpus is None:
        a.corpus, a.styles = str(songs(folder)), ",".join(STYLES)
        a.infill = "none" if a.infill == "score" else a.infill
        if a.part != "losses" and a.model == "accompany":
            a.model = str(untrained(a.corpus, folder / "model"))


def songs(folder: Path) -> Path:
    """Write a corpus of pairs of bundled chorales whose lower voices play the piano; return its folder."""
    source, corpus = folder / "songs", folder / "corpus"
    source.mkdir(parents=True)
    rows = ["midi_filename,split"]
    for number, score in enumerate(itertools.islice(long_chorales(), NUM_SONGS)):
        for track in score.tracks[1:]:
            track.program = PIANO
        song = merged(score)
        song.markers.append(TextMeta(0, STYLE_MARKER + STYLES[number % 2]))
        (source / f"{number}.mid").write_bytes(midi.to_bytes(song))
        rows.append(f"{number}.mid,{SPLITS[number // 2 % 3]}")
    (source / "split.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for _ in build_corpus([source], corpus, tokenizers.create("score-pairs"), Options(workers=0)):
        pass
    return corpus


def long_chorales() -> Iterator[Score]:
    """Yield the bundled chorales that have bars enough for a task."""
    bundled = open_source(None)
    for piece in bundled.pieces("all"):
        score = bundled.tokenizer.decode(piece.tokens)
        if midi.num_bars(score) >= accompany.BARS:
            yield score


def untrained(corpus: str, folder: Path) -> Path:
    """Write a tiny model that was trained for a few steps; return its folder."""
    run = Run.create(folder, TrainConfig(arch="seq2seq_gru", preset="tiny", data=corpus, steps=4, window=256))
    for _ in run.train():
        pass
    run.close()
    return folder
