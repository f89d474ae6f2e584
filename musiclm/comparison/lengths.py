"""Memory and speed of architectures against the length of their context, with the exponents that they grow by.

    results.json   the report, as `musiclm compare --lengths … --json` prints it; written after each measurement

Three baselines are always beside the architectures: `naive` attention, which stores its scores, `absolute`, whose fused
attention does not, and `transformer`. See `cost` for what is counted.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import write_whole
from . import cost, naive

LENGTHS = (512, 1024, 2048, 4096, 8192)
BASELINES = (naive.NAME, "absolute", "transformer")
FIT = 3  # the last lengths through which an exponent is fitted
MEASURES = ("activation_bytes", "training_tokens_per_second", "generation_tokens_per_second")
NOTES = (
    "naive is no architecture: it is absolute with all T x T scores stored, and its memory grows quadratically",
    "the fused attention of absolute stores no scores: quadratic time is left, not quadratic memory",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    """What to measure.

    Attributes:
        archs: names from `musiclm.models.names()`; the baselines are added in front.
        lengths: tokens, rising.
        preset, seed, threads, device: see `TrainConfig`.
        bf16: whether training steps compute in bfloat16.
        command: the command line.
    """

    archs: Sequence[str]
    lengths: Sequence[int] = LENGTHS
    preset: str = "small"
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    bf16: bool = False
    command: str = ""

    @property
    def names(self) -> list[str]:
        """The baselines, then the other architectures."""
        return [*BASELINES, *(arch for arch in self.archs if arch not in BASELINES)]


def create_folder(folder: Path) -> None:
    """Make the folder of the results.

    Raises:
        RunError: it has something in it, or cannot be made.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"'{folder}' exists already: choose another place with -o")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder '{folder}' cannot be made: {error.strerror}") from error


def measure(config: LengthsConfig) -> Iterator[tuple[str, int, cost.Cost | None]]:
    """Yield each architecture and length twice: with None before it is measured, and with its cost.

    The short lengths of all come first, so that an interrupted measurement has every architecture.
    """
    for length in config.lengths:
        for arch in config.names:
            yield arch, length, None
            shared = {name: getattr(config, name) for name in ("preset", "bf16", "threads", "device", "seed")}
            yield arch, length, cost.measure_apart(cost.CostConfig(arch=arch, length=length, **shared))


def fitted_lengths(lengths: Sequence[int], values: Sequence[float | None]) -> list[int]:
    """Return the lengths through which an exponent is fitted: the last `FIT` that have a value above 0.

    Empty if there are fewer than two.
    """
    found = [x for x, y in zip(lengths, values, strict=True) if y][-FIT:]
    return found if len(found) > 1 else []


def exponent(lengths: Sequence[int], values: Sequence[float | None]) -> float | None:
    """Return the exponent e of values ~ lengths^e, by least squares on the logarithms at `fitted_lengths`; None without."""
    fitted = fitted_lengths(lengths, values)
    if not fitted:
        return None
    points = [(math.log(x), math.log(y)) for x, y in zip(lengths, values, strict=True) if y and x in fitted]
    mean_x, mean_y = (sum(each) / len(points) for each in zip(*points, strict=True))
    squares = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / squares


def report(config: LengthsConfig, costs: Sequence[cost.Cost]) -> dict[str, Any]:
    """Return the report of the costs measured so far; what was not measured is None.

    `fitted_lengths` is how many lengths an exponent is fitted through, and of a model which these are, by measure.
    """
    by_place = {(each.arch, each.length): each for each in costs}
    models = []
    for arch in config.names:
        row = [by_place.get((arch, length)) for length in config.lengths]
        values: dict[str, list[Any]] = {m: [each and getattr(each, m) for each in row] for m in MEASURES}
        models.append(
            {
                "arch": arch,
                "is_architecture": arch != naive.NAME,
                "num_parameters": [each and each.num_parameters for each in row],
                **values,
                "generation_precision": next((p for each in row if each and (p := each.generation_precision)), None),
                "update_seconds": [each and each.update_seconds for each in row],
                "exponents": {measure: exponent(config.lengths, values[measure]) for measure in MEASURES},
                "fitted_lengths": {measure: fitted_lengths(config.lengths, values[measure]) for measure in MEASURES},
                "problems": [each and each.problem for each in row],
            }
        )
    return {
        "lengths": list(config.lengths),
        "preset": config.preset,
        "batch_size": 1,
        "vocab_size": cost.VOCAB_SIZE,
        "seed": config.seed,
        "device": config.device,
        "training_precision": "bf16" if config.bf16 else "fp32",
        "threads": config.threads,
        "clock": "cpu" if config.device == "cpu" and config.threads == 1 else "wall",
        "fitted_lengths": min(FIT, len(config.lengths)) if len(config.lengths) > 1 else 0,
        "models": models,
        "notes": list(NOTES),
        "command": config.command,
    }


def write_report(folder: Path, document: dict[str, Any]) -> None:
    """Write results.json."""
    write_whole(folder / "results.json", (json.dumps(document, indent=1) + "\n").encode())
