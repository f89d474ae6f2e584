"""A tagger: a network that maps crops of tokens to labels, its file, and its predictions for whole pieces.

The network is a body, a pooling over tokens, and a linear head. A body is any causal language model or encoder of
`musiclm.models`; the head of a language model is not used. A piece is read in crops: the mean of their log probabilities is
divided by a temperature, which is fitted on validation pieces, as is the probability below which a prediction is unsure.

The file is a safetensors file (`musiclm.checkpoint.pack`) whose metadata has `tagger`, a JSON object. Nothing in it can run
code.

B batch, T tokens, D size of a hidden state, L labels.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor, nn

from .. import checkpoint, models, tokenizers
from ..checkpoint import Checkpoint
from ..checkpoint.model_file import DEFAULT_TAGGER, TAGGER, ModelFile, find_model
from ..data.fingerprint import Fingerprint
from ..errors import CheckpointError
from ..files import write_whole
from ..models.base import TEMPERATURE, LanguageModel
from ..models.layers.dropout import Dropout
from ..tokenizers.base import Tokenizer
from .crops import BATCH, Crop, TagBatch, batch_of, spread_crops
from .notes import STEPS, neutral

UNSURE = "unsure"  # pieces with this label are examples of what has none of the others
BODY = "body."  # the beginning of the names of a body's tensors
POOLINGS = ("mean", "last", "attention")
MAX_CROPS = 24  # of a piece
MIN_NOTES = 16  # with fewer a prediction is always unsure
MAX_LABELS = 4096
KEY_BYTES = 8  # kept of a fingerprint's key: of a million pieces, two share them with a chance of 3 in 10^8


class Network(nn.Module):
    """A body, a pooling and a linear head: (B, T) tokens -> (B, L) logits.

    Args:
        body: a causal language model, whose head is removed, or an encoder.
        num_labels: L.
        pooling: mean or last token of the hidden states; or attention, their mean weighted by the softmax of a learned
            linear score (Yang et al. 2016).
        dropout: of the pooled state.
    """

    def __init__(self, body: nn.Module, num_labels: int, pooling: str = "mean", dropout: float = 0.1) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"no pooling '{pooling}': one of {', '.join(POOLINGS)}")
        if isinstance(body, LanguageModel):
            body.head = nn.Identity()
            body._buffers.pop(TEMPERATURE, None)
        self.body, self.pooling, self.is_frozen = body, pooling, False
        config: Any = body.config
        self.norm = nn.LayerNorm(config.size)
        self.scores = nn.Linear(config.size, 1) if pooling == "attention" else None
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(config.size, num_labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if self.scores is not None:
            nn.init.zeros_(self.scores.weight)  # the mean at first

    def freeze(self) -> None:
        """Keep the body as it is: it has no gradient and no dropout."""
        self.is_frozen = True
        self.body.requires_grad_(False)
        self.body.eval()

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        if self.is_frozen:
            self.body.eval()
        return self

    def encode(self, batch: TagBatch) -> Tensor:
        """Return the hidden state of each token, (B, T, D); undefined where there is padding."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            if isinstance(self.body, LanguageModel):  # what lies behind a token does not change its state
                hidden_BTD, _ = self.body.encode(batch.tokens, None, batch.features)
            else:
                hidden_BTD = self.body(batch.tokens, batch.features, batch.mask)
        return hidden_BTD

    def pool(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Return one vector of each sequence, (B, D)."""
        if self.pooling == "last":
            last_B = mask_BT.sum(1) - 1
            return hidden_BTD[torch.arange(len(hidden_BTD), device=hidden_BTD.device), last_B]
        hidden_BTD = hidden_BTD.masked_fill(~mask_BT[..., None], 0.0)
        if self.scores is None:
            return hidden_BTD.sum(1) / mask_BT.sum(1, keepdim=True)
        scores_BT = self.scores(hidden_BTD)[..., 0].float().masked_fill(~mask_BT, float("-inf"))
        return torch.einsum("bt,btd->bd", scores_BT.softmax(1).to(hidden_BTD.dtype), hidden_BTD)

    def pooled(self, batch: TagBatch) -> Tensor:
        """Return the normalised vector of each sequence that the head reads, (B, D)."""
        vectors_BD: Tensor = self.norm(self.pool(self.encode(batch), batch.mask))
        return vectors_BD

    def forward(self, batch: TagBatch) -> Tensor:
        logits_BL: Tensor = self.head(self.dropout(self.pooled(batch))).float()
        return logits_BL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for a piece.

    Attributes:
        probabilities: of each label, calibrated, most likely first, summing to 1.
        unsure: whether the tagger had better say nothing: the probability is below its threshold, the piece has fewer than
            `MIN_NOTES` notes, or the label is "unsure".
        num_notes: that were read.
    """

    probabilities: dict[str, float]
    unsure: bool
    num_notes: int

    @property
    def label(self) -> str:
        """The most likely label."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """The probability of that label."""
        return self.probabilities[self.label]


class Tagger:
    """Predicts the label of a piece.

    Attributes:
        network: in evaluation mode.
        arch: of its body.
        tokenizer: of its tokens.
        labels: L names.
        length: tokens of a crop.
        steps: per quarter, of the grid of what is read; see `notes.neutral`.
        temperature: the divisor of log probabilities that calibrates them.
        threshold: the probability below which a prediction is unsure.
        card: data, licence, command, figures.
        body: the bundled or installed language model whose body the network has unchanged, which `save` leaves out; or None.
    """

    def __init__(
        self,
        network: Network,
        *,
        arch: str,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        length: int,
        steps: int = STEPS,
        temperature: float = 1.0,
        threshold: float = 0.5,
        card: dict[str, Any] | None = None,
        seen: Iterable[bytes] = (),
        body: Checkpoint | None = None,
    ) -> None:
        self.network = network.eval()
        self.arch, self.tokenizer, self.labels = arch, tokenizer, tuple(labels)
        self.length, self.steps = length, steps
        self.temperature, self.threshold = temperature, threshold
        self.card = card or {}
        self.seen = seen
        self.body = body

    @classmethod
    def load(cls, name: str | Path | None = None) -> Tagger:
        """Return the tagger of a file or a name, or the default one.

        Raises:
            CheckpointError: there is none, it is damaged, or it is of another version; or its body is that of a language
                model that is not installed, or that has other weights now.
        """
        file = find(name)
        stored = file.described
        try:
            labels, pooling = [str(label) for label in stored["labels"]], str(stored["pooling"])
            length, steps = int(stored["length"]), int(stored["steps"])
            temperature, threshold = float(stored["temperature"]), float(stored["threshold"])
            tokenizer = tokenizers.from_description(dict(stored["tokenizer"]))
            seen = _unpacked(str(stored.get("seen", "")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the tagger '{file.name}' is damaged: {error!r} in its header") from error
        is_sound = 2 <= len(labels) == len(set(labels)) <= MAX_LABELS and temperature > 0 and length > 0
        if not is_sound or pooling not in POOLINGS or models.kind_of(file.arch) == models.SEQ2SEQ:
            raise CheckpointError(f"the tagger '{file.name}' is damaged: its config has impossible values")
        config = dict(stored["config"])
        if tuple(config.get("feature_sizes", ())) != tokenizer.feature_sizes:
            raise CheckpointError(f"the tagger '{file.name}' is of another version of musiclm: train it again")
        called = f"the tagger '{file.name}'"
        tensors = checkpoint.read_tensors(file.path, file.sha256, called)
        body = _body(stored.get("body"), called)
        if body is not None:
            tensors |= {f"{BODY}{key}": value for key, value in network_of(body).body.state_dict().items()}
        network = checkpoint.load_weights(
            lambda: Network(models.create(file.arch, **config), len(labels), pooling), tensors, called, "its network"
        )
        return cls(
            network,
            arch=file.arch,
            tokenizer=tokenizer,
            labels=labels,
            length=length,
            steps=steps,
            temperature=temperature,
            threshold=threshold,
            card=file.card,
            seen=seen,
            body=body,
        )

    def save(self, path: Path, *, dtype: torch.dtype | None = torch.float16) -> None:
        """Write the tagger to a file, whole or not at all, with its weights in half precision.

        Of a body that is a language model's, `body`, the name and the hash are written, not the weights.

        Raises:
            OutputError: the place cannot be written.
        """
        tensors = {
            name: t.detach().to("cpu", dtype if t.is_floating_point() else None).contiguous()
            for name, t in self.network.state_dict().items()
            if self.body is None or not name.startswith(BODY)
        }
        config: Any = self.network.body.config
        stored = {
            "arch": self.arch,
            "config": dataclasses.asdict(config),
            "tokenizer": self.tokenizer.describe(),
            "labels": list(self.labels),
            "pooling": self.network.pooling,
            "length": self.length,
            "steps": self.steps,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "card": self.card,
            "seen": base64.b64encode(b"".join(sorted(self.seen))).decode(),
        }
        if self.body is not None:
            stored["body"] = {"name": self.body.name, "sha256": self.body.sha256}
        write_whole(path, checkpoint.pack(tensors, {TAGGER.name: json.dumps(stored, sort_keys=True)}))

    @property
    def seen(self) -> frozenset[bytes]:
        """The first `KEY_BYTES` of the fingerprint keys of the pieces that trained it and selected its weights."""
        return self._seen

    @seen.setter
    def seen(self, keys: Iterable[bytes]) -> None:
        self._seen = frozenset(key[:KEY_BYTES] for key in keys)

    def has_seen(self, form: Fingerprint) -> bool:
        """Return whether a piece, or one with the same intervals, trained the tagger or selected its weights."""
        return form.key[:KEY_BYTES] in self.seen

    def encode(self, score: Score, *, start: int | None = None) -> tuple[np.ndarray, int]:
        """Return the ids of the neutral copy of a score, and the number of notes that they have.

        Args:
            score: any score in ticks.
            start: see `notes.neutral`.

        Raises:
            MidiError: no note can be expressed.
        """
        copy = neutral(score, self.steps, start=start)
        ids, left_out = self.tokenizer.encode(copy)
        return ids, int(copy.note_num()) - max(0, left_out)

    def crop_log_probabilities(self, ids: np.ndarray, most: int = MAX_CROPS) -> Tensor:
        """Return the log probabilities of the labels for each crop of a piece, (crops, L), not calibrated."""
        return self.log_probabilities_of(spread_crops(ids, self.tokenizer, length=self.length, most=most))

    @torch.inference_mode()
    def log_probabilities_of(self, crops: Sequence[Crop]) -> Tensor:
        """Return the log probabilities of the labels for each crop, (crops, L), not calibrated."""
        device = next(self.network.parameters()).device
        parts = [batch_of(crops[i : i + BATCH]).to(device) for i in range(0, len(crops), BATCH)]
        return torch.cat([self.network(part).log_softmax(1).cpu() for part in parts])

    def log_probabilities(self, ids: np.ndarray, most: int = MAX_CROPS) -> Tensor:
        """Return the calibrated log probabilities of the labels for a piece, (L,)."""
        return self.calibrated(self.crop_log_probabilities(ids, most))

    def calibrated(self, of_crops: Tensor) -> Tensor:
        """Return the calibrated log probabilities of the labels for a piece, (L,), from those of its crops, (crops, L)."""
        return (of_crops.mean(0) / self.temperature).log_softmax(0)

    def predict_ids(self, ids: np.ndarray, num_notes: int) -> Prediction:
        """Return the prediction for a piece of which `encode` returned these."""
        return self.prediction(self.log_probabilities(ids).exp(), num_notes)

    def predict(self, score: Score) -> Prediction:
        """Return the prediction for a score.

        Raises:
            MidiError: no note can be expressed.
        """
        return self.predict_ids(*self.encode(score))

    def prediction(self, probabilities: Tensor, num_notes: int) -> Prediction:
        """Return calibrated probabilities, (L,), as a prediction."""
        order = probabilities.argsort(descending=True, stable=True).tolist()
        by_label: Mapping[str, float] = {self.labels[i]: float(probabilities[i]) for i in order}
        best = self.labels[order[0]]
        unsure = by_label[best] < self.threshold or num_notes < MIN_NOTES or best == UNSURE
        return Prediction(probabilities=dict(by_label), unsure=unsure, num_notes=num_notes)


def network_of(start: Checkpoint, num_labels: int = 2, pooling: str = "mean", dropout: float = 0.1) -> Network:
    """Return a network with the body of a language model."""
    return Network(start.model(), num_labels, pooling, dropout)


def _body(stored: Any, called: str) -> Checkpoint | None:
    """Return the language model that a tagger's header names as its body; None if the body is in the file.

    Raises:
        CheckpointError: it is not installed, or has other weights now.
    """
    if stored is None:
        return None
    try:
        name, sha256 = str(stored["name"]), str(stored["sha256"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{called} is damaged: {error!r} in its header") from error
    return checkpoint.load_exactly(name, sha256, called)


def _unpacked(text: str) -> list[bytes]:
    """Return the keys in `seen` of a file."""
    keys = base64.b64decode(text, validate=True)
    return [keys[i : i + KEY_BYTES] for i in range(0, len(keys), KEY_BYTES)]


def find(name: str | Path | None = None) -> ModelFile:
    """Return the file of a tagger: a bundled or installed name, a path, or the default one.

    Raises:
        CheckpointError: there is none.
    """
    return find_model(TAGGER, str(name or DEFAULT_TAGGER))
