"""A residual CNN (He et al. 2016) over the log-mel picture of a note, and one linear layer.

Average pooling at the end is over time only: the frequency of a sound distinguishes a bass from a flute. Letters in
names: B batch, C channels, M mel bands, T frames.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from .. import mel
from .base import NoteModel

MAX_CHANNELS = 1024
MAX_KERNEL = 15
MAX_LAYERS = 5  # each halves the picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of the CNN.

    Attributes:
        channels: of the first layer and of the blocks, 1 to 5 numbers; each halves the picture, to 4 x 4 after four.
        kernel: side of the first layer's kernels, odd, at most 15.
        num_families: the number of classes.
        dropout: before the last layer.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    kernel: int = 7
    num_families: int = 11
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) for n in (*self.channels, self.kernel, self.num_families)):
            raise ValueError("channels, kernel and num_families must be whole numbers")
        if not 1 <= len(self.channels) <= MAX_LAYERS or not all(1 <= c <= MAX_CHANNELS for c in self.channels):
            raise ValueError(f"channels must be 1 to {MAX_LAYERS} numbers from 1 to {MAX_CHANNELS}")
        if not 1 <= self.kernel <= MAX_KERNEL:
            raise ValueError(f"kernel must be from 1 to {MAX_KERNEL}")


PRESETS: dict[str, dict[str, tuple[int, ...]]] = {
    "tiny": {"channels": (8, 16, 32, 64)},
    "small": {"channels": (32, 64, 128, 256)},
    "base": {"channels": (64, 128, 256, 512)},
}
TRAINING = {"learning_rate": 2e-3, "batch": 128}


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norms, the first of stride 2, and a residual connection."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.past = nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        past = self.past(F.avg_pool2d(x, 2))
        x = F.relu(self.first_norm(self.first(x)))
        return F.relu(past + self.second_norm(self.second(x)))


class Model(NoteModel):
    """Return logits of the families; their softmax is the probabilities."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.first = nn.Conv2d(1, c[0], config.kernel, stride=2, padding=config.kernel // 2, bias=False)
        self.first_norm = nn.BatchNorm2d(c[0])
        self.blocks = nn.ModuleList(Block(low, high) for low, high in itertools.pairwise(c))
        self.rows = mel.NUM_BANDS >> len(c)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(c[-1] * self.rows, config.num_families)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits, (B, families), of pictures in dB, (B, 64 mel bands, 64 frames)."""
        x = self.features(pictures)
        return self.last(self.dropout(x.mean(dim=3).flatten(1)))

    def features(self, pictures: Tensor) -> Tensor:
        """Return the output of the last block: (B, channels, 4, 4), low frequencies and early times first."""
        x = F.relu(self.first_norm(self.first_layer(pictures)))
        for block in self.blocks:
            x = block(x)
        return x

    def first_kernels(self) -> Tensor:
        """Return the kernels of the first layer, (kernels, mel bands, frames)."""
        return self.first.weight.detach()[:, 0]

    def first_layer(self, pictures: Tensor) -> Tensor:
        """Return the response of each first kernel to pictures in dB, (B, kernels, 32, 32)."""
        scaled: Tensor = self.first((pictures / (-mel.FLOOR_DB / 2) + 1)[:, None])
        return scaled
