"""The Audio Spectrogram Transformer (AST; Gong et al. 2021): a ViT (Dosovitskiy et al. 2021) over the log-mel picture.

The picture is cut into overlapping square patches. A linear layer makes each a token; a learned positional embedding is
added; a class token and a distillation token (DeiT, Touvron et al. 2021) stand before them. A pre-norm transformer encoder
follows, and a linear head on each of the two tokens. The logits are the mean of both heads, in training, too: the labels'
loss of that mean trains both. Without a teacher the distillation token is a second class token.
Letters in names: B batch, N patches, S tokens (the two and the patches), D width, H heads, E width of a head.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.layers.dropout import Dropout
from .. import mel
from .base import NoteModel

MAX_WIDTH = 1024
MAX_LAYERS = 24
MAX_PATCHES = 1024
MLP_RATIO = 4  # width of the hidden layer of each block, relative to the width of the tokens
NUM_CLASS_TOKENS = 2  # the class token and the distillation token
INITIAL_STD = 0.02  # of the patch filters and of the embeddings, as in DeiT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of AST.

    Attributes:
        patch: side of a patch, in mel bands and frames, at most 64.
        stride: from one patch to the next, at most `patch`; below it patches overlap. The picture is padded with silence
            above and after it where the last patch reaches beyond it.
        width: of a token.
        layers: blocks of the encoder.
        heads: of each block's attention; they divide the width.
        num_families: the number of classes.
        dropout: after the embeddings, after each attention and after each layer of the blocks' MLPs.
    """

    patch: int = 16
    stride: int = 12
    width: int = 128
    layers: int = 6
    heads: int = 4
    num_families: int = 11
    dropout: float = 0.1

    def __post_init__(self) -> None:
        whole = (self.patch, self.stride, self.width, self.layers, self.heads, self.num_families)
        if not all(isinstance(n, int) for n in whole):
            raise ValueError("patch, stride, width, layers, heads and num_families must be whole numbers")
        if not 1 <= self.stride <= self.patch <= mel.NUM_BANDS:
            raise ValueError(f"patch must be from 1 to {mel.NUM_BANDS}, and stride from 1 to patch")
        if not 1 <= self.width <= MAX_WIDTH or self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width must be from 1 to {MAX_WIDTH} and a multiple of heads")
        if not 1 <= self.layers <= MAX_LAYERS:
            raise ValueError(f"layers must be from 1 to {MAX_LAYERS}")
        if self.patches_per_side**2 > MAX_PATCHES:
            raise ValueError(f"a stride of {self.stride} gives more than {MAX_PATCHES} patches")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must be at least 0 and below 1")

    @property
    def patches_per_side(self) -> int:
        """Return how many patches there are in each direction."""
        return -(-(mel.NUM_BANDS - self.patch) // self.stride) + 1


PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"patch": 16, "stride": 16, "width": 64, "layers": 2, "heads": 2},
    "small": {"patch": 16, "stride": 12, "width": 128, "layers": 6, "heads": 4},
    "base": {"patch": 16, "stride": 12, "width": 256, "layers": 8, "heads": 8},
}
TRAINING = {"learning_rate": 1e-3, "batch": 32, "warmup_steps": 100, "weight_decay": 0.05, "clip": 1.0}


class Attention(nn.Module):
    """Self-attention of all tokens to all (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Return what each token takes from the others, (B, S, D)."""
        y_BHSE = F.scaled_dot_product_attention(*self._projected(x_BSD))
        return self.output(y_BHSE.transpose(1, 2).flatten(2))

    def weights(self, x_BSD: Tensor) -> Tensor:
        """Return the attention of each token (third dimension) to each (last), (B, H, S, S); the last sums to 1."""
        q_BHSE, k_BHSE, _ = self._projected(x_BSD)
        return (q_BHSE @ k_BHSE.transpose(2, 3) / q_BHSE.shape[-1] ** 0.5).softmax(dim=3)

    def _projected(self, x_BSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, H, S, E) each."""
        q, k, v = self.projections(x_BSD).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        return q, k, v


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and with a residual connection."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.heads)
        self.dropout = Dropout(config.dropout)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, MLP_RATIO * width),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(MLP_RATIO * width, width),
            Dropout(config.dropout),
        )

    def forward(self, x_BSD: Tensor) -> Tensor:
        x_BSD = x_BSD + self.dropout(self.attention(self.attention_norm(x_BSD)))
        return x_BSD + self.mlp(x_BSD)


class Model(NoteModel):
    """Return logits of the families; their softmax is the probabilities."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        side = config.patches_per_side
        self.padding = (side - 1) * config.stride + config.patch - mel.NUM_BANDS
        self.patches = nn.Conv2d(1, config.width, config.patch, stride=config.stride)
        nn.init.normal_(self.patches.weight, std=INITIAL_STD)
        self.class_tokens = nn.Parameter(torch.randn(NUM_CLASS_TOKENS, config.width) * INITIAL_STD)
        self.positions = nn.Parameter(torch.randn(NUM_CLASS_TOKENS + side**2, config.width) * INITIAL_STD)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleList(nn.Linear(config.width, config.num_families) for _ in range(NUM_CLASS_TOKENS))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits, (B, families), of pictures in dB, (B, 64 mel bands, 64 frames)."""
        x_BSD = self.tokens(pictures)
        for block in self.blocks:
            x_BSD = block(x_BSD)
        x_BSD = self.last_norm(x_BSD[:, :NUM_CLASS_TOKENS])
        return torch.stack([head(x_BSD[:, i]) for i, head in enumerate(self.heads)]).mean(dim=0)

    def tokens(self, pictures: Tensor) -> Tensor:
        """Return the input of the encoder, (B, S, D): the class tokens, then the patches, low bands and early frames first."""
        scaled = pictures / (-mel.FLOOR_DB / 2) + 1  # [-1, 1]; silence is -1
        padded = F.pad(scaled[:, None], (0, self.padding, 0, self.padding), value=-1.0)
        patches_BND = self.patches(padded).flatten(2).transpose(1, 2)
        first = self.class_tokens.expand(len(pictures), -1, -1)
        return self.dropout(torch.cat([first, patches_BND], dim=1) + self.positions)

    def embeddings(self) -> list[Tensor]:
        """Return the class tokens and the positional embeddings: they have no weight decay, as in DeiT."""
        return [self.class_tokens, self.positions]

    def patch_filters(self) -> Tensor:
        """Return the filters of the patch embedding, (D, mel bands, frames)."""
        return self.patches.weight.detach()[:, 0]

    def patch_positions(self) -> Tensor:
        """Return the positional embeddings of the patches, (patches up, patches right, D)."""
        side = self.config.patches_per_side
        return self.positions.detach()[NUM_CLASS_TOKENS:].unflatten(0, (side, side))

    def patch_stride(self) -> int:
        """Return how many bands and frames there are from one patch to the next."""
        return int(self.config.stride)

    @torch.inference_mode()
    def attention(self, pictures: Tensor) -> Tensor:
        """Return the attention of each block, (B, layers, H, S, S): of each token (fourth dimension) to each (last)."""
        x_BSD, found = self.tokens(pictures), []
        for block in self.blocks:
            assert isinstance(block, Block)
            found.append(block.attention.weights(block.attention_norm(x_BSD)))
            x_BSD = block(x_BSD)
        return torch.stack(found, dim=1)
