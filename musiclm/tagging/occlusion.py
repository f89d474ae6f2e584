"""Which bars speak for a label: occlusion (Zeiler and Fergus 2014).

The notes of a bar are taken away, and what the log odds of the label lose is what the bar is worth. The bar stays as silence,
so that nothing else moves. Crops are chosen once, on the whole piece, and cover the same music without the bar.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from symusic import Score

from .. import midi
from ..errors import MidiError
from .crops import cut, spread
from .model import Tagger
from .notes import first_quarter

MOST_SPANS = 48  # of bars; in a longer piece several bars are taken away together
MOST_CROPS = 8  # of a piece


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What some bars are worth for a label.

    Attributes:
        first_bar, last_bar: their numbers, counted from 1.
        start, stop: in quarters of the score.
        nats: the log odds of the label that are lost without them; negative if they speak against it. 0 for silence.
    """

    first_bar: int
    last_bar: int
    start: float
    stop: float
    nats: float


def evidence(tagger: Tagger, score: Score, label: str) -> Iterator[Evidence]:
    """Yield what each bar of a score, or each span of bars, is worth for a label, in order.

    Args:
        tagger: predicts labels.
        score: any score with notes.
        label: one of the tagger's.

    Raises:
        MidiError: no note can be expressed.
        ValueError: the tagger has no such label.
    """
    if label not in tagger.labels:
        raise ValueError(f"the tagger has no label '{label}': one of {', '.join(tagger.labels)}")
    number = tagger.labels.index(label)
    begin = first_quarter(score, tagger.steps)
    ids, _ = tagger.encode(score, start=begin)
    ranges = spread(len(ids), length=tagger.length, most=MOST_CROPS)
    whole = _log_odds(tagger, ids, ranges, number)
    bar_map = midi.BarMap(score)
    num_bars = bar_map.num_bars(midi.end(score))
    span = math.ceil(num_bars / MOST_SPANS)
    for first in range(0, num_bars, span):
        last = min(first + span, num_bars)
        start, stop = bar_map[first].start, bar_map[last - 1].end
        without = _without(score, start, stop)
        nats = 0.0
        if without is not None:
            try:
                others, _ = tagger.encode(without, start=begin)
                nats = whole - _log_odds(tagger, others, moved(ranges, ids, others), number)
            except MidiError:  # these bars have all notes that can be expressed: the label has no other evidence
                nats = whole - math.log(1 / max(1, len(tagger.labels) - 1))
        yield Evidence(first_bar=first + 1, last_bar=last, start=start, stop=stop, nats=nats)


def moved(ranges: Sequence[tuple[int, int]], ids: np.ndarray, without: np.ndarray) -> list[tuple[int, int]]:
    """Return where crops of a piece begin and end when some of its ids are others; each has at least one id.

    What the two have in common at their beginnings and at their ends stays in the crops that it was in.

    Args:
        ranges: first id and end of each crop.
        ids: of the piece.
        without: of the piece without some notes.
    """
    shorter = min(len(ids), len(without))
    differs = ids[:shorter] != without[:shorter]
    first = int(differs.argmax()) if differs.any() else shorter
    differs = ids[len(ids) - shorter :][::-1] != without[len(without) - shorter :][::-1]
    same_end = min(int(differs.argmax()) if differs.any() else shorter, shorter - first)
    ends, now_ends = len(ids) - same_end, len(without) - same_end

    def now(place: int) -> int:
        return place + now_ends - ends if place >= ends else min(place, now_ends)

    longest = max(stop - start for start, stop in ranges)
    found = []
    for start, stop in ranges:
        begin = min(now(start), len(without) - 1)
        found.append((begin, min(max(now(stop), begin + 1), begin + longest)))
    return found


def _log_odds(tagger: Tagger, ids: np.ndarray, ranges: Sequence[tuple[int, int]], number: int) -> float:
    """Return ln p - ln (1 - p) of a label, as the crops of a piece say."""
    found = tagger.calibrated(tagger.log_probabilities_of(cut(ids, tagger.tokenizer, ranges)))
    others = torch.cat([found[:number], found[number + 1 :]])
    return float(found[number] - others.logsumexp(0))


def _without(score: Score, start: float, stop: float) -> Score | None:
    """Return a score without the notes that begin in [start, stop) quarters; None if there are none."""
    first, last = (round(quarters * score.ticks_per_quarter) for quarters in (start, stop))
    copied = score.copy()
    num_notes = copied.note_num()
    for track in copied.tracks:
        track.notes = type(track.notes)([n for n in track.notes if not first <= n.time < last])
    return copied if copied.note_num() < num_notes else None
