"""The loss of models on pairs of a source and a target: on the ids of targets alone, given the source.

A pair is measured in windows of the same bars of both sides, each by itself, so that all models, with and without a context,
predict the same ids from the same music. B batch, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.crops import Batch
from ..data.pair_crops import MAX_BARS, batch_of, windows
from ..data.pieces import Piece
from ..errors import TokenizerError
from ..models.base import LanguageModel, State
from ..models.seq2seq import Seq2SeqModel
from ..tokenizers.base import Tokenizer

LENGTH = 1024  # ids of a side of a window, at most
BATCH = 8  # windows per forward pass


def predict(model: LanguageModel, batch: Batch, state: State | None = None) -> tuple[Tensor, State]:
    """Return the logits of a batch, (B, T, V), and the new state; a batch with sources begins with them."""
    if batch.source is not None:
        assert isinstance(model, Seq2SeqModel)
        state = model.start(batch.source, batch.source_features, batch.source_mask)
    logits_BTV: Tensor
    logits_BTV, after = model(batch.tokens, state, batch.features)
    return logits_BTV, after


def paired_pieces(tokenizer: Any, pieces: Sequence[Piece], max_bars: int = MAX_BARS) -> list[Piece]:
    """Return the windows of all pairs of pieces: ids of source and target behind each other, and the target's notes.

    Args:
        tokenizer: one that `is_paired`.
        pieces: any number.
        max_bars: of a window, which has at most `LENGTH` ids a side.
    """
    made = []
    for piece in pieces:
        pairs = windows(np.asarray(piece.tokens), tokenizer, length=LENGTH, max_bars=max_bars)
        total = sum(len(pair.target) for pair in pairs)
        for i, pair in enumerate(pairs):
            notes = tokenizer.num_notes(pair.target)
            if notes:
                seconds = piece.seconds * len(pair.target) / total
                tokens = np.concatenate(pair)
                made.append(
                    dataclasses.replace(
                        piece, name=f"{piece.name} {i}", tokens=tokens, num_notes=notes, seconds=seconds
                    )
                )
    return made


@torch.no_grad()
def window_losses(
    model: LanguageModel, tokenizer: Any, pieces: Sequence[Piece], bf16: bool, temperatures: Sequence[float]
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Yield each window and the loss of its ids at each temperature, (temperatures, T - 1) float64; that of a source is 0.

    Args:
        model: in evaluation mode; of kind seq2seq, or causal: then it reads the source first.
        tokenizer: of the windows.
        pieces: windows; see `paired_pieces`.
        bf16: whether to compute in bfloat16.
        temperatures: that the logits are divided by.

    Raises:
        TokenizerError: a piece is not one pair.
    """
    for piece in pieces:
        if (number := len(tokenizer.split(piece.tokens))) != 1:
            raise TokenizerError(
                f"the piece '{piece.name}' has {number} pairs of parts, of which each is measured by itself: "
                "take evaluation.measured_pieces"
            )
    device = next(model.parameters()).device
    falling = sorted(pieces, key=lambda p: (-len(p.tokens), p.name))
    joined = not isinstance(model, Seq2SeqModel)
    for begin in range(0, len(falling), BATCH):
        chosen = falling[begin : begin + BATCH]
        pairs = [tokenizer.split(piece.tokens)[0] for piece in chosen]
        batch = batch_of(pairs, tokenizer, joined=joined).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits, _ = predict(model, batch)
        by_class = logits.float().transpose(1, 2)
        losses = [
            F.cross_entropy(by_class / temperature, batch.targets, reduction="none").cpu().numpy()
            for temperature in temperatures
        ]
        for i, (piece, pair) in enumerate(zip(chosen, pairs, strict=True)):
            size = len(pair.target) - 1
            first = len(pair.source) if joined else 0
            nats = np.zeros((len(temperatures), len(piece.tokens) - 1))
            nats[:, len(pair.source) :] = [each[i, first : first + size] for each in losses]
            yield piece, nats


def measured_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> list[Piece]:
    """Return pieces as they are measured: their windows where the tokenizer has pairs, else themselves."""
    return paired_pieces(tokenizer, pieces) if tokenizer.is_paired else list(pieces)
