"""How well a model knows music: surprise, in nats a token, bits a note and bits a second, beside trivial baselines.

Formulas: nats a token = -sum(ln p(token | all before it, as far as the model's memory goes)) / number of tokens that
count. Which count is the tokenizer's to say (on the grid the cells, not the marks around a piece). Bits a note and a
second divide the same sum, in bits, by the notes and the seconds of the pieces. Nats a token cannot be compared between
tokenizers; bits can. Pieces without a token give no figure: 0 nats over 0 tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .corpus import Corpus, Piece
from .models.base import LanguageModel, rows
from .ngram import NGram
from .tokens.base import Tokenizer

CHUNK = 512  # tokens a pass; the state goes on from one to the next
BATCH = 16  # pieces a pass
HOLES = 4  # stretches of a piece that are measured
TEMPERATURES = tuple(
    k / 20 for k in range(18, 41)
)  # 0.9 to 2: what a model's logits may be divided by to be calibrated
ORDER = 5  # of the n-gram baseline
MAX_COUNTED = 10_000_000  # tokens that baselines are counted on: some seconds and 1.5 GB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surprise:
    """What evaluation counts of some pieces, and the figures made of it."""

    nats: float
    num_tokens: int
    num_notes: int
    seconds: float
    num_pieces: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / max(1, self.num_tokens)

    @property
    def bits_per_note(self) -> float:
        return self.nats / math.log(2) / max(1, self.num_notes)

    @property
    def bits_per_second(self) -> float:
        return self.nats / math.log(2) / self.seconds if self.seconds else 0.0


def surprise(model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False) -> Surprise:
    """Return how surprised a model is by pieces, each read from its beginning.

    Args:
        model: in evaluation mode, on any device.
        tokenizer: what made the pieces.
        pieces: any number.
        bf16: whether to compute in bfloat16.
    """
    nats = sum(
        float(of_piece[tokenizer.counts(p.tokens[1:])].sum()) for p, of_piece in each(model, tokenizer, pieces, bf16)
    )
    return _counted(nats, tokenizer, pieces)


def _counted(nats: float, tokenizer: Tokenizer, pieces: Sequence[Piece]) -> Surprise:
    return Surprise(
        nats=nats,
        num_tokens=sum(int(tokenizer.counts(p.tokens).sum()) for p in pieces),
        num_notes=sum(p.num_notes for p in pieces),
        seconds=sum(p.seconds for p in pieces),
        num_pieces=len(pieces),
    )


def calibrated(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False
) -> tuple[float, Surprise]:
    """Return by what a model's logits are best divided, of `TEMPERATURES`, and how surprised it then is.

    A model that knows its training pieces too well is too sure of others; one number mends most of that (Guo et al. 2017).
    The arguments are those of `surprise`.
    """
    sums = np.zeros(len(TEMPERATURES))
    for piece, nats in _each(model, tokenizer, pieces, bf16, TEMPERATURES):
        sums += nats[:, tokenizer.counts(piece.tokens[1:])].sum(1)
    best = int(sums.argmin())
    return TEMPERATURES[best], _counted(float(sums[best]), tokenizer, pieces)


def sample(pieces: Sequence[Piece], most_tokens: int | None) -> list[Piece]:
    """Return whole pieces of no more tokens than this, but one at least: the same ones each time, by their names' hashes.

    Args:
        pieces: any number.
        most_tokens: None for all of them.
    """
    if most_tokens is None:
        return list(pieces)
    chosen: list[Piece] = []
    total = 0
    for piece in sorted(pieces, key=lambda p: hashlib.sha256(p.name.encode()).digest()):
        if not chosen or total + len(piece.tokens) <= most_tokens:
            chosen.append(piece)
            total += len(piece.tokens)
    return chosen


def holes(tokenizer: Tokenizer, pieces: Sequence[Piece], number: int = HOLES) -> list[Piece]:
    """Return stretches with holes in them, drawn from each piece by its name: what models that fill are measured on.

    Args:
        tokenizer: one that `fills`.
        pieces: any.
        number: of stretches a piece.
    """
    made = []
    for piece in pieces:
        first = int.from_bytes(hashlib.sha256(piece.name.encode()).digest()[:3], "big")
        for i in range(number):
            ids = tokenizer.arranged(np.asarray(piece.tokens, np.int64), 1 + first + i)
            if tokenizer.counts(ids).any():
                made.append(dataclasses.replace(piece, name=f"{piece.name} {i}", tokens=ids))
    return made


def hidden(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False
) -> dict[str, float]:
    """Return nats a token of what is missing in `holes` of pieces; nothing of a tokenizer without holes."""
    if not tokenizer.fills:
        return {}
    return {"nats_per_hidden_token": surprise(model, tokenizer, holes(tokenizer, pieces), bf16=bf16).nats_per_token}


def each(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], bf16: bool = False
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Yield each piece, the longest first, and the nats of each of its tokens but the first, (T - 1,) float64."""
    for piece, nats in _each(model, tokenizer, pieces, bf16, (1.0,)):
        yield piece, nats[0]


