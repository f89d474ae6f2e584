"""The network: 2-D convolutions over the picture of a note, halving it four times, and one linear layer.

Residual blocks as in He et al. (2016). Time is averaged away at the end, frequency is not: how high a sound lies tells
a bass from a flute. Letters in names: B batch, C channels, M mel bands, T frames.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from .. import mel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of a NoteCNN.

    Attributes:
        channels: of the first layer and of the blocks; each halves the picture, to 4 x 4 after four.
        kernel: side of the first layer's kernels, odd.
        num_families: how many answers there are.
        dropout: before the last layer.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    kernel: int = 7
    num_families: int = 11
    dropout: float = 0.3


class Block(nn.Module):
    """Two 3 x 3 convolutions, the first of which halves the picture, beside a way past them."""

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


class NoteCNN(nn.Module):
    """Pictures in, one number a family out; a softmax makes them probabilities."""

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
        """Return scores, (B, families), of pictures in dB, (B, 64 mel bands, 64 frames)."""
        x = self.features(pictures)
        return self.last(self.dropout(x.mean(dim=3).flatten(1)))

    def features(self, pictures: Tensor) -> Tensor:
        """Return what the last block makes of pictures: (B, channels, 4, 4), low frequencies and early times first."""
        x = F.relu(self.first_norm(self.first_layer(pictures)))
        for block in self.blocks:
            x = block(x)
        return x

    def first_layer(self, pictures: Tensor) -> Tensor:
        """Return how each first kernel answers to pictures in dB, (B, kernels, 32, 32)."""
        scaled: Tensor = self.first((pictures / (-mel.FLOOR_DB / 2) + 1)[:, None])
        return scaled
