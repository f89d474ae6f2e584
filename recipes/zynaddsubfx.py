"""Render single notes from the presets of ZynAddSubFX: a folder of 16 kHz WAV files and its notes.csv, as soundfonts.py writes.

    python recipes/zynaddsubfx.py -o zynaddsubfx/

Needs the Debian packages zynaddsubfx-dssi, zynaddsubfx-data and yoshimi-data. A preset's name gives its family
("Dist Guitar 2", "Cathedral Organ1"). Names of two families, of none and of sounds without a family (pads, effects) are
left out, and so are brass, flutes, reeds and strings, whose imitations are nearer to synth leads. A preset is one
instrument. Its notes have pitches spread over the family's range, five velocities and lengths from 0.15 to 2 seconds, at
48 kHz. Many presets draw their noise anew each time, so two runs differ a little.

The synthesizer is a DSSI plug-in, which is called directly: see dssi.h and ladspa.h of Debian's dssi-dev.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr
from soundfonts import FILE_RATE, LONGEST, RATE, VELOCITIES, save_note, without_end, write_table

SOURCE = "zynaddsubfx"
PLUGIN = Path("/usr/lib/dssi/libzynaddsubfx_dssi.so")
BLOCK = 1024  # samples of a call
CONTROLS = (
    64,
    127,
    64,
    127,
    0,
    0,
    64,
    64,
    64,
    64,
    64,
    64,
)  # the control ports, from the modulation wheel on, as MIDI has them
NOTE_ON, NOTE_OFF = 6, 7  # event types of ALSA's sequencer
IMITATED = ("brass", "flute", "reed", "string")  # families whose presets are left out
# Words of a name that tell its family, as regular expressions.
WORDS = {
    "bass": r"bass(es)?",
    "brass": r"brass|brazz|thrumpet|trumpet|horn|trombone|tuba",
    "flute": r"flute|whistle|ocarina|recorder|pan ?pipe|piccolo|shakuhachi",
    "guitar": r"guitar|banjo|sitar",
    "keyboard": r"piano|rhodes|clav\w*|harpsichord|wurlitzer",
    "mallet": r"xylophone|vibes|vibraphone|marimba|glockenspiel|celesta|kalimba|chime|music ?box|bell|steel drum",
    "organ": r"organ|hammond",
    "reed": r"reed|clarinet|oboe|sax\w*|bassoon|harmonica|accordion|bagpipe",
    "string": r"string|violin|viola|cello|fiddle|pizzicato|harp",
    "synth_lead": r"lead|solo synth|super ?saw|saw|square|pulse",
    "vocal": r"choir|voice|vocal|ahh|ooh|vox",
}
LEFT_OUT = r"pad\w*|padkeys|fx|tom|noise|wind|plucked|morph|voiced|slow saw|soft saw|vangelis"
# MIDI pitches: narrower than the realistic ranges of the family's instruments together.
RANGES = {
    "bass": (24, 57),
    "guitar": (40, 84),
    "keyboard": (28, 100),
    "mallet": (48, 100),
    "organ": (33, 96),
    "synth_lead": (36, 93),
    "vocal": (43, 84),
}


class Preset(NamedTuple):
    """A sound of the synthesizer, by what selects it, and the family that its name tells."""

    bank: int
    program: int
    name: str
    family: str


def family_of(name: str) -> str | None:
    """Return the one family that a preset's name tells, or None."""
    plain = re.sub(r"[^a-z0-9]+", " ", name.lower())
    if re.search(rf"\b({LEFT_OUT})\d*s?\b", plain):
        return None
    told = [family for family, words in WORDS.items() if re.search(rf"\b({words})s?\d*\b", plain)]
    return told[0] if len(told) == 1 and told[0] not in IMITATED else None


class _Ladspa(ctypes.Structure):
    """LADSPA_Descriptor of ladspa.h."""


_Handle = ctypes.c_void_p
_Port = ctypes.POINTER(ctypes.c_float)
_Ladspa._fields_ = [
    ("unique_id", ctypes.c_ulong),
    ("label", ctypes.c_char_p),
    ("properties", ctypes.c_int),
    *((name, ctypes.c_char_p) for name in ("name", "maker", "copyright")),
    ("port_count", ctypes.c_ulong),
    *((name, ctypes.c_void_p) for name in ("port_descriptors", "port_names", "port_range_hints", "data")),
    ("instantiate", ctypes.CFUNCTYPE(_Handle, ctypes.POINTER(_Ladspa), ctypes.c_ulong)),
    ("connect_port", ctypes.CFUNCTYPE(None, _Handle, ctypes.c_ulong, _Port)),
    ("activate", ctypes.CFUNCTYPE(None, _Handle)),
]


class _Program(ctypes.Structure):
    """DSSI_Program_Descriptor of dssi.h."""

    _fields_ = [("bank", ctypes.c_ulong), ("program", ctypes.c_ulong), ("name", ctypes.c_char_p)]


