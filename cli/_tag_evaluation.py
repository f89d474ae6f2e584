"""musiclm tag evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CorpusError
from ..files import write_whole
from . import _console, _options, _predictions
from ._tag_training import MOST_LISTED, column_option, data_option, model_option, say_missing

if TYPE_CHECKING:
    from ..tagging.dataset import TagPiece
    from ..tagging.labels import LabelledFiles
    from ..tagging.model import Tagger


@click.command("evaluate", epilog="Example: musiclm tag evaluate held_out/ --model mine.safetensors -o confusion.png")
@click.argument("sources", nargs=-1, required=True, metavar="CSV|CORPUS|FOLDER…")
@model_option
@column_option
@data_option
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "all"]),
    help="Default: test where the labels come with a split, else all, without pieces of its training. Train, validation and "
    "all keep those.",
)
@click.option("-o", "--output", metavar="PATH", help="Plot the confusion matrix: a .png or .svg file.")
@_options.force
@_options.json_output
@_options.quiet
def evaluate(
    sources: tuple[str, ...],
    model: str | None,
    column: str | None,
    data: Path | None,
    split: str | None,
    output: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate a tagger on labelled pieces.

    It prints accuracy, macro-F1 and calibration. The sources are those of train. Pieces that trained the tagger or selected
    its weights, and copies of them, are left out unless --split asks for train, validation or all.
    """
    if output is not None:
        from .. import plotting

        plotting.check_output(Path(output), force=force)
    from ..tagging.labels import find_labelled
    from ..tagging.measure import measure
    from ..tagging.model import Tagger

    files = find_labelled(sources, column=column, data=data)
    tagger = Tagger.load(model)
    keeps_seen = split not in (None, "test")
    split = split or ("test" if files.is_split else "all")
    pieces, num_seen = _unseen(_pieces(files, tagger, split, quiet=quiet), tagger, keeps_seen=keeps_seen, quiet=quiet)
    report: dict[str, Any] = {"model": model or "bundled", "data": list(sources), "split": split}
    report |= {"missing": files.missing, "left_out": num_seen} | measure(tagger, pieces)
    if output is not None:
        from ..plotting import confusion

        path, names = Path(output), list(report["labels"])
        recalls = [report["labels"][name]["recall"] for name in names]
        title = f"accuracy {report['accuracy']:.3f}, macro-F1 {report['macro_f1']:.3f}, {report['num_pieces']:,} pieces"
        made = confusion.picture(report["confusion"], names, recalls, path.suffix.lower(), title=title)
        write_whole(path, made, force=force)
        _console.say(f"plotted {output}", quiet=quiet)
    if as_json:
        _console.print_json(report)
    else:
        _print_report(report)


def _pieces(files: LabelledFiles, tagger: Tagger, split: str, *, quiet: bool) -> list[TagPiece]:
    """Return the pieces of a split whose labels the tagger has; say what was left out.

    Raises:
        CorpusError: there are none.
    """
    from ..tagging.dataset import TagPiece, read_pieces, split_pieces
    from ..tagging.labels import named

    say_missing(files, quiet=quiet)
    every = _predictions.with_progress(
        read_pieces(files.files, tagger.tokenizer, tagger.steps, min_notes=1), len(files.files), "reading", quiet=quiet
    )
    found: list[TagPiece] = []
    num_failed = 0
    for each in every:
        if isinstance(each, TagPiece):
            found.append(each)
            continue
        num_failed += 1
        _console.say(f"left out: {each.name}: {each.reason}", quiet=quiet or num_failed > MOST_LISTED)
    unknown = sorted({piece.label for piece in found} - set(tagger.labels))
    if unknown:
        _console.say(f"labels that the tagger does not have are left out: {named(unknown)}", quiet=quiet)
    known = [piece for piece in found if piece.label in tagger.labels]
    if split != "all":
        known = split_pieces(known).pieces(split)
    if not known:
        labels = named(tagger.labels)
        raise CorpusError(f"no {'' if split == 'all' else split + ' '}pieces with the tagger's labels ({labels})")
    return known


def _unseen(pieces: list[TagPiece], tagger: Tagger, *, keeps_seen: bool, quiet: bool) -> tuple[list[TagPiece], int]:
    """Return the pieces without those of the tagger's training, and how many those were; say it.

    Raises:
        CorpusError: none are left.
    """
    if keeps_seen:
        return pieces, 0
    left = [piece for piece in pieces if not tagger.has_seen(piece.form)]
    num_seen = len(pieces) - len(left)
    if num_seen:
        _console.say(f"left out: {_console.counted(num_seen, 'piece')} of its training", quiet=quiet)
    if not left:
        raise CorpusError(
            f"all {num_seen:,} pieces are of the tagger's training: name others, or keep them with --split all"
        )
    return left, num_seen


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("label", min_width=10)
    for name in ("pieces", "recall", "F1"):
        table.add_column(name, justify="right")
    for label, each in report["labels"].items():
        figures = ["" if each[name] is None else f"{each[name]:.2f}" for name in ("recall", "f1")]
        table.add_row(escape(label), f"{each['num_pieces']:,}", *figures)
    _predictions.print_table(table)
    sure = report["accuracy_when_sure"]
    Console(highlight=False, soft_wrap=True).print(
        f"\n{report['split']}: accuracy {report['accuracy']:.3f} ± {report['accuracy_standard_error']:.3f} of "
        f"{report['num_pieces']:,} pieces (always the most frequent label: {report['majority']:.3f}), "
        f"macro-F1 {report['macro_f1']:.3f},\ncrops alone {report['crop_accuracy']:.3f}, calibration error "
        f"{report['calibration_error']:.3f}, unsure {report['unsure']:.3f}"
        + (f", accuracy when sure {sure:.3f}" if sure is not None else "")
    )
