"""How MIDI of any kind is read: files read, agreeing with an independent player, mended by kind, refused by reason.

    python benchmarks/midi_reading.py DATA/train DATA/bench
    python benchmarks/midi_reading.py my_midis/ --every 10 --json

The player is that of tests/midi_player.py: one program per channel, all tracks read side by side, the last event of a tick
wins. A file agrees if every note has the start, end, pitch, velocity, program and kind (drum or not) that the player gives
it. Before the comparison the documented repairs are applied to what the player gives: notes without length are no notes,
drum hits without length get a thirty-second. Where several tracks share a channel and a track has a program of its own,
two readings are right, that of a player (the last program of the channel) and that of tracks (each its own); files that
agree with the second alone are counted apart.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from symusic import Score

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from musiclm import midi  # noqa: E402
from musiclm.data import sources  # noqa: E402
from musiclm.errors import MidiError  # noqa: E402
from tests.midi_player import Heard, play  # noqa: E402

Notes = Counter[tuple[Any, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="folders, archives (also inside folders) or files")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth file of each source")
    parser.add_argument("--quick", action="store_true", help="20 files of each source")
    parser.add_argument("--symusic", action="store_true", help="read by symusic alone instead, for comparison")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for source in a.data:
        count = 0
        for event in sources.walk([source]):
            if isinstance(event, sources.Problem):
                print(event.text, file=sys.stderr)
            elif isinstance(event, sources.Found) and not event.name.lower().split("#")[0].endswith(".abc"):
                count += 1
                if (count - 1) % a.every or (a.quick and count > 20):
                    continue
                data = event.data if event.data is not None else event.path.read_bytes() if event.path else None
                if data is not None:
                    row = rows.setdefault(group_of(source, event.name), new_row())
                    measure(data, event.name, row, by_symusic if a.symusic else midi.read_music)
    document = {
        name: {k: dict(v) if isinstance(v, Counter) else v for k, v in row.items()} for name, row in rows.items()
    }
    if a.json:
        print(json.dumps(document))
        return
    print(f"{'':34}{'files':>7}{'read':>7}{'agree':>7}{'tracks':>7}{'differ':>7}{'mended':>7}{'ms/file':>9}")
    for name, row in rows.items():
        counts = "".join(f"{row[k]:7d}" for k in ("files", "read", "agree", "agree_by_track", "differ", "num_mended"))
        print(f"{name[:33]:34}{counts}{1000 * row['seconds'] / max(1, row['files']):9.1f}")
    for title, key in (("files mended", "mended"), ("files refused", "refused")):
        print(f"\n{title}:")
        for kind, number in sum((row[key] for row in rows.values()), Counter[str]()).most_common():
            print(f"{number:8d}  {kind}")
    for name, row in rows.items():
        for file in row["examples"]:
            print(f"differs: {name}: {file}")


def new_row() -> dict[str, Any]:
    counts = dict.fromkeys(("files", "read", "agree", "agree_by_track", "differ", "num_mended"), 0)
    return {**counts, "seconds": 0.0, "mended": Counter(), "refused": Counter(), "examples": []}


def group_of(source: Path, name: str) -> str:
    """Return the name of the archive within a folder, or of the source."""
    first = name.split("/")[0]
    return first if source.is_dir() and first.lower().endswith(sources.ARCHIVES) else source.name


def by_symusic(data: bytes, name: str) -> midi.Reading:
    """Return what symusic reads, as it is."""
    try:
        return midi.Reading(Score.from_midi(data), Counter())
    except Exception as error:  # symusic raises RuntimeError, ValueError and others of its own
        raise MidiError(str(error).splitlines()[0]) from error


def measure(data: bytes, name: str, row: dict[str, Any], read: Callable[[bytes, str], midi.Reading]) -> None:
    """Read a file, and add what came of it to a row."""
    row["files"] += 1
    began = time.perf_counter()
    try:
        reading = read(data, name)
    except MidiError as error:
        row["refused"][error.drop.text if error.drop else str(error)] += 1
        return
    finally:
        row["seconds"] += time.perf_counter() - began
    row["read"] += 1
    row["num_mended"] += bool(reading.mended)
    row["mended"].update(dict.fromkeys(reading.mended, 1))
    at = data.find(b"MThd")
    ticks = struct.unpack(">H", data[at + 12 : at + 14])[0]
    notes = ((n, t) for t in reading.score.tracks for n in t.notes)
    mine = repaired([Heard(n.time, n.end, n.pitch, n.velocity, t.program, t.is_drum, 0, 0) for n, t in notes], ticks)
    if mine == repaired(play(data, whole_ticks=True), ticks):
        row["agree"] += 1
    elif mine == repaired(play(data, own_programs=True, whole_ticks=True), ticks):
        row["agree_by_track"] += 1
    else:
        row["differ"] += 1
        row["examples"] += [name] if len(row["examples"]) < 5 else []


def repaired(notes: list[Heard], ticks: int) -> Notes:
    """Return the notes of a player with the repairs of lengths of 0."""
    found: Notes = Counter()
    for n in notes:
        end = n.end if n.end > n.start or not n.is_drum else n.start + max(1, ticks // 8)
        if end > n.start:
            found[n.start, end, n.pitch, n.velocity, n.program, n.is_drum] += 1
    return found


if __name__ == "__main__":
    main()
