"""The grammar of a tokenizer that has no grammar of its own, made from its vocabulary table alone."""

from __future__ import annotations

import numpy as np

from ...tokenizers.base import Tokenizer
from ...tokenizers.vocabulary import BEGINS, Kind, ids_of, is_kind, is_special
from .base import Grammar, Limits

LIMITED = (Kind.PROGRAM, Kind.TEMPO, Kind.TIME_SIGNATURE)
LastIds = tuple[int, ...]
"""The last id of each kind in `LIMITED`, -1 where there was none."""


class LimitedGrammar(Grammar):
    """Special tokens are banned, and so is what the limits do not permit.

    A note may begin only while the current program, tempo and time signature are permitted. Where a kind is limited and has
    no id yet, or a banned one in the prompt, a permitted one has to come first. The ends of notes are unknown here, so the
    polyphony cannot be limited.

    Args:
        tokenizer: any.
        not_before: not used: new tokens of an unknown tokenizer are taken to come in order of time.
        limits: the limits on new music.
    """

    counts_notes = False

    def __init__(self, tokenizer: Tokenizer, not_before: float = 0.0, limits: Limits | None = None) -> None:
        super().__init__(tokenizer.vocab_size)
        table = tokenizer.vocabulary
        permitted = ~is_special(table)
        if limits is not None:
            permitted &= limits.permitted
        begins = is_kind(table, *BEGINS)
        self._permitted, self._without_notes = np.flatnonzero(permitted), np.flatnonzero(permitted & ~begins)
        self._kinds = [token.kind for token in table]
        self._note_ids = [_note_ids(ids_of(table, kind), permitted) for kind in LIMITED]

    def beginning(self) -> LastIds:
        return (-1,) * len(LIMITED)

    def following(self, state: LastIds) -> list[np.ndarray]:
        may_begin = all(last in ids for last, ids in zip(state, self._note_ids, strict=True))
        return [self._permitted if may_begin else self._without_notes]

    def after(self, state: LastIds, token: int) -> LastIds:
        if self._kinds[token] not in LIMITED:
            return state
        at = LIMITED.index(self._kinds[token])
        return (*state[:at], token, *state[at + 1 :])


def _note_ids(ids: np.ndarray, permitted: np.ndarray) -> set[int]:
    """Return the ids of a kind under which a note may begin; with -1, for none yet, where all of them are permitted."""
    found = {int(i) for i in ids if permitted[i]}
    return found | {-1} if len(found) == len(ids) else found
