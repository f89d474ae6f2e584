"""The Linear Transformer (Katharopoulos et al. 2020): attention by products of features, whose sums are a recurrent state.

The weight of a key for a query is f(q)·f(k) with f(x) = elu(x) + 1, divided by the sum of all weights. So a layer is also a
recurrent network: it keeps a matrix and a vector per head, of one size however long the music is, and one more token costs
the same at any position (`layers.linear_attention`). In turn all that it attends to is a matrix of E x E: attention is less
sharp than softmax's.

Positions are sines and cosines, added to the embeddings, as in the paper; so only attention differs from `absolute`. They are
unbounded, but trained on those of the crops only: the loss beyond them is that of extrapolation. There is no context: each
token attends to all before it.

B batch, H heads, T tokens, E size of a head, F features (E of them).
"""

from __future__ import annotations

from torch import Tensor

from .layers.linear_attention import FeatureMap
from .layers.linear_transformer import LinearConfig, LinearTransformer

LEAST = -80.0  # of keys; float32 has e^-87, and the gradients are quotients by the features

Config = LinearConfig
PRESETS = {
    "tiny": {"size": 128, "num_layers": 2, "num_heads": 2, "dropout": 0.1},
    "small": {"size": 256, "num_layers": 4, "num_heads": 4, "dropout": 0.1},
    "base": {"size": 384, "num_layers": 6, "num_heads": 6, "dropout": 0.1},
}
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 4, "window": 512}


class Model(LinearTransformer):
    """A `LinearTransformer` whose features are elu(x) + 1."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, lambda _layer: EluFeatures())


class EluFeatures(FeatureMap):
    """elu(x) + 1: x + 1 above 0, e^x below.

    Where all numbers of a query are negative, the largest feature is made 1, which the quotient cancels. Numbers of a key
    below -80 count as -80 and get no gradient. So no denominator is 0.
    """

    def of_queries(self, q: Tensor) -> Tensor:
        return q.clamp(max=0).sub_(q.amax(-1, keepdim=True).clamp_(max=0)).exp_().add_(q.relu())

    def of_keys(self, k: Tensor) -> Tensor:
        return k.clamp(LEAST, 0).exp_().add_(k.relu())  # cancels nothing, as e^k - 1 + 1 would

    def to_queries(self, dfeatures: Tensor, features: Tensor, q: Tensor) -> Tensor:
        return dfeatures * features.clamp(max=1)

    def to_keys(self, dfeatures: Tensor, features: Tensor, k: Tensor) -> Tensor:
        return (dfeatures * features.clamp(max=1)).mul_(k > LEAST)
