"""The part of `musiclm attention` that plots models of kind seq2seq: target notes against source notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from . import _console, _scores

if TYPE_CHECKING:
    from symusic import Score

    from ..checkpoint import Checkpoint
    from ..models.base import LanguageModel
    from ..plotting.alignment import Alignment


class Wanted(NamedTuple):
    """What of a model's attention is to be shown.

    Attributes:
        kind: the suffix of the file, ".html", ".png" or ".svg".
        title: of the picture or page.
        moment: bar and beat; see `Attention.at`.
        layer: counted from 1; None for the default.
        heads: counted from 0; None for all.
        matrices: whether all layers and heads are shown.
        bars: the first and the last, counted from 1; None for all.
    """

    kind: str
    title: str
    moment: tuple[int | None, float]
    layer: int | None
    heads: list[int] | None
    matrices: bool
    bars: tuple[int, int] | None


def check_choice(sizes: Sequence[int], model: str, wanted: Wanted, bars: tuple[int, int]) -> None:
    """Raise a usage error if the model has no such layer or head, or if the moment is not within the plotted bars.

    Args:
        sizes: the number of layers, that of heads, and more.
        model: its name.
        wanted: what was asked for.
        bars: the first and the last that are plotted.
    """
    num_layers, num_heads, *_ = sizes
    if wanted.layer is not None and wanted.layer > num_layers:
        raise click.BadParameter(f"'{model}' has {num_layers}", param_hint="--layer")
    if wanted.heads is not None and max(wanted.heads) >= num_heads:
        raise click.BadParameter(f"'{model}' has {num_heads}", param_hint="--heads")
    bar, (first, last) = wanted.moment[0], bars
    if bar is not None and not first <= bar <= last:
        raise click.BadParameter(f"the plotted bars are {first} to {last}", param_hint="--at")


def image(
    loaded: Checkpoint, model: LanguageModel, score: Score, keep: str | None, wanted: Wanted, *, quiet: bool
) -> bytes:
    """Return the picture or page of the alignment of a target with its source.

    Args:
        loaded: the checkpoint.
        model: of it.
        score: the whole piece.
        keep: names of the tracks of the source; the melody if left out.
        wanted: what is shown.
        quiet: say less.

    Raises:
        CheckpointError: the model has no attention to a source.
        MidiError: there are no such tracks or bars, or source or target would have no notes.
    """
    from ..errors import CheckpointError
    from ..models.seq2seq import Seq2SeqModel
    from ..plotting import alignment, alignment_plot
    from ..tokenizers.score_pairs import ScorePairs

    if wanted.moment[0] is not None and wanted.kind != ".html":
        raise click.BadParameter("a picture of a seq2seq model shows all notes: choose --bars", param_hint="--at")
    tokenizer = loaded.tokenizer()
    if not isinstance(model, Seq2SeqModel) or not isinstance(tokenizer, ScorePairs):
        raise CheckpointError(f"'{loaded.name}' does not read a source with the tokenizer 'score-pairs'")
    if not getattr(model.config, "attention", True):
        raise CheckpointError(f"'{loaded.name}' has no attention to its source (attention 0): nothing can be plotted")
    found = alignment.alignment(model, tokenizer, score, alignment.split(score, keep), wanted.bars)
    last = found.first_bar + len(found.bars) - 1
    check_choice(found.shares.shape, loaded.name, wanted, (found.first_bar, last))
    _scores.say_left_out(found.left_out, quiet=quiet)
    if found.num_left:
        _console.say(f"only bars {found.first_bar} to {last} are plotted: choose others with --bars A-B", quiet=quiet)
    layer = found.clearest() if wanted.layer is None else wanted.layer - 1
    if wanted.kind == ".html":
        page = alignment_plot.page(
            found, name=loaded.name, title=wanted.title, note=found.at(*wanted.moment), layer=layer, heads=wanted.heads
        )
        return page.encode("utf-8", "replace")
    if wanted.matrices:
        return alignment_plot.matrices(found, wanted.kind, title=wanted.title)
    title = f"{wanted.title} ({_said(found, layer, wanted.heads)})"
    return alignment_plot.picture(found, wanted.kind, layer=layer, heads=wanted.heads, title=title)


def _said(found: Alignment, layer: int, heads: list[int] | None) -> str:
    """Return which layer and heads a picture shows."""
    num_layers, num_heads = found.shares.shape[:2]
    if num_layers == num_heads == 1:
        return "one head"
    shown = list(range(num_heads)) if heads is None else heads
    which = f"head {shown[0] + 1}" if len(shown) == 1 else f"mean of heads {', '.join(str(h + 1) for h in shown)}"
    return f"layer {layer + 1} of {num_layers}, {which}"
