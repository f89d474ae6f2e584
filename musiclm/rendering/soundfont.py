"""Soundfonts: which recording a note uses, and how (SoundFont 2.04 specification; SF3 stores recordings as Ogg Vorbis).

This module has files, presets and regions; mixing is in `synthesizer`.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import AudioError

DRUMS = 128  # the bank of drum kits
SYSTEM_FOLDERS = (
    "/usr/share/soundfonts",
    "/usr/share/sounds/sf2",
    "/usr/share/sounds/sf3",
    "~/.local/share/soundfonts",
)
PREFERRED = (  # good soundfonts that are often installed; the first one found is used, the faster before the larger
    "FluidR3_GM.sf2",
    "GeneralUser-GS.sf2",
    "GeneralUser_GS.sf2",
    "MuseScore_General.sf2",
    "MuseScore_General.sf3",
    "MuseScore_General_Full.sf2",
)
ATTENUATION = 0.4  # of the stored value: what the first hardware did, so all soundfonts are made for it
VORBIS = 0x10  # of a recording's type, in SF3
READ_ONLY_MEMORY = 0x8000  # of a recording's type: it is in a sound card's ROM, not in the file

# generators, by the names and numbers of the specification
START, END, LOOP_START, LOOP_END, START_COARSE = 0, 1, 2, 3, 4
FILTER, RESONANCE, ENVELOPE_TO_FILTER, END_COARSE, PAN = 8, 9, 11, 12, 17
FILTER_SUSTAIN = 29
DELAY, ATTACK, HOLD, DECAY, SUSTAIN, RELEASE, KEY_TO_HOLD, KEY_TO_DECAY = range(33, 41)
INSTRUMENT, KEYS, VELOCITIES, LOOP_START_COARSE, FIXED_KEY, FIXED_VELOCITY, LESS_LOUD = 41, 43, 44, 45, 46, 47, 48
LOOP_END_COARSE, SEMITONES, CENTS, RECORDING, LOOPS, SCALE, CHOKES, ROOT_KEY = 50, 51, 52, 53, 54, 56, 57, 58
DEFAULTS = {FILTER: 13500, **dict.fromkeys((DELAY, ATTACK, HOLD, DECAY, RELEASE), -12000), SCALE: 100} | dict.fromkeys(
    (FIXED_KEY, FIXED_VELOCITY, ROOT_KEY), -1
)
INSTRUMENT_ONLY = {
    *(START, END, LOOP_START, LOOP_END, START_COARSE, END_COARSE, LOOP_START_COARSE, LOOP_END_COARSE),
    *(FIXED_KEY, FIXED_VELOCITY, LOOPS, CHOKES, ROOT_KEY),
}

NAME = ("name", "S20")
RECORDS = {  # the tables of a file, as stored
    "phdr": np.dtype([NAME, ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "V12")]),
    "pbag": np.dtype([("gen", "<u2"), ("mod", "<u2")]),
    "pgen": np.dtype([("what", "<u2"), ("amount", "<i2")]),
    "inst": np.dtype([NAME, ("bag", "<u2")]),
    "ibag": np.dtype([("gen", "<u2"), ("mod", "<u2")]),
    "igen": np.dtype([("what", "<u2"), ("amount", "<i2")]),
    "shdr": np.dtype(
        [
            NAME,
            *((name, "<u4") for name in ("start", "end", "loop_start", "loop_end", "rate")),
            *(("key", "u1"), ("cents", "i1"), ("link", "<u2"), ("type", "<u2")),
        ]
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """One recording as a preset plays it within a range of keys and velocities.

    Attributes:
        number: unique in the soundfont.
        keys, velocities: lowest and highest.
        recording: number of the recording.
        start, end, loop_start, loop_end: in frames of the recording.
        loops: whether the loop is repeated while the note lasts.
        rate: sample rate of the recording, Hz.
        root: key at which it sounds as recorded, apart from its tuning.
        tuning: semitones that are added.
        semitones_a_key: semitones per key, 1 except for effects and drums.
        gain: amplitude factor at full velocity.
        pan: -1 left … 1 right.
        delay, attack, hold, decay, release: of the amplitude envelope, seconds; the last two for 100 dB.
        sustain: dB below the peak.
        hold_a_key, decay_a_key: added to hold and decay for each key below 60, in octaves of time.
        cutoff: of the low-pass filter, Hz; None for no filter.
        resonance: of that filter, dB.
        fixed_key, fixed_velocity: used for every note; -1 for those of the note.
        chokes: notes with the same number other than 0 end each other.
    """

    number: int
    keys: tuple[int, int]
    velocities: tuple[int, int]
    recording: int
    start: int
    end: int
    loop_start: int
    loop_end: int
    loops: bool
    rate: int
    root: int
    tuning: float
    semitones_a_key: float
    gain: float
    pan: float
    delay: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float
    hold_a_key: float
    decay_a_key: float
    cutoff: float | None
    resonance: float
    fixed_key: int
    fixed_velocity: int
    chokes: int


Generators = dict[int, int]


class Soundfont:
    """A soundfont. Its tables are read at once, its recordings when they are used.

    Args:
        path: an SF2 or SF3 file.

    Raises:
        AudioError: the file does not exist, is not a soundfont, is damaged, or has no preset.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is empty"
            raise AudioError(f"the soundfont '{path}' cannot be read: {reason}") from error
        if self._data[:4] != b"RIFF" or self._data[8:12] != b"sfbk":
            raise AudioError(f"'{path}' is not a soundfont: give an .sf2 or .sf3 file")
        chunks = dict(self._chunks())
        if missing := ({"smpl", *RECORDS} - set(chunks)):
            raise AudioError(f"the soundfont '{path}' is damaged: it has no '{min(missing)}'")
        self._first, size = chunks["smpl"]
        self._samples = np.frombuffer(self._data, "<i2", size // 2, self._first)
        self._tables = {
            name: np.frombuffer(self._data, dtype, chunks[name][1] // dtype.itemsize, chunks[name][0])
            for name, dtype in RECORDS.items()
        }
        heads = self._tables["phdr"][:-1]
        self._presets = {(int(h["bank"]), int(h["program"])): i for i, h in reversed(list(enumerate(heads)))}
        if not self._presets:
            raise AudioError(f"the soundfont '{path}' has no instrument")
        self._regions: dict[int, list[Region]] = {}
        self._playing: dict[tuple[int, bool, int, int], list[Region]] = {}
        self._num_regions = 0

    def _chunks(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the name of each chunk with the offset and the size of its content; lists are entered."""
        at = 12
        while at + 8 <= len(self._data):
            name, size = self._data[at : at + 4], int.from_bytes(self._data[at + 4 : at + 8], "little")
            if at + 8 + size > len(self._data):
                raise AudioError(f"the soundfont '{self.path}' is cut off: it ends within a chunk")
            if name == b"LIST":
                at += 12
                continue
            yield name.decode("latin1"), (at + 8, size)
            at += 8 + size + size % 2

    def regions(self, program: int, is_drum: bool) -> list[Region]:
        """Return the regions of a General MIDI instrument or drum kit; if it is missing, those of a substitute.

        Raises:
            AudioError: the file is damaged.
        """
        wanted = [(DRUMS, program), (DRUMS, 0)] if is_drum else [(0, program), (0, program // 8 * 8), (0, 0)]
        number = next((self._presets[w] for w in wanted if w in self._presets), 0)
        if number not in self._regions:
            try:
                self._regions[number] = list(self._made(number))
            except (IndexError, ValueError, OverflowError) as error:
                raise AudioError(f"the soundfont '{self.path}' is damaged: {error}") from error
        return self._regions[number]

    def playing(self, program: int, is_drum: bool, key: int, velocity: int) -> list[Region]:
        """Return the regions that sound for one note; see `regions`."""
        wanted = (program, is_drum, key, velocity)
        if wanted not in self._playing:
            self._playing[wanted] = [
                r
                for r in self.regions(program, is_drum)
                if r.keys[0] <= key <= r.keys[1] and r.velocities[0] <= velocity <= r.velocities[1]
            ]
        return self._playing[wanted]

    def _zones(self, kind: str, number: int) -> Iterator[Generators]:
        """Yield the generators of each zone of a preset ("p") or instrument ("i"), merged with the global zone."""
        bags, generators = self._tables[f"{kind}bag"], self._tables[f"{kind}gen"]
        heads = self._tables["phdr" if kind == "p" else "inst"]
        last, common = (INSTRUMENT if kind == "p" else RECORDING), Generators()
        first = int(heads[number]["bag"])
        for bag in range(first, int(heads[number + 1]["bag"])):
            rows = generators[int(bags[bag]["gen"]) : int(bags[bag + 1]["gen"])]
            own = dict(zip(rows["what"].tolist(), rows["amount"].tolist(), strict=True))
            if last in own:
                yield common | own
            elif bag == first:
                common = own

    def _made(self, number: int) -> Iterator[Region]:
        for preset in self._zones("p", number):
            for instrument in self._zones("i", preset[INSTRUMENT]):
                keys, velocities = (_overlap(preset.get(what), instrument.get(what)) for what in (KEYS, VELOCITIES))
                head = self._tables["shdr"][instrument[RECORDING]]
                if keys and velocities and not int(head["type"]) & READ_ONLY_MEMORY:
                    added = {w: v for w, v in preset.items() if w not in INSTRUMENT_ONLY}
                    values = {w: instrument.get(w, DEFAULTS.get(w, 0)) + added.get(w, 0) for w in range(ROOT_KEY + 1)}
                    self._num_regions += 1
                    yield _region(self._num_regions, keys, velocities, instrument[RECORDING], head, values)

    def recording(self, region: Region) -> np.ndarray:
        """Return the frames of a region's recording from its start to its end, (frames,) float32 in [-1, 1].

        Raises:
            AudioError: the recording is damaged.
        """
        head = self._tables["shdr"][region.recording]
        first, last = int(head["start"]), int(head["end"])
        if int(head["type"]) & VORBIS:
            import soundfile

            try:
                data = io.BytesIO(self._data[self._first + first : self._first + last])
                frames = soundfile.read(data, dtype="float32", always_2d=True)[0][:, 0]
            except soundfile.LibsndfileError as error:
                raise AudioError(f"the soundfont '{self.path}' is damaged: {error}") from error
            return np.asarray(frames[region.start : region.end])
        return self._samples[first + region.start : first + region.end].astype(np.float32) / 32768


def _overlap(first: int | None, second: int | None) -> tuple[int, int] | None:
    """Return the intersection of two ranges (stored low byte first), None if it is empty."""
    ranges = [(0, 127) if r is None else (r & 0xFF, r >> 8 & 0xFF) for r in (first, second)]
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    return (low, high) if low <= high else None


def _seconds(timecents: float) -> float:
    return float(2 ** (min(8000.0, max(-12000.0, timecents)) / 1200))


def _region(
    number: int, keys: tuple[int, int], velocities: tuple[int, int], recording: int, head: np.void, g: Generators
) -> Region:
    """Return a region from the sums of its generators."""
    base = (
        0 if int(head["type"]) & VORBIS else int(head["start"])
    )  # SF3 counts loops from the beginning of the recording
    length = sys.maxsize if int(head["type"]) & VORBIS else int(head["end"]) - int(head["start"])
    start = max(0, g[START] + 32768 * g[START_COARSE])
    end = min(length, length + g[END] + 32768 * g[END_COARSE])
    loop_start = int(head["loop_start"]) - base + g[LOOP_START] + 32768 * g[LOOP_START_COARSE]
    loop_end = int(head["loop_end"]) - base + g[LOOP_END] + 32768 * g[LOOP_END_COARSE]
    root = g[ROOT_KEY] if 0 <= g[ROOT_KEY] <= 127 else int(head["key"]) if int(head["key"]) <= 127 else 60
    # the filter is static: its cutoff is that of the filter envelope's sustain, or half way to it
    cutoff = g[FILTER] + g[ENVELOPE_TO_FILTER] * max(0.5, 1 - g[FILTER_SUSTAIN] / 1000)
    return Region(
        number=number,
        keys=keys,
        velocities=velocities,
        recording=recording,
        start=start,
        end=end,
        loop_start=loop_start,
        loop_end=loop_end,
        loops=g[LOOPS] & 1 == 1 and start <= loop_start < loop_end - 1 and loop_end <= end,
        rate=max(400, min(192_000, int(head["rate"]))),
        root=root,
        tuning=g[SEMITONES] + (g[CENTS] + int(head["cents"])) / 100,
        semitones_a_key=g[SCALE] / 100,
        gain=10 ** (-ATTENUATION * max(0, g[LESS_LOUD]) / 200),
        pan=max(-1.0, min(1.0, g[PAN] / 500)),
        delay=_seconds(g[DELAY]),
        attack=_seconds(g[ATTACK]),
        hold=_seconds(g[HOLD]),
        decay=_seconds(g[DECAY]),
        sustain=max(0, min(1440, g[SUSTAIN])) / 10,
        release=_seconds(g[RELEASE]),
        hold_a_key=g[KEY_TO_HOLD] / 1200,
        decay_a_key=g[KEY_TO_DECAY] / 1200,
        cutoff=None if cutoff >= 13500 else 8.176 * 2 ** (max(1500.0, cutoff) / 1200),
        resonance=max(0, min(960, g[RESONANCE])) / 10,
        fixed_key=g[FIXED_KEY],
        fixed_velocity=g[FIXED_VELOCITY],
        chokes=g[CHOKES],
    )


def bundled() -> Path:
    """Return the small soundfont within pretty_midi: TimGM6mb by Tim Brechbill (GPL-2); it is not copied."""
    from importlib.util import find_spec

    found = find_spec("pretty_midi")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("TimGM6mb.sf2")


def on_this_system() -> Path | None:
    """Return the first of `PREFERRED` in the usual folders of the system and the user; None if there is none."""
    for name in PREFERRED:
        for folder in SYSTEM_FOLDERS:
            path = Path(folder).expanduser() / name
            if path.is_file():
                return path
    return None
