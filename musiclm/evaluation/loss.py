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

import numpy as np
import torch
import torch.nn.functional as F

from ..data import Piece
from ..models.base import LanguageModel, rows
from ..tokenizers.base import Tokenizer

CHUNK = 512  # tokens a pass; the state goes on from one to the next
BATCH = 16  # pieces a pass
MASKS = 4  # stretches of a piece that are measured
TEMPERATURES = tuple(
    k / 20 for k in range(18, 41)
)  # 0.9 to 2: what a model's logits may be divided by to be calibrated


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossReport:
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


def measure_loss(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False
) -> LossReport:
    """Return how surprised a model is by pieces, each read from its beginning.

    Args:
        model: in evaluation mode, on any device.
        tokenizer: what made the pieces.
        pieces: any number.
        bf16: whether to compute in bfloat16.
    """
    nats = sum(
        float(of_piece[tokenizer.eval_mask(p.tokens[1:])].sum())
        for p, of_piece in token_losses(model, tokenizer, pieces, bf16)
    )
    return _counted(nats, tokenizer, pieces)


def _counted(nats: float, tokenizer: Tokenizer, pieces: Sequence[Piece]) -> LossReport:
    return LossReport(
        nats=nats,
        num_tokens=sum(int(tokenizer.eval_mask(p.tokens).sum()) for p in pieces),
        num_notes=sum(p.num_notes for p in pieces),
        seconds=sum(p.seconds for p in pieces),
        num_pieces=len(pieces),
    )


def fit_temperature(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False
) -> tuple[float, LossReport]:
    """Return by what a model's logits are best divided, of `TEMPERATURES`, and how surprised it then is.

    A model that knows its training pieces too well is too sure of others; one number mends most of that (Guo et al. 2017).
    The arguments are those of `surprise`.
    """
    sums = np.zeros(len(TEMPERATURES))
    for piece, nats in _each(model, tokenizer, pieces, bf16, TEMPERATURES):
        sums += nats[:, tokenizer.eval_mask(piece.tokens[1:])].sum(1)
    best = int(sums.argmin())
    return TEMPERATURES[best], _counted(float(sums[best]), tokenizer, pieces)


def sample_pieces(pieces: Sequence[Piece], most_tokens: int | None) -> list[Piece]:
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


def masked_pieces(tokenizer: Tokenizer, pieces: Sequence[Piece], number: int = MASKS) -> list[Piece]:
    """Return stretches with holes in them, drawn from each piece by its name: what models that fill are measured on.

    Args:
        tokenizer: one that `supports_infilling`.
        pieces: any.
        number: of stretches a piece.
    """
    made = []
    for piece in pieces:
        first = int.from_bytes(hashlib.sha256(piece.name.encode()).digest()[:3], "big")
        for i in range(number):
            ids = tokenizer.rearranged(np.asarray(piece.tokens, np.int64), 1 + first + i)
            if tokenizer.eval_mask(ids).any():
                made.append(dataclasses.replace(piece, name=f"{piece.name} {i}", tokens=ids))
    return made


def masked_loss(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, bf16: bool = False
) -> dict[str, float]:
    """Return nats a token of what is missing in `holes` of pieces; nothing of a tokenizer without holes."""
    if not tokenizer.supports_infilling:
        return {}
    return {
        "nats_per_hidden_token": measure_loss(
            model, tokenizer, masked_pieces(tokenizer, pieces), bf16=bf16
        ).nats_per_token
    }


def token_losses(
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
            if state and len(state[0]) > going_on:  # a model may have no state tensors
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
