"""How long commands take that need no model: help, a wrong file name, the list of models.

    python benchmarks/startup.py

Starts each in a new process and prints the fastest and the median of several times, in milliseconds, beside those of an
interpreter that does nothing. The tests hold which modules these commands load (tests/test_layout.py); clocks are here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "an empty interpreter": ["-c", "pass"],
    "--help": ["-m", "musiclm", "--help"],
    "generate --help": ["-m", "musiclm", "generate", "--help"],
    "a wrong file name": ["-m", "musiclm", "generate", "--prompt", "nowhere.mid"],
    "models": ["-m", "musiclm", "models"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="processes of each command")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):  # in turns, so that a busy moment falls on all of them
            for name, arguments in COMMANDS.items():
                times[name].append(milliseconds(arguments, folder))
    found = {name: {"fastest_ms": min(each), "median_ms": statistics.median(each)} for name, each in times.items()}
    if options.json:
        print(json.dumps({"rounds": rounds, "commands": found}))
        return
    print(f"{'milliseconds':<24}{'fastest':>9}{'median':>9}")
    for name, figures in found.items():
        print(f"{name:<24}{figures['fastest_ms']:>9.0f}{figures['median_ms']:>9.0f}")


def milliseconds(arguments: list[str], folder: str) -> float:
    """Return how long a new process takes, in milliseconds."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True)
    took = 1000 * (time.perf_counter() - began)
    expected = 1 if "nowhere.mid" in arguments else 0
    if done.returncode != expected:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr.decode()}")
    return took


if __name__ == "__main__":
    main()
