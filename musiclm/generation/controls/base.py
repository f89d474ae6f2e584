"""The interface of a control: how it is parsed, stored and applied. One file each; see the package for how one is added."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..options import Option

if TYPE_CHECKING:
    import numpy as np

    from ...tokenizers.base import Tokenizer


class Control:
    """A constraint that a user can put on new music.

    Attributes:
        help: one sentence for the command line.
        metavar: how the help calls the value.
        off: see `Option`.
    """

    help = ""
    metavar: str | None = None
    off: Any = None

    def parse(self, given: Any) -> Any:
        """Return the value of what a user wrote, or of a value that was parsed before.

        Raises:
            ValueError: it cannot be read.
        """
        return given

    def to_json(self, value: Any) -> Any:
        """Return a value as JSON that `parse` reads again."""
        return value

    def apply(self, value: Any, tokenizer: Tokenizer, permitted: np.ndarray) -> None:
        """Clear the ids that the control bans in new music.

        Args:
            value: what was asked for.
            tokenizer: any, without merges.
            permitted: (V,) booleans, changed in place.

        Raises:
            TokenizerError: the tokenizer cannot express it.
        """


def control(name: str, default: Any = None) -> Any:
    """Return a dataclass field for the control of a file in this package: its `CONTROL`."""
    found: Control = import_module(f".{name}", __package__).CONTROL
    shown = Option(help=found.help, metavar=found.metavar, group="Controls", off=found.off)
    return dataclasses.field(default=default, metadata={"option": shown, "control": found})
