"""The registry of architectures. Each file `models/NAME.py` has a frozen keyword-only `Config`, a `Model`, `PRESETS` and
`TRAINING`.

A new file here is an architecture everywhere: in training, sampling, evaluation, checkpoints and tests. Files whose names
begin with an underscore, the files in `SHARED` and packages are not architectures.

An architecture is of a kind, which its name begins with; see `KINDS`. All others are causal: language models.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from .base import LanguageModel

SHARED = ("base", "encoder", "ensemble", "seq2seq", "weights")  # files that are not architectures
CAUSAL, SEQ2SEQ, ENCODER = "causal", "seq2seq", "encoder"
KINDS = {CAUSAL: "", SEQ2SEQ: "seq2seq_", ENCODER: "bidirectional_"}  # and how the names of their architectures begin
SIZES = ("tiny", "small", "base")  # each architecture's PRESETS has these keys


def names(kind: str | None = CAUSAL) -> list[str]:
    """Return the names of the architectures of a kind, from their file names; this does not import torch.

    Args:
        kind: one of `KINDS`: causal language models; seq2seq, see `seq2seq.Seq2SeqModel`; encoder, see
            `encoder.EncoderModel`; None for all.
    """
    files = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    found = (name for name in files if not name.startswith("_") and name not in SHARED)
    return sorted(name for name in found if kind in (None, kind_of(name)))


def kind_of(name: str) -> str:
    """Return the kind of the architecture of a name."""
    return next((kind for kind, begin in KINDS.items() if begin and name.startswith(begin)), CAUSAL)


def create(name: str, vocab_size: int, **config: Any) -> LanguageModel:
    """Return a new model, initialised from torch's global random generator.

    Args:
        name: one of `names(None)`.
        vocab_size: number of token ids.
        config: fields of the architecture's `Config`; omitted fields have their defaults.

    Raises:
        CheckpointError: there is no such architecture.
        ValueError: the architecture does not have this field or does not allow this value, or its model has no head.
    """
    architecture = _architecture(name)
    try:
        return architecture.Model(architecture.Config(vocab_size=vocab_size, **config))
    except TypeError as error:
        raise ValueError(f"architecture '{name}': {error}") from error


@contextmanager
def meta_init() -> Iterator[None]:
    """Create modules on torch's meta device, without memory and without random initialisation, to be given weights later.

    Initialisation is skipped because any arithmetic on the meta device makes torch import its compiler, which takes a second.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class SkipInitialisation(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, kwargs = getattr(function, "__name__", ""), kwargs or {}
            if name in ("normal_", "uniform_") or getattr(function, "__module__", "") == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return function(*args, **kwargs)

    with torch.device("meta"), SkipInitialisation():
        yield


def preset(name: str, size: str) -> dict[str, Any]:
    """Return the fields of `Config` for a size of an architecture: tiny, small or base."""
    presets = _architecture(name).PRESETS
    if size not in presets:
        raise ValueError(f"no preset '{size}' for '{name}': one of {', '.join(presets)}")
    return dict(presets[size])


def training(name: str) -> dict[str, Any]:
    """Return the recommended hyperparameters of training: learning_rate, batch_size and window (crop length in tokens).

    `crops` is contiguous for an architecture that is meant to carry its state from crop to crop; left out, it is random.
    """
    return dict(_architecture(name).TRAINING)


def fields(name: str) -> set[str]:
    """Return the names of the fields of an architecture's `Config`."""
    return {field.name for field in dataclasses.fields(_architecture(name).Config)}


def starts_from_zeros(name: str) -> bool:
    """Return whether an architecture's state may be carried from crop to crop: see `LanguageModel.starts_from_zeros`."""
    return bool(_architecture(name).Model.starts_from_zeros)


def decoder_of(name: str) -> str | None:
    """Return the architecture of the language models that a new model's decoder can start from; None if there is none.

    Its module has `of_decoder` and `warm_start`.
    """
    found: str | None = getattr(_architecture(name), "DECODER", None)
    return found


def of_decoder(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a language model's weights by the names that an architecture's decoder has for them; see `decoder_of`."""
    found: dict[str, Tensor] = _architecture(name).of_decoder(weights)
    return found


def warm_start(name: str, weights: dict[str, Tensor], model: LanguageModel) -> dict[str, Tensor]:
    """Return all weights of a new model of an architecture that starts from a language model; see `decoder_of`.

    Raises:
        ValueError: the sizes differ.
    """
    found: dict[str, Tensor] = _architecture(name).warm_start(weights, model)
    return found


def _architecture(name: str) -> ModuleType:
    if name not in names(None):
        raise CheckpointError(f"no architecture '{name}': one of {', '.join(names(None))}")
    return import_module(f".{name}", __name__)
