"""musiclm embedding."""

from __future__ import annotations

from pathlib import Path

import click

from ..files import write_whole
from . import _console, _options, _scores


@click.command("embedding", epilog="Example: musiclm embedding --model bach -o pitches.png")
@_options.model
@click.option("-o", "--output", metavar="PATH", help="A .png or .svg file; default: embedding.png.")
@click.option("--lowest", type=click.IntRange(0, 127), default=40, show_default=True, help="The lowest pitch plotted.")
@click.option("--highest", type=click.IntRange(0, 127), default=79, show_default=True, help="The highest.")
@_options.force
@_options.json_output
@_options.quiet
def command(
    model: str | None, output: str | None, lowest: int, highest: int, force: bool, as_json: bool, quiet: bool
) -> None:
    """Plot the pitch embeddings of a model: their principal components, and the cosine similarity of each interval.

    Pitches outside the range are rare in the training data: their embeddings are hardly trained.
    """
    from .. import plotting

    path = None if as_json and output is None else Path(output or "embedding.png")
    if path is not None:
        plotting.check_output(path, force=force)
    if highest - lowest < 11:
        raise click.UsageError("--lowest and --highest must be an octave apart")
    from ..plotting import embedding

    loaded, language_model = _scores.load_model(model)
    found = embedding.arrange(language_model, loaded.tokenizer(), lowest, highest)
    if path is not None:
        image = embedding.picture(found, path.suffix.lower(), title=f"pitch embeddings of {loaded.name}")
        write_whole(path, image, force=force)
    if as_json:
        document = {"model": loaded.name, **embedding.document(found)}
        _console.print_json(document if path is None else {**document, "picture": str(path)})
    else:
        click.echo(str(path))
    octave, fifth, tritone = (found.likeness[i - 1] if len(found.likeness) >= i else float("nan") for i in (12, 7, 6))
    cosines = f"mean cosine similarity: octave {octave:.2f}, fifth {fifth:.2f}, tritone {tritone:.2f}"
    _console.say(cosines, quiet=quiet or as_json)
