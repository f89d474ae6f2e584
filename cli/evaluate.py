"""musiclm evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..devices import resolve_bf16, resolve_device
from ..errors import CorpusError
from . import _console, _options

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import Corpus, Piece
    from ..tokenizers.base import Tokenizer


GROUPS = {
    "What is measured": ["split", "most_tokens"],
    "Samples": ["samples", "bars", "seed"],
    "Computation": ["device", "precision"],
    "Output": ["as_json", "quiet", "verbose"],
}


@click.command(
    "evaluate",
    cls=_options.GroupedCommand,
    groups=GROUPS,
    epilog="Examples: musiclm evaluate bach-lstm --split validation; musiclm evaluate bach-gru --samples 16",
)
@click.argument("model")
@click.argument("data", required=False)
@click.option("--split", type=click.Choice(["train", "validation", "test", "all"]), help="Which pieces to measure.")
@click.option(
    "--most-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Measure whole pieces, chosen by hash, of at most N tokens.",
)
@click.option(
    "--samples",
    type=click.IntRange(3, 256),
    metavar="N",
    help="Generate N pieces and compare their musical statistics.",
)
@click.option(
    "--bars", type=click.IntRange(1), metavar="N", help="Length of the samples and of the pieces beside them; 16."
)
@_options.seed
@_options.device
@_options.precision
@_options.json_output
@_options.quiet
def command(
    model: str,
    data: str | None,
    split: str | None,
    most_tokens: int | None,
    samples: int | None,
    bars: int | None,
    seed: int | None,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compute the loss of MODEL on DATA in nats/token, bits/note and bits/second, next to baselines.

    MODEL is a name, a checkpoint file or a run folder. DATA is a corpus, an archive, a folder of MIDI files or one
    file; by default the data that MODEL was trained on. Lower is better.
    """
    if samples is None and (bars is not None or seed is not None):
        raise click.UsageError("--bars and --seed need --samples")
    from .. import checkpoint, evaluation

    loaded = checkpoint.load(model)
    source, split = _source(loaded, model, data, split)
    where = resolve_device(device)
    bf16 = resolve_bf16(precision, where) if precision != "auto" else False
    report = evaluation.report(loaded.model(where), source, split, name=loaded.name, most_tokens=most_tokens, bf16=bf16)
    if samples is not None:
        pieces = evaluation.sample_pieces(source.pieces(split), most_tokens)
        report["statistics"] = _statistics(
            loaded, where, source.tokenizer, pieces, samples, bars or 16, _options.draw_seed(seed)
        )
    for reason, count in source.dropped.items():
        _console.say(f"left out: {count} × {reason}", quiet=quiet)
    if as_json:
        _console.print_json(report)
        return
    _show(report, quiet=quiet)
    if samples is not None:
        _show_statistics(report["statistics"])


def _source(loaded: Checkpoint, model: str, data: str | None, split: str | None) -> tuple[Corpus, str]:
    """Return the data to measure a model on, and the split: by default those of its training run.

    Raises:
        CorpusError: the data is unknown, or the split has no pieces.
    """
    from .. import checkpoint
    from ..data import BUNDLED, open_source
    from ..training.config import stored_config

    of_chorales = loaded.name in checkpoint.bundled() and loaded.tokenizer_description["name"].startswith("grid")
    if data is None and not of_chorales and loaded.card.get("data") != BUNDLED:
        config = stored_config(Path(model))
        if config is None or config.data is None:
            raise CorpusError(f"'{model}' does not say where its data is: name a corpus or a folder of MIDI files")
        data = config.data
        split = split or "test"
    source = open_source(data, loaded.tokenizer())
    split = split or ("test" if source.is_split else "all")
    if not source.pieces(split):
        raise CorpusError(f"no {split} pieces in '{source.name}': choose another --split")
    return source, split


def _statistics(
    loaded: Checkpoint, where: str, tokenizer: Tokenizer, pieces: Sequence[Piece], count: int, bars: int, seed: int
) -> dict[str, Any]:
    """Return the musical statistics of samples of a model, and those of the pieces that it is measured on."""
    from ..evaluation import music_metrics, yardstick
    from ..generation.composer import Composer
    from ..generation.config import GenerationConfig, Length

    config = GenerationConfig(length=Length(bars=bars), n=count)
    samples = Composer(loaded, where).generate(None, config, seed)
    sets = {"samples": [s.score for s in samples], "reference": [tokenizer.decode(p.tokens) for p in pieces]}
    reference = [music_metrics.of_score(score, bars) for score in sets["reference"]]
    found = music_metrics.against([music_metrics.of_score(score, bars) for score in sets["samples"]], reference)
    kind = yardstick.KIND_OF.get(tokenizer.name, "score")
    measured = {which: [yardstick.described(score, kind, bars) for score in each] for which, each in sets.items()}
    return {
        "num_samples": count,
        "bars": bars,
        "seed": seed,
        "samples": found,
        "reference": music_metrics.of_set(reference),
        "mean_overlapped_area": music_metrics.mean_overlap(found),
        "kind": kind,
        **yardstick.compared(measured, kind),
    }


def _show(report: dict[str, Any], *, quiet: bool) -> None:
    """Print the losses of a report as a table, the baselines below the model."""
    from rich.console import Console
    from rich.table import Table

    pieces = _console.counted(report["num_pieces"], "piece")
    if "num_windows" in report:
        pieces += f", {_console.counted(report['num_windows'], 'window')}"
    click.echo(f"{report['model']} on {report['corpus']}, {report['split']}: {pieces}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("nats/token", justify="right")
    table.add_column("bits/note", justify="right")
    table.add_column("bits/second", justify="right")
    for name, nats in {report["model"]: report["nats_per_token"], **report["baselines"]}.items():
        share = nats / report["nats_per_token"]
        notes, seconds = report["bits_per_note"] * share, report["bits_per_second"] * share
        table.add_row(name, f"{nats:.4f}", f"{notes:.3f}", f"{seconds:.2f}")
    Console().print(table)
    counted = report["baselines_counted"]
    text = f"baselines counted on {_console.counted(counted['num_pieces'], counted['on'] + ' piece')}"
    text += f", {_console.counted(counted['num_tokens'], 'token')}"
    if counted["on"] == "measured":
        text += "; the n-gram of a piece is counted on the other pieces"
    _console.say(text, quiet=quiet)


def _show_statistics(found: dict[str, Any]) -> None:
    """Print the musical statistics of the samples beside those of the pieces."""
    from . import _tables

    click.echo()
    _tables.show_statistics(f"{found['num_samples']} samples", found["samples"], found["reference"])
    area = found["mean_overlapped_area"]
    overlap = "too few pieces for an overlap" if area is None else f"mean overlap {area:.3f}"
    _console.say(f"{_console.counted(found['bars'], 'bar')} of each; {overlap}, seed {found['seed']}")
    click.echo()
    _tables.show_measures(found)
