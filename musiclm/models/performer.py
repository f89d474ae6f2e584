"""The Performer (Choromanski et al. 2021): linear attention whose weights estimate those of softmax, by random features.

exp(q·k) is the mean of exp(w·q - |q|^2 / 2) exp(w·k - |k|^2 / 2) over Gaussian vectors w. With m of them the estimate is
positive and unbiased, and its squared error falls as 1/m; it is smaller where the vectors are orthogonal (FAVOR+). Attention is
then a product of features, whose sums are a recurrent state of one size (`layers.linear_attention`), and q and k are divided by
the fourth root of E, so that q·k is that of scaled softmax attention.

Nothing that keeps the exponentials in range reads the future: a query's features are divided by their own largest, which the
quotient cancels, and the exponents of keys are clamped to constants, -85 … 60. Beyond them a feature is that of the limit, and
its exponent gets no gradient: with E = 64, most features of a key of norm above 37 (|k|^2 / 2 sqrt(E) = 85) are alike, and the
estimate of its weights is wrong.

The vectors of a layer are a function of (seed, redraw number, layer). The seed is sampled with the weights; seed, number and
vectors are buffers of the checkpoint. In training the vectors are sampled again every `redraw_steps` steps, in the trained
model and in its EMA copy alike. Sums of features of other vectors mean nothing: in a state of another redraw number a batch
element is treated as empty, as if the music began there.

Positions are sines and cosines, added to the embeddings, as in `absolute` and `linear`.

B batch, H heads, T tokens, E size of a head, F features (m of them).
"""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from .base import State
from .layers.linear_attention import FeatureMap, LinearAttention
from .layers.linear_transformer import LinearConfig, LinearTransformer

MIN_EXPONENT, MAX_EXPONENT = (
    -85.0,
    60.0,
)  # of keys; float32 has e^-87 to e^88, and the sums of a million tokens fit, too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(LinearConfig):
    """The hyperparameters of a Performer.

    Attributes:
        num_features: random features per head, m.
        redraw_steps: training steps between two samples of the random vectors.
    """

    num_features: int = 128
    redraw_steps: int = 1000


PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "dropout": 0.1, "num_features": 128, "redraw_steps": 1000},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "dropout": 0.1, "num_features": 128, "redraw_steps": 1000},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "dropout": 0.1, "num_features": 128, "redraw_steps": 1000},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LinearTransformer):
    """A `LinearTransformer` with positive orthogonal random features.

    The state is the number of tokens so far, (B,), the redraw number, (B,), then S and z of each layer.

    Attributes:
        seed: of the random vectors, a buffer.
        redraws: the redraw number: how many times the vectors were sampled again, a buffer.
    """

    seed: Tensor
    redraws: Tensor

    def __init__(self, config: Config) -> None:
        head_size = config.size // config.num_heads
        super().__init__(config, lambda _layer: RandomFeatures(head_size, config.num_features))
        self.register_buffer("seed", torch.empty((), dtype=torch.int64))
        self.register_buffer("redraws", torch.empty((), dtype=torch.int64))
        if not self.seed.is_meta:
            self.seed.copy_(torch.randint(2**31, ()))
            self.redraw(0)

    def on_step(self, step: int) -> None:
        if step and step % self.config.redraw_steps == 0:
            self.redraw(int(self.redraws) + 1)

    def redraw(self, number: int) -> None:
        """Take the random vectors of a redraw number; states of other numbers become empty."""
        seed = int(self.seed)
        for layer, block in enumerate(self.blocks):
            features = cast(RandomFeatures, cast(LinearAttention, block.attention).features)
            num_features, size = features.vectors_FE.shape
            vectors_FE = random_vectors(num_features, size, (seed, number, layer))
            features.vectors_FE.copy_(torch.from_numpy(vectors_FE))
        self.redraws.fill_(number)

    def opened(self, state: State | None) -> State | None:
        if state is None:
            return None
        counts, redraws, *sums = state
        is_current = redraws == self.redraws
        if is_current.device.type == "cpu" and bool(is_current.all()):  # elsewhere reading it would wait for the device
            return counts, *sums
        return tuple(torch.where(is_current.view(-1, *[1] * (t.ndim - 1)), t, 0) for t in (counts, *sums))

    def closed(self, state: State) -> State:
        return state[0], self.redraws.repeat(len(state[0])), *state[1:]


class RandomFeatures(FeatureMap):
    """exp(w·x - |x|^2 / 2) for each vector w, of x = q or k over the fourth root of E."""

    vectors_FE: Tensor

    def __init__(self, head_size: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("vectors_FE", torch.empty(num_features, head_size))

    def of_queries(self, q: Tensor) -> Tensor:
        exponents = q @ self._scaled(q).t()  # |q|^2 / 2 is a common factor
        return exponents.sub_(exponents.amax(-1, keepdim=True)).exp_()

    def of_keys(self, k: Tensor) -> Tensor:
        exponents = (k @ self._scaled(k).t()).sub_(k.square().sum(-1, keepdim=True) / (2 * k.shape[-1] ** 0.5))
        return exponents.clamp_(MIN_EXPONENT, MAX_EXPONENT).exp_()

    def to_queries(self, dfeatures: Tensor, features: Tensor, q: Tensor) -> Tensor:
        return (dfeatures * features) @ self._scaled(q)

    def to_keys(self, dfeatures: Tensor, features: Tensor, k: Tensor) -> Tensor:
        lowest, highest = math.exp(MIN_EXPONENT + 1e-3), math.exp(MAX_EXPONENT - 1e-3)
        dexponents = dfeatures.mul(features).mul_((features > lowest) & (features < highest))  # not through the clamp
        return (dexponents @ self._scaled(k)).sub_(dexponents.sum(-1, keepdim=True) * k / k.shape[-1] ** 0.5)

    def _scaled(self, x: Tensor) -> Tensor:
        """Return the vectors over the fourth root of E, in the type of x."""
        return self.vectors_FE.to(x.dtype) * x.shape[-1] ** -0.25


def random_vectors(num_features: int, size: int, numbers: tuple[int, ...]) -> np.ndarray:
    """Return Gaussian vectors, (num_features, size) float64, orthogonal within each group of `size` of them.

    The directions are rows of random orthogonal matrices, the lengths those of independent Gaussian vectors.

    Args:
        num_features: how many.
        size: E.
        numbers: what they are a function of.
    """
    random = np.random.default_rng(numbers)
    q, r = np.linalg.qr(random.standard_normal((-(-num_features // size), size, size)))
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))  # without them the matrices are not uniform (Mezzadri 2007)
    directions = (q * signs[:, None]).transpose(0, 2, 1).reshape(-1, size)[:num_features]
    lengths = np.linalg.norm(random.standard_normal((num_features, size)), axis=1)
    return np.asarray(directions * lengths[:, None])
