"""Run the commands of docs/lecture.md, print what each costs, and renew the pictures of that page.

    python docs/pictures/make.py                   # all of them; they write into the folder runs/
    python docs/pictures/make.py --only embedding  # the commands with this word alone
    python docs/pictures/make.py --keep-runs       # leave out training into run folders that exist

A command that writes runs/NAME.png renews docs/pictures/NAME.png if the page shows it: at most 1,000 pixels wide, 256 colours.
"""

from __future__ import annotations

import argparse
import io
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image  # matplotlib brings it

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIDTH, COLOURS = 1000, 256
MOST = 60_000  # bytes


def command_lines(page: str) -> list[str]:
    """Return the command lines of a page's sh blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(line: str) -> float:
    """Run a command line and return its CPU seconds."""
    words = shlex.split(line, comments=True)
    if words[0] == "musiclm":
        output = ROOT / words[words.index("-o") + 1] if "-o" in words else None
        if (
            words[1] == "compare" and output is not None
        ):  # it has no --force: a comparison of before is not written over
            shutil.rmtree(output, ignore_errors=True)
            output = None
        words = ["python", "-m", *words, *(["--force"] if output is not None else [])]
    if words[0] == "python":  # of this environment
        words[0] = sys.executable
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def source_of(name: str, page: str) -> Path | None:
    """Return what a picture of the page is made of: the file of that name after an -o, or the first such folder that has it."""
    outputs = [Path(output) for output in re.findall(r" -o (runs\S*)", page)]
    files = [output for output in outputs if output.name == name]
    found = [ROOT / path for path in files or [output / name for output in outputs]]
    return next((path for path in found if path.is_file()), None)


def shrink(source: Path, target: Path) -> None:
    """Write a PNG with few colours."""
    image = Image.open(source).convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    if len(written.getvalue()) > MOST:
        raise SystemExit(f"{target} would have {len(written.getvalue()):,} bytes, more than {MOST:,}")
    target.write_bytes(written.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--keep-runs", action="store_true")
    arguments = parser.parse_args()
    page = (HERE.parent / "lecture.md").read_text("utf-8")
    for line in command_lines(page):
        output = Path(line.split(" -o ")[-1].split()[0])
        is_kept = arguments.keep_runs and "train" in line and (ROOT / output / "run.json").exists()
        if arguments.only not in line or is_kept:
            continue
        print(f"{run(line):6.1f} CPU s  {line}", flush=True)
    for name in re.findall(r"\(pictures/(.+?\.png)\)", page):
        source = source_of(name, page)
        if source is not None:
            shrink(source, HERE / name)


if __name__ == "__main__":
    main()
