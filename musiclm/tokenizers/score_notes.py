"""Ids of `score` bar by bar and note by note: which ids belong to which note, and bars with only some of their notes.

T tokens.
"""

from __future__ import annotations

import numpy as np

from .vocabulary import BEGINS, PLAN, Kind, Vocabulary, is_kind, pitches_on

NEAR = 256  # ids in front of a place where its program is, nearly always


class NoteReader:
    """Reads the notes of ids.

    Args:
        table: the vocabulary.
    """

    def __init__(self, table: Vocabulary) -> None:
        self._is_bar, self._is_position, self._is_program, self._is_tempo, self._is_time_signature = (
            is_kind(table, kind) for kind in (Kind.BAR, Kind.POSITION, Kind.PROGRAM, Kind.TEMPO, Kind.TIME_SIGNATURE)
        )
        self._is_attribute, self._begins_note = is_kind(table, *PLAN), is_kind(table, *BEGINS)
        self._pitch = pitches_on(table)

    def program_before(self, ids: np.ndarray, place: int, begin: int = 0) -> int:
        """Return the last program in [begin, place) of ids; -1 if there is none."""
        for start in (max(begin, place - NEAR), begin):  # it is near, nearly always
            said = np.flatnonzero(self._is_program[ids[start:place]])
            if len(said):
                return int(ids[start + said[-1]])
        return -1

    def programs(self, ids: np.ndarray, before: int = -1) -> np.ndarray:
        """Return the program id of the note that each id belongs to, (T,); -1 for ids of no note.

        Args:
            ids: any.
            before: the program before them; -1 if there is none.
        """
        is_program = self._is_program[ids]
        last = np.maximum.accumulate(np.where(is_program, np.arange(len(ids)), -1))
        said = np.where(last >= 0, ids[np.maximum(last, 0)], before)
        return np.where(self.of_note(ids) >= 0, said, -1)

    def of_note(self, ids: np.ndarray) -> np.ndarray:
        """Return the position of the first id of the note that each id belongs to, (T,); -1 for ids of no note."""
        places = np.arange(len(ids))
        begins = np.maximum.accumulate(np.where(self._begins_note[ids], places, -3))
        return np.where(places - begins < 3, begins, -1)  # its pitch, velocity and duration

    def tops(self, ids: np.ndarray) -> np.ndarray:
        """Return which ids belong to the highest note of their position, drums excepted, (T,) booleans."""
        begins = self.of_note(ids)
        notes = np.flatnonzero(self._pitch[ids] >= 0)
        group = np.cumsum(self._is_bar[ids] | self._is_position[ids])
        highest = np.full(int(group[-1]) + 1, -1)
        np.maximum.at(highest, group[notes], self._pitch[ids[notes]])
        is_top = np.zeros(len(ids), bool)
        is_top[notes] = self._pitch[ids[notes]] == highest[group[notes]]
        return (begins >= 0) & is_top[np.maximum(begins, 0)]

    def some(
        self,
        ids: np.ndarray,
        programs: np.ndarray,
        chosen: np.ndarray,
        *,
        said: int = -1,
        tempi: bool = False,
        attributes: bool = False,
    ) -> np.ndarray:
        """Return bars with only some of their notes, each with its program where that changes, (T',) int64.

        Args:
            ids: of whole bars, (T,).
            programs: of the note of each id, see `programs`.
            chosen: which ids belong to a note that is kept, (T,) booleans.
            said: id of the program before; -1 if there is none.
            tempi: whether tempo changes are kept.
            attributes: whether those of bars are kept.
        """
        notes = chosen & (programs >= 0)
        events = notes | self._is_tempo[ids] if tempi else notes
        is_position, is_bar = self._is_position[ids], self._is_bar[ids]
        group = np.cumsum(is_position | is_bar)
        has_event = np.zeros(int(group[-1]) + 1 if len(group) else 1, bool)
        has_event[group[events]] = True
        keep = events | is_bar | self._is_time_signature[ids] | (is_position & has_event[group])
        if attributes:
            keep |= self._is_attribute[ids]
        begins = np.flatnonzero(notes & (self._begins_note[ids]))
        changes = begins[programs[begins] != np.concatenate([[said], programs[begins[:-1]]])[: len(begins)]]
        places = np.cumsum(keep)[changes] - 1
        return np.insert(ids[keep], places, programs[changes]).astype(np.int64)
