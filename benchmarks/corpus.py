"""Speed of building a corpus, beside a plain loop over MidiTok's tokenizer; and how much memory it takes.

    python benchmarks/corpus.py MAESTRO/ POP909/        # folders or archives of MIDI
    python benchmarks/corpus.py --quick                 # the bundled chorales, under a minute

Speed: the loop reads a file with symusic and encodes it with MidiTok's own REMI of the same settings, on one core, and
does nothing else. A build finds, reads, cleans, tokenises, measures, drops copies, splits and writes, in one process a
core. Both run by turns on the same files, for --rounds; figures are of the best turn of each. Starting the readers
(importing torch and MidiTok, a few seconds) is in the build's time, and seconds_to_first says how long.

Memory: peak resident memory of the building process and of its largest reader, for 1, 4 and 16 transposed copies of the
files, copies kept.

What a million files take, from files/s of MAESTRO f on n cores: 1e6 / f seconds, bytes on disk from those of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

COPIES = (1, 4, 16)


def files_of(sources: Sequence[Path], folder: Path, limit: int | None) -> list[Path]:
    """Return MIDI files, those of archives written into a folder first."""
    from musiclm.data import sources as finding

    paths = []
    for event in finding.walk(sources):
        if isinstance(event, finding.Found) and event.reason is None and not event.name.lower().endswith(".abc"):
            path = event.path or folder / f"{event.source}-{len(paths):06d}.mid"
            if event.data is not None:
                path.write_bytes(event.data)
            paths.append(path)
    return paths[:: max(1, len(paths) // limit)][:limit] if limit else paths


def loop(paths: Sequence[Path]) -> dict[str, float]:
    """Return the seconds that a plain loop over MidiTok takes, in a process of its own, by the clock and of CPU."""
    code = (
        "import json, sys, time, torch; torch.set_num_threads(1)\n"
        "from symusic import Score\n"
        "from musiclm import tokenizers\n"
        "encode = tokenizers.create('score').midi_tokenizer.encode\n"
        "paths = sys.stdin.read().splitlines()\n"
        "began, cpu = time.perf_counter(), time.process_time()\n"
        "for path in paths: encode(Score(path))\n"
        "print(json.dumps({'seconds': time.perf_counter() - began, 'cpu_seconds': time.process_time() - cpu}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(map(str, paths)), capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def build(folder: Path, output: Path, workers: int, *, keep_duplicates: bool = False) -> dict[str, float]:
    """Build a corpus in a process of its own; return seconds and peak memory in MB, its own and its readers'."""
    shutil.rmtree(output, ignore_errors=True)
    code = (
        "import sys, time, json, multiprocessing, resource\n"
        "from multiprocessing import forkserver\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    from musiclm import data, tokenizers\n"
        "    tokenizer = tokenizers.create('score')\n"
        "    keep = bool(int(sys.argv[4]))\n"
        "    options = data.Options(workers=int(sys.argv[3]), keep_duplicates=keep)\n"
        "    began, cpu, first = time.perf_counter(), time.process_time(), None\n"
        "    for now in data.build_corpus([sys.argv[1]], sys.argv[2], tokenizer, options):\n"
        "        first = first or time.perf_counter() - began\n"
        "    seconds = time.perf_counter() - began\n"
        "    result = {'seconds': seconds, 'seconds_to_first': first, 'cpu_seconds': time.process_time() - cpu}\n"
        "    if 'forkserver' in multiprocessing.get_all_start_methods():\n"
        "        forkserver._forkserver._stop()  # so that its readers count as ours\n"
        "    readers = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "    result['cpu_seconds'] += readers.ru_utime + readers.ru_stime\n"
        "    for key, whose in (('own_mb', resource.RUSAGE_SELF), ('reader_mb', resource.RUSAGE_CHILDREN)):\n"
        "        result[key] = resource.getrusage(whose).ru_maxrss / 1024\n"
        "    print(json.dumps(result))\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        script = Path(temporary, "build.py")
        script.write_text(code)
        command = [sys.executable, str(script), str(folder), str(output), str(workers), str(int(keep_duplicates))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def transposed(paths: Sequence[Path], folder: Path, copies: int) -> None:
    """Write copies of files, each a semitone away from the one before, into a folder."""
    from symusic import Score

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i, path in enumerate(paths):
        score = Score(str(path))
        for copy in range(copies):
            moved = score.copy()
            for track in moved.tracks:
                if not track.is_drum:
                    track.notes = type(track.notes)([n for n in track.notes if 0 <= n.pitch + copy - copies // 2 < 128])
                    track.shift_pitch(copy - copies // 2, inplace=True)
            moved.dump_midi(str(folder / f"{i:05d}-{copy:02d}.mid"))


def megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*")) / 1e6


def measured(name: str, sources: Sequence[Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return speed and memory on one set of files."""
    with tempfile.TemporaryDirectory(dir=arguments.temporary) as temporary:
        raw, linked, output = Path(temporary, "raw"), Path(temporary, "files"), Path(temporary, "corpus")
        raw.mkdir()
        linked.mkdir()
        paths = files_of(sources, raw, arguments.limit)
        for i, path in enumerate(paths):
            (linked / f"{i:06d}.mid").symlink_to(path.resolve())
        loops, builds = [], []
        for _ in range(arguments.rounds):
            loops.append(loop(paths))
            builds.append(build(linked, output, arguments.workers))
        size = megabytes(output)
        best, plain = (min(each, key=lambda b: b["seconds"]) for each in (builds, loops))
        result: dict[str, Any] = {
            "data": name,
            "files": len(paths),
            "workers": arguments.workers,
            "files_per_second": len(paths) / best["seconds"],
            "miditok_loop_files_per_second": len(paths) / plain["seconds"],
            "ratio_to_miditok_loop": plain["seconds"] / best["seconds"],
            "turns": builds,
            "miditok_loop_turns": loops,
            "megabytes": size,
            "memory": [],
        }
        few = paths[:: max(1, len(paths) // max(1, arguments.memory_files))][: arguments.memory_files]
        for copies in COPIES if arguments.memory_files else ():
            transposed(few, raw / "copies", copies)
            found = build(raw / "copies", output, arguments.workers, keep_duplicates=True)
            result["memory"].append({"copies": copies, "files": copies * len(few), **found})
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", help="folders or archives of MIDI, each measured on its own")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="so many files of each, evenly chosen")
    parser.add_argument("--memory-files", type=int, default=100, help="files to copy 1, 4 and 16 times; 0 for none")
    parser.add_argument("--temporary", type=Path, help="where to write what is not kept")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that it works")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.limit, arguments.memory_files = 1, 100, 5
    data = arguments.data or [Path(str(resources.files("musiclm") / "chorales.zip"))]
    result = [measured(path.name, [path], arguments) for path in data]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.as_json:
        print(json.dumps({"corpora": result, "benchmark_mb": own}))
        return
    for each in result:
        print(f"{each['data']}: {each['files']} files, {each['workers']} processes, {each['megabytes']:.1f} MB on disk")
        print(f"  build         {each['files_per_second']:8.1f} files/s")
        print(f"  MidiTok loop  {each['miditok_loop_files_per_second']:8.1f} files/s")
        print(f"  ratio_to_miditok_loop {each['ratio_to_miditok_loop']:.2f}")
        for row in each["memory"]:
            peak = f"{row['own_mb']:.0f} MB, a reader {row['reader_mb']:.0f} MB"
            print(f"  {row['copies']:2d} copies, {row['files']} files: {peak}")
        hours = 1e6 / each["files_per_second"] / 3600
        print(f"  a million such files: {hours:.1f} h, {each['megabytes'] / each['files'] * 1e3:.1f} GB on disk")


if __name__ == "__main__":
    main()
