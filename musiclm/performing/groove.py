"""The drum performances of Groove, quantized to scores, for training and measuring `perform` on drums.

Groove MIDI Dataset: Gillick et al., "Learning to Groove with Inverse Sequence Transformations", ICML 2019. The drummers
played to a metronome, so the tempo of a file is theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from symusic import Score

from .. import midi
from ..data import sources
from ..errors import CorpusError
from .notes import ScoreNotes, drum_notes, in_bars
from .parameters import Parameters

GRIDS = (4, 6, 8)  # positions per quarter: sixteenths, triplets of them, thirty-seconds
WEIGHTS = (1.0, 2.0, 2.0)  # of the distances to a finer grid, which are smaller by themselves
MERGED = 0.05  # quarters, that a hit lost by a grid counts
HIT = 0.25  # quarters: how long a quantized hit is; how long a drum is held means nothing
WRITTEN = 64  # the velocity of all hits of a score


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroovePerformance:
    """A drum performance and the score it was quantized to.

    Attributes:
        name: of the file in the archive or folder.
        split: train, validation or test.
        notes: quantized hits, N, `track` and `index` of the one that is kept.
        parameters: velocity and deviation from the grid; tempo, articulation and pedal are 0.
    """

    name: str
    split: str
    notes: ScoreNotes
    parameters: Parameters


def read_groove(place: Path) -> list[GroovePerformance]:
    """Return the performances of Groove in the order of their names, with the official split.

    Args:
        place: the archive (zip, tar.xz) or its folder, with info.csv.

    Raises:
        CorpusError: there is no such place, or no file info.csv with a split, or no drums.
        MidiError: one of the files is damaged.
    """
    sources.check([place])
    splits: dict[str, str] = {}
    scores: dict[str, Score] = {}
    for event in sources.walk([place]):
        if isinstance(event, sources.OfficialSplit):
            splits |= event.splits
        elif isinstance(event, sources.Found) and event.reason is None:
            data = event.data if event.path is None else event.path.read_bytes()
            assert data is not None
            scores[event.name] = midi.parse(data, event.name)
        elif isinstance(event, sources.Problem):
            raise CorpusError(event.text)
    found = list(_performances(scores, splits))
    if not found:
        what = "drum performances" if splits else "file info.csv that splits it"
        raise CorpusError(f"'{place}' has no {what}: name the archive or folder of Groove")
    return found


def quantized(score: Score) -> tuple[ScoreNotes, Parameters] | None:
    """Return the drums of a performance as a score, and what the performance adds to that; None without drums.

    Each quarter has the grid that its hits are nearest to: sixteenths, else triplets or thirty-seconds. Hits on one drum and
    one position are one: the loudest.
    """
    played = drum_notes(score)
    if played is None:
        return None
    onset = _on_grid(played.onset, played.pitch)
    velocity = played.velocity
    order = np.lexsort((played.onset, -velocity, played.pitch, onset))
    is_first = np.append(True, (np.diff(onset[order]) > 0) | (np.diff(played.pitch[order]) > 0))
    kept = order[is_first]
    notes = dataclasses.replace(
        played.take(kept),
        onset=onset[kept],
        duration=np.full(len(kept), HIT),
        velocity=np.full(len(kept), WRITTEN),  # what was played is what is to be predicted
        **in_bars(score, onset[kept]),
    )
    period = 60 / midi.TempoMap(score).main_tempo(float(onset.max()))
    zero = np.zeros(len(kept))
    return notes, Parameters(
        velocity=velocity[kept] / 127,
        tempo=zero,
        deviation=(played.onset[kept] - onset[kept]) * period,
        articulation=zero,
        pedal=zero,
        mask=np.ones(len(kept), bool),
        seconds_per_quarter=period,
    )


def _on_grid(onset: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return the positions that hits (H,) are quantized to, in quarters, (H,) float64."""
    quarter = np.floor(onset + 1 / 16).astype(np.int64)  # an early hit belongs to the beat
    hits = np.maximum(np.bincount(quarter), 1)
    positions, costs = [], []
    for grid, weight in zip(GRIDS, WEIGHTS, strict=True):
        position = np.round(onset * grid) / grid
        squares = np.bincount(quarter, (position - onset) ** 2)
        kept = np.unique(np.stack([quarter, np.round(position * grid).astype(np.int64), pitch]), axis=1)[0]
        merged = np.bincount(quarter) - np.bincount(kept, minlength=len(hits))
        positions.append(position)
        costs.append(weight * np.sqrt(squares / hits) + MERGED * merged / hits)
    best = np.argmin(costs, axis=0)
    found: np.ndarray = np.array(positions)[best[quarter], np.arange(len(onset))]
    return found


def _performances(scores: dict[str, Score], splits: dict[str, str]) -> Iterator[GroovePerformance]:
    for name in sorted(scores.keys() & splits.keys()):
        found = quantized(scores[name])
        if found is not None:
            yield GroovePerformance(name=name, split=splits[name], notes=found[0], parameters=found[1])