@torch.no_grad()
def _each(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], bf16: bool, temperatures: Sequence[float]
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Yield what `each` does, at each of some temperatures, (temperatures, T - 1)."""
    device = next(model.parameters()).device
    falling = sorted(pieces, key=lambda p: (-len(p.tokens), p.name))
    for begin in range(0, len(falling), BATCH):
        batch = falling[begin : begin + BATCH]
        longest = len(batch[0].tokens)
        tokens = np.full((len(batch), longest), batch[0].tokens[0], np.int64)
        for row, piece in enumerate(batch):
            tokens[row, : len(piece.tokens)] = piece.tokens
        ids = torch.from_numpy(tokens)
        nats = np.zeros((len(temperatures), len(batch), longest - 1))
        state = feature_state = None
        for start in range(0, longest - 1, CHUNK):
            inputs, targets = ids[:, start : start + CHUNK], ids[:, start + 1 : start + CHUNK + 1]
            inputs = inputs[:, : targets.shape[1]]
            features, feature_state = tokenizer.features(inputs, feature_state)
            going_on = sum(len(piece.tokens) - 1 > start for piece in batch)  # the longest stand first
            if state is not None and len(state[0]) > going_on:
                state = rows(state, range(going_on))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                given = features[:going_on].to(device) if features.shape[-1] else None
                logits, state = model(inputs[:going_on].to(device), state, given)
            targets = targets[:going_on].to(device)
            logits = logits.float().transpose(1, 2)
            for i, temperature in enumerate(temperatures):
                loss = F.cross_entropy(logits / temperature, targets, reduction="none")
                nats[i, :going_on, start : start + loss.shape[1]] = loss.cpu().numpy()
        for row, piece in enumerate(batch):
            yield piece, nats[:, row, : len(piece.tokens) - 1]


def baselines(corpus: Corpus, split: str, most_tokens: int | None = None) -> dict[str, float]:
    """Return nats a token of models that have learnt next to nothing, on the pieces that `sample` gives of a split.

    `uniform` gives each id of the vocabulary the same chance: ln V. `unigram` knows how frequent each id is. `repeat` gives
    the probability p to the id that stands `repeat_lag` ids before (on the grid the voice's own last cell), the rest evenly
    to all others. `5-gram` knows what followed the last four ids (`NGram`); on the grid that is one step of four voices.

    p and the n-grams are counted on `counted` pieces. A piece never tells an n-gram about itself: where the pieces that
    are measured are those that are counted, each fifth of them is measured with what the other four fifths have.
    """
    tokenizer, size = corpus.tokenizer, corpus.tokenizer.plain_size
    pieces, told = sample(corpus.pieces(split), most_tokens), counted(corpus, split)
    same, total = _repeats(tokenizer, told)
    p = (same + 1) / (total + 2)
    same, total = _repeats(tokenizer, pieces)
    repeat = -(same * math.log(p) + (total - same) * math.log((1 - p) / (size - 1))) / max(1, total)
    parts = [(pieces, told)] if _is_held_out(corpus, split) else _fifths(pieces)
    found = {"uniform": math.log(size), "unigram": 0.0, "repeat": repeat, f"{ORDER}-gram": 0.0}
    for name, order in (("unigram", 1), (f"{ORDER}-gram", ORDER)):
        if not parts:  # one piece alone
            del found[name]
        for measured, known in parts:
            model = NGram([piece.tokens for piece in known], size, order)
            for piece in measured:
                nats = model.nats(piece.tokens)[tokenizer.counts(piece.tokens[1:])]
                found[name] += float(nats.sum()) / max(1, total)
    return found


def counted(corpus: Corpus, split: str) -> list[Piece]:
    """Return what `baselines` counts: a `sample` of MAX_COUNTED tokens of the training pieces, or of the split itself."""
    return sample(corpus.pieces("train") or corpus.pieces(split), MAX_COUNTED)


def _is_held_out(corpus: Corpus, split: str) -> bool:
    """Return whether none of a split's pieces is counted."""
    return split in ("validation", "test") and bool(corpus.pieces("train"))


def _fifths(pieces: Sequence[Piece]) -> list[tuple[list[Piece], list[Piece]]]:
    """Return each fifth of some pieces with the others; nothing of one piece."""
    num_parts = min(5, len(pieces))
    if num_parts < 2:
        return []
    return [
        (list(pieces[i::num_parts]), sample([p for j, p in enumerate(pieces) if j % num_parts != i], MAX_COUNTED // 5))
        for i in range(num_parts)
    ]


def _repeats(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return how many of the tokens that count are those of `repeat_lag` before, and how many there are."""
    same = total = 0
    lag = tokenizer.repeat_lag
    for piece in pieces:
        ids = piece.tokens
        counts = tokenizer.counts(ids)
        total += int(counts.sum())
        same += int((counts[lag:] & (ids[lag:] == ids[:-lag])).sum())
    return same, total


def report(
    model: LanguageModel, corpus: Corpus, split: str, *, name: str, most_tokens: int | None = None, bf16: bool = False
) -> dict[str, Any]:
    """Return what `musiclm evaluate --json` prints, of all pieces of a split or of a `sample` of them."""
    found = surprise(model, corpus.tokenizer, sample(corpus.pieces(split), most_tokens), bf16=bf16)
    told = counted(corpus, split) if _is_held_out(corpus, split) else sample(corpus.pieces(split), most_tokens)
    return {
        "model": name,
        "corpus": corpus.name,
        "split": split,
        "num_pieces": found.num_pieces,
        "num_tokens": found.num_tokens,
        "num_notes": found.num_notes,
        "nats_per_token": found.nats_per_token,
        "bits_per_note": found.bits_per_note,
        "bits_per_second": found.bits_per_second,
        **hidden(model, corpus.tokenizer, sample(corpus.pieces(split), most_tokens), bf16=bf16),
        "baselines": baselines(corpus, split, most_tokens),
        "baselines_counted": {
            "on": "training" if _is_held_out(corpus, split) else "measured",
            "num_pieces": len(told),
            "num_tokens": sum(len(p.tokens) for p in told),
        },
    }
