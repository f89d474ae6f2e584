"""Trivial baselines: uniform, unigram, repeat and n-gram."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..data import Corpus, Piece
from ..tokenizers.base import Tokenizer
from .loss import sample_pieces
from .ngram import NGram

ORDER = 5  # of the n-gram baseline


MAX_COUNTED = 10_000_000  # tokens that baselines are counted on: some seconds and 1.5 GB


def baselines(corpus: Corpus, split: str, most_tokens: int | None = None) -> dict[str, float]:
    """Return nats a token of models that have learnt next to nothing, on the pieces that `sample` gives of a split.

    `uniform` gives each id of the vocabulary the same chance: ln V. `unigram` knows how frequent each id is. `repeat` gives
    the probability p to the id that stands `repeat_lag` ids before (on the grid the voice's own last cell), the rest evenly
    to all others. `5-gram` knows what followed the last four ids (`NGram`); on the grid that is one step of four voices.

    p and the n-grams are counted on `counted` pieces. A piece never tells an n-gram about itself: where the pieces that
    are measured are those that are counted, each fifth of them is measured with what the other four fifths have.
    """
    tokenizer, size = corpus.tokenizer, corpus.tokenizer.plain_size
    pieces, told = sample_pieces(corpus.pieces(split), most_tokens), baseline_pieces(corpus, split)
    same, total = _repeats(tokenizer, told)
    p = (same + 1) / (total + 2)
    same, total = _repeats(tokenizer, pieces)
    repeat = -(same * math.log(p) + (total - same) * math.log((1 - p) / (size - 1))) / max(1, total)
    parts = [(pieces, told)] if is_held_out(corpus, split) else _fifths(pieces)
    found = {"uniform": math.log(size), "unigram": 0.0, "repeat": repeat, f"{ORDER}-gram": 0.0}
    for name, order in (("unigram", 1), (f"{ORDER}-gram", ORDER)):
        if not parts:  # one piece alone
            del found[name]
        for measured, known in parts:
            model = NGram([piece.tokens for piece in known], size, order)
            for piece in measured:
                nats = model.nats(piece.tokens)[tokenizer.eval_mask(piece.tokens[1:])]
                found[name] += float(nats.sum()) / max(1, total)
    return found


def baseline_pieces(corpus: Corpus, split: str) -> list[Piece]:
    """Return what `baselines` counts: a `sample` of MAX_COUNTED tokens of the training pieces, or of the split itself."""
    return sample_pieces(corpus.pieces("train") or corpus.pieces(split), MAX_COUNTED)


def is_held_out(corpus: Corpus, split: str) -> bool:
    """Return whether none of a split's pieces is counted."""
    return split in ("validation", "test") and bool(corpus.pieces("train"))


def _fifths(pieces: Sequence[Piece]) -> list[tuple[list[Piece], list[Piece]]]:
    """Return each fifth of some pieces with the others; nothing of one piece."""
    num_parts = min(5, len(pieces))
    if num_parts < 2:
        return []
    return [
        (
            list(pieces[i::num_parts]),
            sample_pieces([p for j, p in enumerate(pieces) if j % num_parts != i], MAX_COUNTED // 5),
        )
        for i in range(num_parts)
    ]


def _repeats(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return how many of the tokens that count are those of `repeat_lag` before, and how many there are."""
    same = total = 0
    lag = tokenizer.repeat_lag
    for piece in pieces:
        ids = piece.tokens
        counts = tokenizer.eval_mask(ids)
        total += int(counts.sum())
        same += int((counts[lag:] & (ids[lag:] == ids[:-lag])).sum())
    return same, total
