"""Best-of-n reranking. A checkpoint with a critic ranks by its log odds, see `critic`; this module is for one without.

It finds the variations that are nearest to real music by their loss under the model and their repetition. Neither is better for
being small. Music with a lower loss or more repetition than real pieces is dull; with a higher loss or less repetition it
wanders. The distance is that of both figures from the means of real pieces, in standard deviations:
sqrt(((loss - mean) / deviation)² + ((repetition - mean) / deviation)²). It is a weak criterion: of chorales it keeps worse ones
than chance (docs/concepts/reranking.md).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import evaluation
from ..checkpoint import Checkpoint
from ..data import Piece
from ..errors import CheckpointError
from ..models.base import LanguageModel
from ..tokenizers.base import Tokenizer
from .loops import repetition

# of real pieces, for checkpoints without statistics: `python benchmarks/repetition.py` of the chorales, and with `CORPUS
# --splits train,validation --most 80` of all kinds of music; with `--splits validation --model MODEL` the loss of pieces had
# a spread of 0.22 of their mean for bach-transformer (76 pieces) and 0.27 for score-transformer (32)
REPETITION = {"grid": (0.037, 0.058)}
OTHER_REPETITION = (0.068, 0.100)
RELATIVE_SPREAD = 0.25  # of a piece's nats/token, divided by the mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceStats:
    """Statistics of real pieces: (mean, standard deviation) over pieces of nats/token and of repetition."""

    nats_per_token: tuple[float, float]
    repetition: tuple[float, float]

    def distance(self, nats_per_token: float, repetition: float) -> float:
        """Return the distance from them, in standard deviations."""
        figures = ((nats_per_token, self.nats_per_token), (repetition, self.repetition))
        return math.hypot(*((value - mean) / max(spread, 1e-6) for value, (mean, spread) in figures))


def of_pieces(model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece]) -> ReferenceStats:
    """Return the statistics of pieces; a checkpoint's card has those of validation pieces."""
    nats = losses(model, tokenizer, pieces)
    shares = [repetition(tokenizer.decode(np.asarray(piece.tokens, dtype=np.int64))) for piece in pieces]
    return ReferenceStats(nats_per_token=_spread(nats), repetition=_spread(shares))


def of_checkpoint(checkpoint: Checkpoint) -> ReferenceStats:
    """Return the statistics of real pieces under a checkpoint: from its card, else its validation loss and usual spreads.

    Raises:
        CheckpointError: its card has neither.
    """
    stored: dict[str, Any] = checkpoint.card.get("real_pieces") or {}
    try:
        mean, spread = stored.get("nats_per_token") or (
            checkpoint.card["figures"]["validation_nats_per_token"],
            RELATIVE_SPREAD * checkpoint.card["figures"]["validation_nats_per_token"],
        )
        name = checkpoint.tokenizer_description["name"]
        usual = stored.get("repetition") or REPETITION.get(name, OTHER_REPETITION)
        return ReferenceStats(
            nats_per_token=(float(mean), float(spread)), repetition=(float(usual[0]), float(usual[1]))
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"the checkpoint '{checkpoint.name}' has neither a critic nor a loss of real pieces: leave --keep and --draw out"
        ) from error


def losses(
    model: LanguageModel, tokenizer: Tokenizer, pieces: Sequence[Piece], *, behind: int = 0, bf16: bool = False
) -> list[float]:
    """Return the loss of each piece, nats/token, in order; 0 for a piece without a token that counts.

    Args:
        model: in evaluation mode.
        tokenizer: of the pieces.
        pieces: as ids.
        behind: how many first tokens of each piece do not count.
        bf16: whether to compute in bfloat16.
    """
    found = {}
    for piece, nats in evaluation.token_losses(model, tokenizer, pieces, bf16):
        counts = tokenizer.eval_mask(piece.tokens)[1:]
        counts[: max(0, behind - 1)] = False
        found[piece.name] = float(nats[counts].mean()) if counts.any() else 0.0
    return [found[piece.name] for piece in pieces]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return round(float(np.mean(values)), 4), round(float(np.std(values)), 4)
