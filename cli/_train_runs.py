"""The run of `musiclm train`: a new one, or one to continue, from the options of the command line."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CorpusError, RunError
from . import _options, _training

if TYPE_CHECKING:
    from ..training.run import Run


def resumed(folder: Path, asked: dict[str, Any]) -> Run:
    """Return the run to continue, its budget renewed and its learning rate changed if these are given."""
    from ..training.run import Run

    own = (*_training.BUDGET, "learning_rate")
    if given := _training.given(beside=("resume", *own, "force", "as_json", "quiet", "verbose")):
        raise click.UsageError(
            f"--resume takes everything but the budget and the learning rate from the run: leave out {', '.join(given)}"
        )
    run = Run.open(folder)
    budget = {name: asked[name] for name in _training.BUDGET}
    if any(asked[name] is not None for name in own):
        run.plan.command += " && " + shlex.join(["musiclm", *sys.argv[1:]])
    if asked["learning_rate"] is not None:
        run.lower(asked["learning_rate"])
    if any(value is not None for value in budget.values()):
        run.renew(**budget)
    return run


def begun(
    *,
    data: str | None,
    arch: str | None,
    preset: str | None,
    output: str | None,
    start_from: str | None,
    teachers: tuple[str, ...],
    tokenizer: str | None,
    weights: tuple[str, ...],
    settings: tuple[str, ...],
    layers: int | None,
    patience: int | None,
    compiled: bool,
    seed: int | None,
    precision: str,
    force: bool,
    **asked: Any,
) -> Run:
    """Return a new run; the other options are fields of `TrainConfig` with the same name."""
    from .. import checkpoint, tokenizers
    from ..training.config import TrainConfig
    from ..training.run import DEFAULT_MINUTES, Run
    from ..training.setup import PATIENCE, resolve_crops

    _check(data, arch)
    arch = _arch(arch, preset, None if start_from is None else checkpoint.load(start_from).arch, asked["frozen"])
    if tokenizer is not None:
        tokenizers.check_name(tokenizer)
        if ":" in tokenizer:  # only MidiTok knows its options: ask before a folder is made
            tokenizers.parse(tokenizer)
    if all(asked[name] is None for name in _training.BUDGET):
        asked["minutes"] = DEFAULT_MINUTES
    plan = TrainConfig(
        arch=arch,
        preset=preset or "small",
        data=None if data is None else str(Path(data).resolve()),
        tokenizer=tokenizer,
        start_from=None if start_from is None else _absolute(start_from),
        teachers=[_absolute(teacher) for teacher in teachers],
        weights=_parsed(weights),
        config=_config(settings, layers),
        patience=patience or (PATIENCE if start_from is not None else None),
        seed=_options.draw_seed(seed),
        threads=_options.threads(),
        precision=None if precision == "auto" else precision,
        compile=compiled,
        command=shlex.join(["musiclm", *sys.argv[1:]]),
        **asked,
    )
    try:
        plan.crops = resolve_crops(plan)
    except RunError as error:
        raise click.UsageError(str(error)) from error
    return Run.create(Path(output) if output else _training.new_folder(Path("runs") / plan.arch), plan, force=force)


def _check(data: str | None, arch: str | None) -> None:
    """Check the architecture and the data, before anything is read."""
    from .. import models

    known = [*models.names(), *models.names(models.SEQ2SEQ)]  # an encoder of notes has no tokens to predict
    if arch is not None and arch not in known:
        raise click.BadParameter(f"no architecture '{arch}': one of {', '.join(known)}", param_hint="--arch")
    if data is not None and not Path(data).exists():
        raise CorpusError(f"no folder or file '{data}'")


def _arch(arch: str | None, preset: str | None, started: str | None, frozen: bool) -> str:
    """Return the architecture of a new run.

    Args:
        arch: that of the command line.
        preset: that of the command line.
        started: that of the checkpoint to start from.
        frozen: whether what comes from it is kept.
    """
    from .. import models

    is_decoder = arch is not None and started is not None and models.decoder_of(arch) == started
    if started is not None and (preset is not None or not (arch is None or is_decoder)):
        raise click.UsageError("--from has an architecture already: leave out --arch and --preset")
    if frozen and not is_decoder:
        raise click.UsageError("--frozen keeps the decoder of an encoder and decoder: see --arch seq2seq_transformer")
    return arch or started or "transformer"


def _absolute(model: str) -> str:
    """Return the name of a model for run.json: the absolute path if it is a file or a folder."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def _parsed(weights: tuple[str, ...]) -> dict[str, float]:
    parsed = {}
    for given in weights:
        folder, _, number = given.rpartition("=")
        try:
            parsed[folder] = float(number)
        except ValueError:
            parsed[folder] = -1.0
        if not folder or not 0 < parsed[folder] < math.inf:
            raise click.BadParameter(f"'{given}' is not FOLDER=W with W above 0", param_hint="--weight")
    return parsed


def _config(settings: tuple[str, ...], layers: int | None) -> dict[str, float | str]:
    """Return what --set and --layers say of the model's config."""
    config = _settings(settings)
    if layers is None:
        return config
    if "num_layers" in config:
        raise click.UsageError("--layers and --set num_layers are the same: leave out one")
    return {**config, "num_layers": layers}


def _settings(given: tuple[str, ...]) -> dict[str, float | str]:
    """Return the values of --set, NAME=N or NAME=WORD each."""
    found: dict[str, float | str] = {}
    for text in given:
        name, _, said = (part.strip() for part in text.partition("="))
        try:
            value = float(said)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            found[name] = int(value) if value == int(value) and name != "dropout" else value
        elif said.isalpha() and said.lower() not in ("nan", "inf", "infinity"):
            found[name] = said
        else:
            raise click.UsageError(f"--set takes NAME=N, for example size=192, not '{text}'")
    return found
