"""The note classifier: a network with a temperature, its file, and its predictions.

The file is a safetensors file (`musiclm.checkpoint.pack`) whose metadata has `classifier`, a JSON object of `arch` (the
CNN if absent), `config`, `temperature`, `families`, `picture` and `card`. Nothing in it can run code.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint
from ..errors import CheckpointError
from ..files import write_whole
from . import FAMILIES, mel, models, onsets
from .models.base import NoteModel

BUNDLED = "instruments.safetensors"
UNSURE_BELOW = 0.5  # calibrated probability; below it the prediction is more likely wrong than right
BATCH = 256  # pictures in one forward pass, for the memory they take
PICTURE = {
    "sample_rate": mel.SAMPLE_RATE,
    "fft_size": mel.FFT_SIZE,
    "hop": mel.HOP,
    "bands": mel.NUM_BANDS,
    "frames": mel.NUM_FRAMES,
    "lowest_hz": mel.LOWEST_HZ,
    "floor_db": mel.FLOOR_DB,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for a note.

    Attributes:
        probabilities: of each family, calibrated, most likely first, summing to 1.
    """

    probabilities: dict[str, float]

    @property
    def family(self) -> str:
        """Return the most likely family."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Return the probability of that family."""
        return self.probabilities[self.family]

    @property
    def unsure(self) -> bool:
        """Return whether the prediction is more likely wrong than right."""
        return self.probability < UNSURE_BELOW


class NoteClassifier:
    """Predicts the instrument family of a note.

    Attributes:
        model: the network, in evaluation mode.
        temperature: the divisor of its logits that calibrates the probabilities.
        card: data, licence, command, figures.
    """

    def __init__(self, model: NoteModel, *, temperature: float = 1.0, card: dict[str, Any] | None = None) -> None:
        self.model = model.eval()
        self.temperature = temperature
        self.card = card or {}

    @classmethod
    def load(cls, path: Path | str | None = None) -> NoteClassifier:
        """Return the classifier of a file, or the bundled one.

        Raises:
            CheckpointError: there is no such file, it is damaged, or it was trained on another kind of pictures.
        """
        path = Path(path) if path is not None else Path(str(resources.files("musiclm.checkpoints"))) / BUNDLED
        metadata, _ = checkpoint.read_header(path)
        try:
            stored = json.loads(metadata["classifier"])
            arch, fields = stored.get("arch", models.DEFAULT), dict(stored["config"])
            config, temperature = models.make_config(arch, fields), float(stored["temperature"])
            card = dict(stored["card"])
            same = stored["picture"] == PICTURE and stored["families"] == list(FAMILIES)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"'{path}' is not a note classifier: {error!r} in its header") from error
        if not same:
            raise CheckpointError(
                f"'{path}' was trained on other pictures or families than this version uses: train it again"
            )
        if config.num_families != len(FAMILIES) or not temperature > 0:
            raise CheckpointError(f"the classifier '{path}' is damaged: its config has impossible values")
        called = f"the classifier '{path}'"
        tensors = checkpoint.read_tensors(path, metadata["sha256"], called)
        model = checkpoint.load_weights(lambda: models.create(arch, **fields), tensors, called, "its network")
        return cls(model, temperature=temperature, card=card)

    def save(self, path: Path, *, dtype: torch.dtype | None = torch.float16) -> None:
        """Write the classifier to a file, whole or not at all, with its weights in half precision.

        Raises:
            OutputError: the place cannot be written.
        """
        tensors = {
            name: t.detach().to(dtype if t.is_floating_point() else None).contiguous()
            for name, t in self.model.state_dict().items()
        }
        stored = {
            "arch": models.arch_of(self.model),
            "config": dataclasses.asdict(self.model.config),
            "temperature": self.temperature,
            "families": list(FAMILIES),
            "picture": PICTURE,
            "card": self.card,
        }
        write_whole(path, checkpoint.pack(tensors, {"classifier": json.dumps(stored, sort_keys=True)}))

    def predict(self, audio: Tensor, sample_rate: int = mel.SAMPLE_RATE) -> Prediction:
        """Return the prediction for the loudest note of a recording.

        Args:
            audio: mono, floating point, (samples,); any level.
            sample_rate: Hz.

        Raises:
            AudioError: the recording is too short or silent, or has values that are not finite.
        """
        return self.look([loudest_picture(mel.resample(audio - mel.offset(audio), sample_rate))])[0]

    @torch.inference_mode()
    def look(self, pictures: Sequence[Tensor]) -> list[Prediction]:
        """Return the prediction for each picture; `mel.log_mel` makes them, (64 mel bands, 64 frames) each."""
        if not pictures:
            return []
        parts = [self.model(part) for part in torch.stack(list(pictures)).split(BATCH)]
        probabilities = (torch.cat(parts) / self.temperature).softmax(dim=1)
        return [
            Prediction(
                probabilities={FAMILIES[i]: float(row[i]) for i in row.argsort(descending=True, stable=True).tolist()}
            )
            for row in probabilities
        ]


def loudest_picture(audio: Tensor) -> Tensor:
    """Return the picture of the loudest note of a recording, (64 mel bands, 64 frames).

    Args:
        audio: mono at SAMPLE_RATE, (samples,).

    Raises:
        AudioError: see `mel.log_mel`.
    """
    mel.check(audio)
    span = onsets.loudest_note(audio)
    return mel.log_mel(audio[span.start : span.end])
