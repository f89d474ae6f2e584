"""Further ways to choose among the tokens that a model offers, beside those of `Sampler`.

A sampling option is one file here and one field of `SamplerConfig`, which names the file. The file has a `LogitsProcessor`
called PROCESSOR. The command line, the record in a MIDI file and `repro` find it by the field. Temperature, top-k, top-p and
min-p are part of `Sampler` itself: they share one softmax, and its rounding is part of what a seed gives.

A file imports torch for type checkers only, so that the help of the command line does not load it.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..options import Option

if TYPE_CHECKING:
    from torch import Tensor


class LogitsProcessor:
    """Something that changes logits before a token is sampled.

    Attributes:
        help: one sentence for the command line.
        metavar: how the help calls the value.
        min: the smallest value.
        max: the largest value.
        min_open: whether `min` itself is excluded.
    """

    help = ""
    metavar: str | None = None
    min: float | None = None
    max: float | None = None
    min_open = False

    def process(self, logits: Tensor, value: Any) -> Tensor:
        """Return new logits, (B, V), -inf for what must not come; at least one of each batch element stays finite.

        Args:
            logits: (B, V) float32, constrained and divided by the temperature. Not to be changed in place.
            value: of the option.
        """
        raise NotImplementedError


def logits_processor(name: str) -> Any:
    """Return a dataclass field for the sampling option of a file in this package: its `PROCESSOR`; None is off."""
    found: LogitsProcessor = import_module(f".{name}", __package__).PROCESSOR
    shown = Option(
        help=found.help,
        metavar=found.metavar,
        min=found.min,
        max=found.max,
        min_open=found.min_open,
        group="Sampling",
    )
    return dataclasses.field(default=None, metadata={"option": shown, "processor": found})