class _Dssi(ctypes.Structure):
    """DSSI_Descriptor of dssi.h, up to what is needed."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("ladspa", ctypes.POINTER(_Ladspa)),
        ("configure", ctypes.c_void_p),
        ("get_program", ctypes.CFUNCTYPE(ctypes.POINTER(_Program), _Handle, ctypes.c_ulong)),
        ("select_program", ctypes.CFUNCTYPE(None, _Handle, ctypes.c_ulong, ctypes.c_ulong)),
        ("get_midi_controller", ctypes.c_void_p),
        ("run_synth", ctypes.CFUNCTYPE(None, _Handle, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)),
    ]


class Synth:
    """The plug-in: its presets, and a note of one."""

    def __init__(self, plugin: Path) -> None:
        library = ctypes.CDLL(str(plugin))
        library.dssi_descriptor.restype = ctypes.POINTER(_Dssi)
        library.dssi_descriptor.argtypes = [ctypes.c_ulong]
        self._dssi = library.dssi_descriptor(0).contents
        ladspa = self._dssi.ladspa.contents
        self._handle = ladspa.instantiate(self._dssi.ladspa, RATE)
        self._out = np.zeros((2, BLOCK), np.float32)
        self._controls = np.array(CONTROLS, np.float32)
        ports = [*self._out, *(self._controls[i : i + 1] for i in range(len(CONTROLS)))]
        for i, port in enumerate(ports):
            ladspa.connect_port(self._handle, i, port.ctypes.data_as(_Port))
        ladspa.activate(self._handle)

    def presets(self) -> list[Preset]:
        """Return the presets with a family, each name once."""
        found: dict[str, Preset] = {}
        index = 0
        while program := self._dssi.get_program(self._handle, index):
            name = program.contents.name.decode("latin-1")
            family = family_of(name)
            if family:
                found.setdefault(name.lower(), Preset(program.contents.bank, program.contents.program, name, family))
            index += 1
        return list(found.values())

    def select(self, preset: Preset) -> None:
        """Load a preset; another thread of the plug-in reads its file."""
        self._dssi.select_program(self._handle, preset.bank, preset.program)
        for _ in range(20):
            self._run(BLOCK)
            time.sleep(0.005)

    def note(self, pitch: int, velocity: int, held: float) -> np.ndarray:
        """Return LONGEST seconds of a note, mono at RATE, after silence."""
        parts = [self._run(int(held * RATE), (NOTE_ON, pitch, velocity))]
        parts.append(self._run(int((LONGEST - held) * RATE), (NOTE_OFF, pitch, 0)))
        for _ in range(8):  # until its release has ended, at most 8 seconds
            if np.abs(self._run(RATE)).max() < 1e-4:
                break
        return np.concatenate(parts)

    def _run(self, num_samples: int, event: tuple[int, int, int] | None = None) -> np.ndarray:
        """Return what it plays after an event (type, pitch, velocity)."""
        parts = []
        while num_samples > 0:
            count = min(num_samples, BLOCK)
            told = None
            if event:
                told = (ctypes.c_ubyte * 28)()  # snd_seq_event_t: its time is 0, its channel 0
                told[0], (told[17], told[18]) = event[0], event[1:]
            self._dssi.run_synth(self._handle, count, told, 1 if told else 0)
            parts.append(self._out[:, :count].mean(axis=0))
            num_samples, event = num_samples - count, None
        return np.concatenate(parts)


def in_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of a call in a process of its own, or None if it crashed, as the plug-in does with some presets."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=lambda: sender.send(work(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def render(preset: Preset, output: Path, notes: int, seed: int) -> list[list[object]]:
    """Render `notes` of a preset, and return their rows of the table; silent ones are left out."""
    folder, rows = output / preset.family, []
    folder.mkdir(parents=True, exist_ok=True)
    synth = Synth(PLUGIN)
    synth.select(preset)
    rng = np.random.default_rng([seed, *preset.name.encode()])
    lowest, highest = RANGES[preset.family]
    edges = np.linspace(lowest, highest + 1, notes + 1)
    for i in range(notes):
        pitch = min(int(rng.uniform(edges[i], edges[i + 1])), highest)
        velocity, held = int(rng.choice(VELOCITIES)), float(np.exp(rng.uniform(np.log(0.15), np.log(2.0))))
        audio = without_end(soxr.resample(synth.note(pitch, velocity, held), RATE, FILE_RATE))
        file = f"{preset.family}/{preset.bank:02d}-{preset.program:03d}-{i:02d}.wav"
        if np.isfinite(audio).all() and save_note(output / file, audio):
            rows.append([file, preset.family, SOURCE, preset.name, pitch, preset.bank, preset.name])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--notes", type=int, default=16, help="of each preset")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if not PLUGIN.is_file():
        raise SystemExit(f"{PLUGIN} is missing: apt-get install zynaddsubfx-dssi zynaddsubfx-data yoshimi-data")
    began, rows, crashed = time.perf_counter(), [], []
    presets = in_process(lambda: Synth(PLUGIN).presets())
    for preset in presets:
        found = in_process(render, preset, a.output, a.notes, a.seed)
        if found is None:
            crashed.append(preset.name)
        rows += found or []
    write_table(a.output, rows)
    seconds = time.perf_counter() - began
    print(f"{a.output}: {len(rows)} notes of {len(presets)} presets, {len(crashed)} crashed, {seconds:.0f} s")


if __name__ == "__main__":
    main()
