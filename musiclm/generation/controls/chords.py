"""The chords of new music."""

from __future__ import annotations

from typing import Any

from .base import Control

HALF = "/2"  # behind a symbol: half a bar


class Chords(Control):
    """ "Am F C G", one chord a bar; "Am/2 F/2" share one. Stored as (root, quality) of each half bar, see `midi.chords`.

    They are repeated as often as the new bars need. Bar lines "|" and commas between them mean nothing.
    """

    metavar = "CHORDS"
    help = "'Am F C G': one a bar, again and again; 'Am/2 F/2' share a bar."

    def parse(self, given: Any) -> tuple[tuple[int, str], ...]:
        from ...midi.chords import parse_symbol  # imports numpy, which a help does not need

        if not isinstance(given, str):
            return tuple((int(root), str(quality)) for root, quality in given)
        halves: list[tuple[int, str]] = []
        words = given.replace("|", " ").replace(",", " ").split()
        for word in words:
            is_half = word.endswith(HALF)
            if not is_half and len(halves) % 2:
                break
            halves += [parse_symbol(word.removesuffix(HALF))] * (1 if is_half else 2)
        if not words:
            raise ValueError("no chords: write 'Am F C G'")
        if len(halves) % 2:
            raise ValueError(f"'{given}': a chord with /2 has half a bar, and another with /2 has the other half")
        return tuple(halves)

    def to_json(self, value: tuple[tuple[int, str], ...]) -> str:
        from ...midi.chords import symbol

        bars = zip(value[::2], value[1::2], strict=True)
        return " ".join(
            symbol(first) if first == second else f"{symbol(first)}{HALF} {symbol(second)}{HALF}"
            for first, second in bars
        )


CONTROL = Chords()
