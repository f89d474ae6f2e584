"""Tables of comparisons and musical statistics, 80 columns wide, with a legend of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._console import counted, duration

COLUMNS = (
    ("size", "parameters"),
    ("seen", "training tokens, with repeats and transpositions"),
    ("train/s", "training tokens/s, without validations"),
    ("gen/s", "tokens/s when generating one piece"),
    ("valid", "nats/token (natural logarithm), validation: selects the checkpoint"),
    ("test", "nats/token, test: measured once, of that checkpoint"),
    ("b/note", "bits/note (logarithm to base 2), test"),
    ("bits/s", "bits per second of music, test"),
)
STATISTICS = (
    ("pitch_class_entropy", "pitch\nclasses", "entropy of the twelve pitch classes, bits"),
    ("scale_consistency", "in\nscale", "largest share of notes in one major scale"),
    ("note_density", "notes/\nquarter", "notes per quarter"),
    ("polyphony", "at\nonce", "number of notes that sound together"),
    ("note_length", "note\nlength", "duration of a note, quarters"),
    ("bar_repetition", "bars\nagain", "share of bars that repeat an earlier one"),
)
BASELINES = {
    "uniform": "the same probability for all tokens",
    "unigram": "token frequencies",
    "repeat": "the previous token again (grid: the last cell of the voice)",
    "5-gram": "modified Kneser-Ney, given the last 4 tokens (grid: 1 step)",
}
DIVERGENCE = "Kullback-Leibler divergence between the same two densities, nats"
OVERLAP = (
    "area shared by the densities of distances among test pieces and from these to test pieces, mean over the other "
    "columns (Yang and Lerch 2020); training pieces show what real music gets"
)


def show_comparison(report: dict[str, Any]) -> None:
    """Print the tables of a comparison on standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    counts = [f"{report[split]['num_pieces']} {split}" for split in ("train", "validation", "test")]
    console.print(f"{report['data']}: {', '.join(counts)} pieces, tokenizer {report['tokenizer']}", markup=False)
    console.print(
        f"preset {report['preset']}, {_budget(report['budget'])} each, seed {report['seed']}, {report['device']}, "
        f"{report['precision']}, {report['threads']} thread{'s' * (report['threads'] != 1)}\n"
    )
    console.print(_losses(report))
    tokens = " and ".join(f"{report[split]['num_tokens']:,} {split}" for split in ("validation", "test"))
    console.print(f"[dim]{tokens} tokens measured, whole pieces[/dim]")
    console.print(legend([*COLUMNS, *((name, BASELINES.get(name, "")) for name in report["baselines"])]))
    console.print()
    console.print(_music(report))
    bars, samples = report["statistics"]["bars"], report["statistics"]["num_samples"]
    console.print(
        f"[dim]means of {samples} samples of {bars} bars, unconditional, and of the first {bars} bars of the pieces[/dim]"
    )
    meanings = [(heading.replace("/\n", "/").replace("\n", " "), meaning) for _, heading, meaning in STATISTICS]
    console.print(legend([*meanings, ("overlap", OVERLAP)]))
    console.print()
    for model in report["models"]:
        if model["problem"]:
            console.print(f"{model['arch']}: {model['problem']}", markup=False)
    paths = [model["midi"] for model in report["models"] if model["midi"]]
    console.print(f"continuations of {report['prompt']}: {', '.join(paths)}", markup=False)


