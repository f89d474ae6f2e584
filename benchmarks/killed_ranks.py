"""Kill one of the processes of a distributed training again and again: how soon the run ends, and whether it resumes.

    python benchmarks/killed_ranks.py                    # ten kills of a tiny GRU on the bundled chorales, two processes
    python benchmarks/killed_ranks.py --kills 2 --processes 3

One run, started by torchrun and resumed after each kill. A random process is killed by SIGKILL at a random moment after a
validation. Printed are the victim, the last validated step before the kill, the seconds until torchrun and all processes have
ended, the reason that its errors give, and the first step that the resumed run validated. Exit code 1 if a run took longer than
--seconds to end, gave no reason, or did not resume.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = [
    "--arch",
    "gru",
    "--preset",
    "tiny",
    "--window",
    "32",
    "--batch-size",
    "8",
    "--seed",
    "1",
    "--precision",
    "fp32",
]
REASONS = ("another process of the run has ended", "SIGKILL")
ERRORS = "errors.txt"
WAIT = 240.0  # seconds for what should take a few


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="in which a run has to end (20)")
    parser.add_argument("--latest", type=float, default=10, help="seconds after a validation, of the latest kill (10)")
    parser.add_argument("--seed", type=int, default=1, help="of victims and moments")
    a = parser.parse_args()
    rng = random.Random(a.seed)
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = launch(folder, a.processes, *MODEL, "-o", "run")
        step = next_validation(folder, run, after=0)
        print("kill  victim  validated  seconds  resumed  reason")
        for number in range(1, a.kills + 1):
            time.sleep(rng.uniform(0, a.latest))
            victim, step = rng.randrange(a.processes), validated(folder)
            seconds, reason = kill(run, victim, folder)
            run = launch(folder, a.processes, "--resume", "run")
            resumed = next_validation(folder, run, after=step)
            failures += seconds > a.seconds or not reason
            print(f"{number:>4}{victim:>8}{step:>11,}{seconds:>9.1f}{resumed:>9,}  {reason or 'none'}", flush=True)
        run.terminate()
        run.wait(timeout=WAIT)
    sys.exit(1 if failures else 0)


def launch(folder: Path, processes: int, *options: str) -> subprocess.Popen[bytes]:
    """Return a training by torchrun in a folder; what it says goes to the file ERRORS there."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    command = [sys.executable, *launcher, "-m", "musiclm", "train", "--steps", "1000000", *options]
    with (folder / ERRORS).open("w") as errors:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=errors, stderr=errors
        )


def validated(folder: Path) -> int:
    """Return the last step that was validated, 0 if there is none."""
    metrics = folder / "run" / "metrics.jsonl"
    lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def next_validation(folder: Path, run: subprocess.Popen[bytes], after: int) -> int:
    """Return the first step after another one that a run validates; the program ends if the run does."""
    deadline = time.monotonic() + WAIT
    while (step := validated(folder)) <= after:
        if run.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"Error: no validation after step {after}: {(folder / ERRORS).read_text()[-2000:]}")
        time.sleep(0.05)
    return step


def kill(run: subprocess.Popen[bytes], victim: int, folder: Path) -> tuple[float, str]:
    """Return the seconds from killing a process of a run to the end of all of them, and the reason that was given."""
    children = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    start = time.monotonic()
    os.kill(children[victim], signal.SIGKILL)
    run.wait(timeout=WAIT)
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        time.sleep(0.05)
    said = (folder / ERRORS).read_text()
    return time.monotonic() - start, next((reason for reason in REASONS if reason in said), "")


if __name__ == "__main__":
    main()
