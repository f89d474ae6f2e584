"""What is known of a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..labels import LabelSources


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A known data set: facts for people, and the options that `corpus build --dataset` takes from it.

    Attributes:
        name: that of its file.
        title: one line: what it holds and how much.
        licence: of the files; and of what is beneath them, where that differs.
        address: the project's page, where it is downloaded; None for what comes with musiclm.
        citation: the paper or the people to credit.
        split: the official split that its files bring and that a build uses; None if there is none.
        labels: what else is said of each piece in the download.
        label_columns: of these labels those that a corpus holds: by kind, the column of the official table.
        style: of all pieces, one of the styles of `generate --style`; None where pieces differ or it is none of them.
        tokenizer: the one that fits it.
        programs: MIDI programs to replace by others, see `musiclm.data.clean.clean`.
        note: what to know before using it.
    """

    name: str
    title: str
    licence: str
    address: str | None
    citation: str
    split: str | None = None
    labels: tuple[str, ...] = ()
    label_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    style: str | None = None
    tokenizer: str = "score"
    programs: Mapping[int, int] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def label_sources(self) -> LabelSources:
        """Where a build takes the labels of the pieces from."""
        return LabelSources(of_all={"style": self.style} if self.style else {}, columns=self.label_columns)
