"""The loss (cross-entropy) of a model on music: nats/token, bits/note and bits/second.

nats/token = -sum(ln p(token | the tokens before it, within the model's context)) / number of evaluated tokens. The
tokenizer's `eval_mask` says which tokens are evaluated (on the grid the cells, not the special tokens). Bits/note and
bits/second divide the same sum, in bits, by the notes and the seconds of the pieces. Nats/token cannot be compared between
tokenizers; bits can. The perplexity is exp(nats/token). Without tokens the loss is 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..data import Piece
from ..models.base import LanguageModel, rows
from ..tokenizers.base import Tokenizer
from .paired import window_losses

CHUNK = 512  # tokens per forward pass; the streaming state is passed along
BATCH = 16  # pieces per forward pass
MASKS = 4  # crops with masked spans per piece
TEMPERATURES = tuple(k / 20 for k in range(18, 41))  # 0.9 to 2, the candidates of temperature scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossReport:
    """The loss of a model on some pieces.

    Attributes:
        nats: sum over the evaluated tokens.
        num_tokens: number of evaluated tokens.
        num_notes, seconds, num_pieces: of the pieces.
    """

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
    """Return the loss of a model on pieces, each read from its beginning.

    Args:
        model: in evaluation mode, on any device.
        tokenizer: the one that made the pieces.
        pieces: any number; of a tokenizer that `is_paired`, windows: see `paired_pieces`.
        bf16: whether to compute in bfloat16.
    """
    nats = sum(
        float(of_piece[tokenizer.eval_mask(p.tokens)[1:]].sum())
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
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Sequence[Piece],
    *,
    bf16: bool = False,
    share: slice = slice(None),
    total: Callable[[Sequence[float]], Sequence[float]] = list,
) -> tuple[float, LossReport]:
    """Return the temperature, of `TEMPERATURES`, with the lowest loss on these pieces, and that loss.

    Temperature scaling (Guo et al. 2017): an overfitted model is overconfident, and dividing its logits by one number
    corrects most of that. The loss of a model with weights that are not finite is not finite.

    Args:
        model, tokenizer, pieces, bf16: see `measure_loss`.
        share: which of the pieces this process reads, the longest first.
        total: sums numbers over the processes that read all of them together.
    """
    falling = sorted(pieces, key=lambda p: (-len(p.tokens), p.name))[share]
    own = np.zeros(len(TEMPERATURES))
    for piece, nats in _each(model, tokenizer, falling, bf16, TEMPERATURES):
        own += nats[:, tokenizer.eval_mask(piece.tokens)[1:]].sum(1)
    sums = np.asarray(total(own.tolist()))
    best = int(np.where(np.isfinite(sums), sums, np.inf).argmin())  # argmin alone takes NaN for the lowest
    return TEMPERATURES[best], _counted(float(sums[best]), tokenizer, pieces)


def sample_pieces(pieces: Sequence[Piece], most_tokens: int | None) -> list[Piece]:
    """Return whole pieces with at most `most_tokens` tokens, but at least one piece; always the same ones.

    Args:
        pieces: any number; they are chosen by the hashes of their names.
        most_tokens: None for all pieces.
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
    """Return crops with masked spans, on which infilling models are evaluated; they are sampled by the piece's name.

    Args:
        tokenizer: one that `supports_infilling`.
        pieces: any number.
        number: of crops per piece.
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
    """Return the loss on the masked spans of `masked_pieces`, nats/token; nothing for a tokenizer without infilling."""
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
    """Yield each piece, the longest first, and the loss of each of its tokens but the first, nats, (T - 1,) float64."""
    for piece, nats in _each(model, tokenizer, pieces, bf16, (1.0,)):
        yield piece, nats[0]


@torch.no_grad()
def _each(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], bf16: bool, temperatures: Sequence[float]
) -> Iterator[tuple[Piece, np.ndarray]]:
    """Yield each piece, the longest first, and its token losses at each temperature, (temperatures, T - 1) float64."""
    if tokenizer.is_paired:
        yield from window_losses(model, tokenizer, pieces, bf16, temperatures)
        return
    device = next(model.parameters()).device
    falling = sorted(pieces, key=lambda p: (-len(p.tokens), p.name))
    for begin in range(0, len(falling), BATCH):
        batch = falling[begin : begin + BATCH]
        longest = len(batch[0].tokens)
        tokens = np.full((len(batch), longest), batch[0].tokens[0], np.int64)
        for i, piece in enumerate(batch):
            tokens[i, : len(piece.tokens)] = piece.tokens
        ids = torch.from_numpy(tokens)
        nats = np.zeros((len(temperatures), len(batch), longest - 1))
        state = feature_state = None
        for start in range(0, longest - 1, CHUNK):
            inputs, targets = ids[:, start : start + CHUNK], ids[:, start + 1 : start + CHUNK + 1]
            inputs = inputs[:, : targets.shape[1]]
            features, feature_state = tokenizer.features(inputs, feature_state)
            num_active = sum(len(piece.tokens) - 1 > start for piece in batch)  # the longest come first
            if state and len(state[0]) > num_active:  # a model may have no state tensors
                state = rows(state, range(num_active))
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                inputs_features = features[:num_active].to(device) if features.shape[-1] else None
                logits, state = model(inputs[:num_active].to(device), state, inputs_features)
            targets = targets[:num_active].to(device)
            logits = logits.float().transpose(1, 2)
            for i, temperature in enumerate(temperatures):
                loss = F.cross_entropy(logits / temperature, targets, reduction="none")
                nats[i, :num_active, start : start + loss.shape[1]] = loss.cpu().numpy()
        for i, piece in enumerate(batch):
            yield piece, nats[:, i, : len(piece.tokens) - 1]
