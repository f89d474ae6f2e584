"""The data report ("doctor"): contents and oddities of a corpus, counted file by file in constant memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from symusic import Score

from ..errors import Drop

OFF_GRID = 0.2  # share of onsets off the grid above which a piece counts as performed or misaligned


class DataReport:
    """Counts over the files that were kept; those named `..._read` are of all files that could be read, before cleaning."""

    def __init__(self) -> None:
        self.found = self.kept = self.num_notes = 0
        self._dropped: Counter[Drop] = Counter()
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self._tables: dict[str, Counter[Any]] = {
            name: Counter()
            for name in (
                "programs",
                "pieces_with_program",
                "tempi",
                "metres",
                "keys",
                "pitches",
                "lengths",
                "sizes",
                "cleaned",
            )
        }

    def add_file(self, reason: Drop | None, facts: dict[str, Any]) -> None:
        """Count a file, kept or dropped for a reason; its facts are empty if it could not be read."""
        self.found += 1
        if facts:
            self._sums["files_read"] += 1
            self._sums["notes_read"] += facts["num_notes_read"]
        if reason is not None:
            self._dropped[reason] += 1
            return
        self.kept += 1
        self.num_notes += facts["num_notes"]
        self._seconds += facts["seconds"]
        sums, tables = self._sums, self._tables
        sums["left_out"] += facts["left_out"]
        sums["onsets"] += facts["onsets"]
        sums["off_grid"] += facts["off_grid"]
        sums["pieces_off_grid"] += facts["off_grid"] > OFF_GRID * facts["onsets"]
        sums["pieces_flat"] += facts["flat"]
        sums["pieces_with_tracks_on_one_program"] += facts["shared"]
        sums["pieces_with_tempo_changes"] += facts["tempi"] > 0
        tables["programs"].update(facts["programs"])
        tables["pieces_with_program"].update(facts["programs"].keys())
        tables["tempi"][int(facts["tempo"] // 10 * 10)] += 1
        tables["metres"][facts["metre"]] += 1
        tables["keys"][facts["key"] or "none"] += 1
        tables["pitches"].update({int(k): v for k, v in facts["pitches"].items()})
        tables["lengths"].update({int(k): v for k, v in facts["lengths"].items()})
        tables["sizes"][int(np.floor(np.log2(max(1, facts["num_notes"]))))] += 1
        tables["cleaned"].update(facts["cleaned"])

    def add_copy(self, is_exact: bool) -> None:
        """Count a file that has the notes of another file, dropped or kept."""
        self._sums["copies_exact" if is_exact else "copies_near"] += 1

    def dropped(self) -> dict[str, int]:
        """Return how many files were dropped, by stored reason, the most frequent first."""
        by_count = sorted(self._dropped.items(), key=lambda item: (-item[1], item[0].text))
        return {drop.stored: count for drop, count in by_count}

    def report(self) -> dict[str, Any]:
        """Return all counts as JSON.

        Keys of tables: programs; tempi by tens (80 is 80 to 89.9 quarters per minute, of the tempo that lasts longest);
        the first time signature; keys (estimated by Krumhansl's profiles); pitches; note lengths in thirty-seconds by
        powers of two (3 is about a quarter); pieces by their number of notes in powers of two.
        """
        sums, tables = self._sums, self._tables
        return {
            "hours": self._seconds / 3600,
            "files_read": sums["files_read"],
            "notes_read": sums["notes_read"],
            "notes_left_out_by_tokenizer": sums["left_out"],
            "cleaned": _sorted(tables["cleaned"]),
            "copies": {"exact": sums["copies_exact"], "near": sums["copies_near"]},
            "share_of_onsets_off_grid": sums["off_grid"] / max(1, sums["onsets"]),
            "pieces_off_grid": sums["pieces_off_grid"],
            "pieces_with_one_loudness": sums["pieces_flat"],
            "pieces_with_tracks_on_one_program": sums["pieces_with_tracks_on_one_program"],
            "pieces_with_tempo_changes": sums["pieces_with_tempo_changes"],
            "notes_by_program": _sorted(tables["programs"]),
            "pieces_by_program": _sorted(tables["pieces_with_program"]),
            "pieces_by_tempo": _in_order(tables["tempi"]),
            "pieces_by_metre": _sorted(tables["metres"]),
            "pieces_by_key": _sorted(tables["keys"]),
            "notes_by_pitch": _in_order(tables["pitches"]),
            "notes_by_length": _in_order(tables["lengths"]),
            "pieces_by_size": _in_order(tables["sizes"]),
        }


def pitch_range(score: Score) -> tuple[int | None, int | None]:
    """Return the lowest and the highest pitch without drums, or None twice."""
    pitched = [t.notes.numpy()["pitch"] for t in score.tracks if not t.is_drum and len(t.notes)]
    return (min(int(p.min()) for p in pitched), max(int(p.max()) for p in pitched)) if pitched else (None, None)


def _sorted(counts: Counter[Any]) -> dict[str, int]:
    return {str(k): v for k, v in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))}


def _in_order(counts: Counter[Any]) -> dict[str, int]:
    return {str(k): counts[k] for k in sorted(counts)}
