"""musiclm models."""

from __future__ import annotations

import click

from . import options, ui


@click.command("models", epilog="Example: musiclm models --json")
@options.json_output
def command(as_json: bool) -> None:
    """List the models that come with musiclm: data, licence, size, figures."""
    from .. import checkpoint

    figures = list(checkpoint.figures([checkpoint.load(name) for name in checkpoint.bundled()]))
    if as_json:
        ui.print_json(figures)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "parameters", "MB", "nats/token", "data", "licence"):
        numeric = heading in ("parameters", "MB", "nats/token")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading == "name")
    for f in figures:
        nats = f["figures"].get("test_nats_per_token")
        table.add_row(
            f["name"],
            f"{f['num_parameters'] / 1e6:.1f} M",
            f"{f['bytes'] / 1e6:.1f}",
            f"{nats:.3f}" if nats is not None else "",
            str(f["data"]),
            str(f["licence"]),
        )
    Console().print(table)