def legend(lines: Sequence[tuple[str, str]]) -> Any:
    """Return names with their meanings, dimmed."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, meaning in lines:
        table.add_row(f"[dim]{name}[/dim]", f"[dim]{meaning}[/dim]")
    return table


def _budget(budget: dict[str, Any]) -> str:
    parts = [duration(60 * budget["minutes"])] if budget["minutes"] else []
    parts += [counted(budget["steps"], "step")] if budget["steps"] else []
    parts += [counted(budget["epochs"], "epoch")] if budget["epochs"] else []
    return " or ".join(parts)


def _table(first: str, headings: list[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _losses(report: dict[str, Any]) -> Any:
    """Return the table of losses and speeds of models and baselines."""
    table = _table("", [name for name, _ in COLUMNS])
    keys = ("validation_nats_per_token", "test_nats_per_token", "bits_per_note", "bits_per_second")
    for model in report["models"]:
        table.add_row(
            model["arch"],
            _short(model["num_parameters"]),
            _short(model["tokens"]),
            _short(model["training_tokens_per_second"]),
            _short(model["generation_tokens_per_second"]),
            *(_figure(model[key], 4 if key.endswith("token") else 2) for key in keys),
        )
    for name, figures in report["baselines"].items():
        row = (_figure(figures[key], 4 if key.endswith("token") else 2) for key in keys)
        table.add_row(f"[dim]{name}[/dim]", "", "", "", "", *row)
    return table


def _music(report: dict[str, Any]) -> Any:
    """Return the table of musical statistics of test pieces, training pieces and samples."""
    table = _table("", [heading for _, heading, _ in STATISTICS] + ["overlap"])
    rows = [("test pieces", report["statistics"]["test pieces"], None)]
    rows.append(
        ("training pieces", report["statistics"]["training pieces"], report["mean_overlapped_area_of_training_pieces"])
    )
    rows += [(model["arch"], model["statistics"], model["mean_overlapped_area"]) for model in report["models"]]
    for name, figures, area in rows:
        means = [None if figures is None else figures[key]["mean"] for key, _, _ in STATISTICS]
        table.add_row(name, *(_figure(mean, 2) for mean in means), _figure(area, 2))
    return table


def _spread(figures: dict[str, Any]) -> str:
    mean, deviation = _figure(figures["mean"], 3), _figure(figures["deviation"], 3)
    return f"{mean} ± {deviation}" if deviation else mean


def _figure(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _short(number: float | None) -> str:
    """Return 812, 4,310, 12.3 k or 4.6 M."""
    if number is None:
        return ""
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.1f} k" if number >= 1e4 else f"{number:,.0f}"


def show_statistics(name: str, found: dict[str, Any], reference: dict[str, Any] | None) -> None:
    """Print the musical statistics of a set of pieces, beside those of a reference if there is one."""
    from rich.console import Console

    console = Console(highlight=False)
    table = _table("mean ± deviation", [name, *(["reference", "overlap", "divergence"] if reference else [])])
    for key, figures in found.items():
        row = [_spread(figures)]
        if reference:
            row += [_spread(reference[key]), _figure(figures["overlapped_area"], 3), _figure(figures["divergence"], 3)]
        table.add_row(key.replace("_", " "), *row)
    console.print(table)
    meanings = [(key.replace("_", " "), meaning) for key, _, meaning in STATISTICS]
    meanings.append(("groove consistency", "similarity of the onsets of neighbouring bars; high for most music"))
    if reference:
        meanings.append(("overlap", "area shared by the densities of distances within the reference and to it, 0 … 1"))
        meanings.append(("divergence", DIVERGENCE))
    console.print(legend(meanings))


def show_measures(found: dict[str, Any]) -> None:
    """Print the yardstick's measures of samples beside those of a reference, with standard errors."""
    from rich.console import Console
    from rich.table import Table

    from ..evaluation import yardstick

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for head in ("samples", "pieces", "apart"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, row in found["measures"].items():
        apart = yardstick.apart(row, "samples", "reference")
        cells = (_with_error(row[which]) for which in ("samples", "reference"))
        table.add_row(yardstick.MEASURES[name].label, *cells, "" if apart is None else f"{apart:+.1f}")
    console = Console(highlight=False)
    console.print(table)
    for which, name in (("samples", "samples"), ("reference", "pieces")):
        each = found["by_rule"][which]
        reasons = ", ".join(f"{count} {reason}" for reason, count in each["reasons"].items())
        console.print(
            f"{each['decent']} of {each['num_pieces']} {name} break no rule" + (f"; {reasons}" * bool(reasons))
        )
    console.print(
        "[dim]mean ± standard error; apart: their difference in standard errors; see docs/concepts/metrics.md[/dim]"
    )


def _with_error(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + ("" if error is None else f" ± {error:.3f}")
