"""musiclm evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import CorpusError
from . import options, ui


@click.command("evaluate", epilog="Example: musiclm evaluate bach-lstm --split validation")
@click.argument("model")
@click.argument("data", required=False)
@click.option("--split", type=click.Choice(["train", "validation", "test", "all"]), help="Which pieces.")
@click.option("--most-tokens", type=click.IntRange(1), metavar="N", help="Whole pieces of no more tokens, by hash.")
@options.device
@options.precision
@options.json_output
@options.quiet
def command(
    model: str,
    data: str | None,
    split: str | None,
    most_tokens: int | None,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how surprised MODEL is by the music in DATA.

    MODEL is a name, a checkpoint file or a run folder. DATA is a corpus, an archive, a folder of MIDI files or one
    file; left out, what MODEL was trained on. Fewer nats a token, bits a note and bits a second mean that it knows the
    music better.
    """
    from .. import checkpoint, corpus, evaluation
    from ..plan import stored_plan

    loaded = checkpoint.load(model)
    if data is None and loaded.card.get("data") != corpus.BUNDLED:
        plan = stored_plan(Path(model))
        if plan is None or plan.data is None:
            raise CorpusError(f"'{model}' does not say where its data is: name a corpus or a folder of MIDI files")
        data = plan.data
        split = split or "test"
    ui.show_log(quiet=quiet)
    source = corpus.open_source(data, loaded.tokenizer())
    split = split or ("test" if source.is_split else "all")
    if not source.pieces(split):
        raise CorpusError(f"no {split} pieces in '{source.name}': choose another --split")
    where = options.resolve_device(device)
    bf16 = options.resolve_precision(precision, where) if precision != "auto" else False
    report = evaluation.report(loaded.model(where), source, split, name=loaded.name, most_tokens=most_tokens, bf16=bf16)
    for reason, count in source.dropped.items():
        ui.say(f"left out: {count} × {reason}", quiet=quiet)
    if as_json:
        ui.print_json(report)
        return
    from rich.console import Console
    from rich.table import Table

    title = f"{report['model']} on {report['corpus']}, {split}: {report['num_pieces']} pieces"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("nats/token", justify="right")
    table.add_column("bits/note", justify="right")
    table.add_column("bits/second", justify="right")
    rows = {report["model"]: report["nats_per_token"], **report["baselines"]}
    for name, nats in rows.items():
        share = nats / report["nats_per_token"]
        notes, seconds = report["bits_per_note"] * share, report["bits_per_second"] * share
        table.add_row(name, f"{nats:.4f}", f"{notes:.3f}", f"{seconds:.2f}")
    Console().print(table)
