"""Damaged files for a corpus build to survive: what becomes of 2,000 of them, by kind and by reason.

    python benchmarks/mutations.py            # mutations of the bundled chorales; --quick for 200
    python benchmarks/mutations.py MIDI/      # and of the files in a folder

Kinds: bytes flipped, cut, grown, headers that lie about tracks and lengths, gigantic delta times, notes by the million,
zip bombs, truncated archives, and archives with ../ in names. The build has to end, every file with its one reason.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import struct
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

KINDS = ("flipped", "cut", "grown", "lying", "gigantic", "garbage", "spliced")


def mutated(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Return a file damaged in a way of `KINDS`."""
    raw = bytearray(data)
    if kind == "flipped":
        for _ in range(rng.choice((1, 3, 10, 100))):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif kind == "cut":
        del raw[rng.randrange(len(raw)) :]
    elif kind == "grown":
        at = rng.randrange(len(raw))
        raw[at:at] = rng.randbytes(rng.choice((1, 10, 1000)))
    elif kind == "lying":
        at = rng.choice((4, 8, 10, 12, 18))
        raw[at : at + 2] = struct.pack(">H", rng.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF)))
    elif kind == "gigantic":
        at = 22 + rng.randrange(max(1, len(raw) - 30))
        raw[at:at] = b"\xff\xff\xff\x7f"
        if rng.random() < 0.7:  # so that the outline is right, and the parser sees it
            _mend_lengths(raw)
    elif kind == "garbage":
        raw[14:] = rng.randbytes(len(raw))
        if rng.random() < 0.7:
            raw[14:22] = b"MTrk" + struct.pack(">I", len(raw) - 22)
            raw[10:12] = b"\0\1"
    elif kind == "spliced":
        a, b = sorted(rng.randrange(22, len(raw)) for _ in range(2))
        raw[a:a] = raw[a:b] * rng.choice((1, 5))
        _mend_lengths(raw)
    return bytes(raw)


def _mend_lengths(raw: bytearray) -> None:
    """Have one track reach to the end of the file."""
    raw[10:12] = b"\0\1"
    raw[18:22] = struct.pack(">I", len(raw) - 22)


def many_notes(count: int) -> bytes:
    """Return a file of that many notes, one after the other."""
    track = b"\x00\x90\x3c\x40\x10\x80\x3c\x00" * count + b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(track)) + track


def seeds(folder: Path | None) -> list[bytes]:
    """Return files to damage."""
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        found = [archive.read(name) for name in sorted(archive.namelist())[:40]]
    if folder is not None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
        found += [p.read_bytes() for p in paths[:: max(1, len(paths) // 100)]]
    return found


def write(folder: Path, originals: list[bytes], count: int, seed: int = 0, *, bombs: bool = True) -> Counter[str]:
    """Write damaged files and archives into a folder; return how many files of each kind."""
    rng = random.Random(seed)
    written: Counter[str] = Counter()
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        (folder / f"{kind}-{i:05d}.mid").write_bytes(mutated(rng.choice(originals), kind, rng))
        written[kind] += 1
    (folder / "empty.mid").touch()
    (folder / "text.abc").write_text("this is no music\n")
    (folder / "tune.abc").write_bytes(b"X:1\nT:x\nM:4/4\nL:1/8\nK:C\n" + rng.randbytes(500))
    written["others"] += 3
    with zipfile.ZipFile(folder / "names.zip", "w") as archive:
        archive.writestr("../../../outside.mid", originals[0])
        archive.writestr("/absolute.mid", originals[0])
        archive.writestr("nested.zip", b"PK")
        written["archived"] += 2
    with tarfile.open(folder / "names.tar.xz", "w:xz") as tar:
        for name in ("../outside.mid", "a\nb\x1b[31m.mid"):
            info = tarfile.TarInfo(name)
            info.size = len(originals[1])
            tar.addfile(info, io.BytesIO(originals[1]))
        link = tarfile.TarInfo("link.mid")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        written["archived"] += 3
    whole = (folder / "names.tar.xz").read_bytes()
    (folder / "truncated.tar.xz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.tar.gz").write_bytes(rng.randbytes(5000))
    (folder / "noise.zip").write_bytes(rng.randbytes(5000))
    if bombs:
        (folder / "million.mid").write_bytes(many_notes(1_000_000))
        (folder / "many.mid").write_bytes(many_notes(120_000))
        written["others"] += 2
        with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for i in range(12):
                archive.writestr(f"{i}.mid", bytes(40 << 20))
        with tarfile.open(folder / "bomb.tar.xz", "w:xz", preset=0) as tar:
            for i in range(12):
                info = tarfile.TarInfo(f"{i}.mid")
                info.size = 40 << 20
                tar.addfile(info, io.BytesIO(bytes(40 << 20)))
        written["bombs"] += 24
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("midi", type=Path, nargs="?", help="a folder of files to damage")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()

    from musiclm import tokenizers
    from musiclm.data import Options, build_corpus, describe

    with tempfile.TemporaryDirectory() as temporary:
        folder, output = Path(temporary, "damaged"), Path(temporary, "corpus")
        folder.mkdir()
        written = write(folder, seeds(arguments.midi), 200 if arguments.quick else arguments.count, arguments.seed)
        began = time.monotonic()
        options = Options(workers=arguments.workers, time_limit=arguments.time_limit)
        for _ in build_corpus([folder], output, tokenizers.create("score"), options):
            pass
        seconds = time.monotonic() - began
        result = describe(output)
        by_kind = {kind: dict(count) for kind, count in _by_kind(output)}
    document = {
        "written": dict(written),
        "found": result["found"],
        "kept": result["kept"],
        "dropped": result["dropped"],
        "problems": result["problems"],
        "by_kind": by_kind,
        "seconds": seconds,
    }
    assert result["found"] == result["kept"] + sum(result["dropped"].values())
    if arguments.as_json:
        print(json.dumps(document))
        return
    print(f"{result['found']} files, {result['kept']} kept, {seconds:.1f} s")
    for reason, count in result["dropped"].items():
        print(f"{count:6d}  {reason}")
    for problem in result["problems"]:
        print("archive:", problem)


def _by_kind(output: Path) -> Iterator[tuple[str, Counter[str]]]:
    from musiclm.data import files

    kinds: dict[str, Counter[str]] = {}
    for file in files(output):
        name = file["name"].split("/", 1)[1]
        kind = name.split("-")[0] if name.split("-")[0] in KINDS else "others"
        kinds.setdefault(kind, Counter())["kept" if file["kept"] else file["reason"]] += 1
    yield from sorted(kinds.items())


if __name__ == "__main__":
    main()
