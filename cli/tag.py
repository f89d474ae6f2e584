"""musiclm tag: label files; train and evaluate taggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import MidiError, MusicLMError
from ..files import write_whole
from . import _console, _options, _predictions, _tag_evaluation, _tag_training

if TYPE_CHECKING:
    from symusic import Score

    from ..tagging.model import Prediction, Tagger

DEFAULT_COMMAND = "files"


class TagGroup(click.Group):
    """A group whose command `files` may be left out: `musiclm tag song.mid`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `files` too, which may be left out."""
        given = self.commands[DEFAULT_COMMAND]
        inner = click.Context(given, info_name=DEFAULT_COMMAND, parent=ctx)
        rows = [row for parameter in given.get_params(inner) if (row := parameter.get_help_record(inner)) is not None]
        with formatter.section("Options"):
            formatter.write_dl(rows)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args if args and args[0] in self.commands else [DEFAULT_COMMAND, *args]
        return super().resolve_command(ctx, known)


@click.group(
    "tag",
    cls=TagGroup,
    epilog="Examples: musiclm tag songs/ --model mine.safetensors; musiclm tag train rock/ jazz/ -o mine.safetensors",
)
def command() -> None:
    """Label pieces of music: style, composer, or labels of your own.

    'musiclm tag FILE|FOLDER...' labels files: it is short for 'musiclm tag files'. 'musiclm tag train' makes a tagger from
    your labels.
    """


@command.command(DEFAULT_COMMAND, epilog="Example: musiclm tag song.mid --model mine.safetensors -o why.png")
@click.argument("files", nargs=-1, required=True, metavar="FILE|FOLDER…")
@_tag_training.model_option
@click.option("--top", type=click.IntRange(1), default=3, show_default=True, help="How many labels to list.")
@click.option("-o", "--output", metavar="PATH", help="Plot which bars speak for the label: a .png or .svg file.")
@click.option("--label", metavar="LABEL", help="The label that -o is about; default: the most likely one.")
@_options.force
@_options.json_output
@_options.quiet
def files(
    files: tuple[str, ...],
    model: str | None,
    top: int,
    output: str | None,
    label: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Predict the label of each MIDI file.

    A folder or an archive stands for all files in it, - for standard input.
    A tagger reads pitches, times and durations on a grid, and instrument families: no velocity, tempo or name. A prediction
    that is likely to be wrong is followed by a question mark, as is one for fewer than 16 notes.
    """
    if output is None and label is not None:
        raise click.UsageError("--label says what -o is about: name a picture with -o")
    if output is not None:
        _check_picture(files, Path(output), force=force)
    inputs = _inputs(files)
    from ..tagging.model import Tagger

    tagger = Tagger.load(model)
    if label is not None and label not in tagger.labels:
        raise click.BadParameter(f"no label '{label}': one of {', '.join(tagger.labels)}", param_hint="--label")
    answers = [
        _answer(tagger, each, top)
        for each in _predictions.with_progress(inputs, None, "tagging", quiet=quiet or as_json)
    ]
    named = set(files)
    for answer in answers:
        if "error" in answer and answer["path"] in named:
            _console.say(f"Error: {answer['path']}: {answer['error']}")
    if output is not None and "error" not in answers[0]:
        answers[0]["picture"] = _explain(tagger, files[0], label, output, force=force, quiet=quiet)
    if as_json:
        _console.print_json(answers)
    else:
        _print_answers([answer for answer in answers if "error" not in answer], quiet=quiet)
    passed = Counter(a["error"] for a in answers if "error" in a and a["path"] not in named)
    for reason, count in sorted(passed.items()):
        _console.say(f"left out: {_console.counted(count, 'file')}: {reason}", quiet=quiet)
    is_failed = any("error" in a and a["path"] in named for a in answers)
    if is_failed or all("error" in a for a in answers):
        click.get_current_context().exit(1)


def _check_picture(files: Sequence[str], output: Path, *, force: bool) -> None:
    """Check that one file is plotted, which can be read twice, and that the picture can be written."""
    from .. import plotting
    from ..data.sources import ARCHIVES

    if len(files) != 1 or Path(files[0]).is_dir() or files[0].lower().endswith(ARCHIVES):
        raise click.UsageError("-o plots one piece: name one file")
    if files[0] == _console.STANDARD_INPUT:
        raise click.UsageError("-o reads the file twice: name a file, not -")
    plotting.check_output(output, force=force)


class _Input(NamedTuple):
    """A file to label: its name, and a function that reads it."""

    path: str
    read: Callable[[], Score]


def _inputs(names: Sequence[str]) -> Iterator[_Input]:
    """Yield the files in the order given, those of a folder or an archive sorted by name."""
    import functools

    from ..data.sources import ARCHIVES

    for name in names:
        if name != _console.STANDARD_INPUT and (Path(name).is_dir() or name.lower().endswith(ARCHIVES)):
            yield from _inside(name)
        else:
            yield _Input(name, functools.partial(_read, name))


def _inside(name: str) -> Iterator[_Input]:
    """Yield the files in a folder or an archive; without any, one that raises the error."""
    import functools

    from ..data import sources
    from ..tagging.labels import read_found

    is_empty, problem = True, "no music in it (.mid, .midi, .kar, .rmi, .abc)"
    if not Path(name).exists():
        problem = "there is no such file"
    else:
        for event in sources.walk([Path(name)]):
            if isinstance(event, sources.Found):
                is_empty = False
                yield _Input(str(Path(name) / event.name), functools.partial(read_found, event))
            elif isinstance(event, sources.Problem):
                problem = event.text
                _console.say(f"Warning: {event.text}")
    if is_empty:
        yield _Input(name, functools.partial(_refuse, problem))


def _refuse(problem: str) -> Score:
    raise MidiError(problem)


def _read(name: str) -> Score:
    from ..data.parse import parse_clean

    return parse_clean(_console.read_bytes(name), name)


def _answer(tagger: Tagger, given: _Input, top: int) -> dict[str, Any]:
    """Return the JSON object of a file: its prediction, or the error."""
    from .. import midi

    try:
        score = given.read()
        found: Prediction = tagger.predict(score)
    except MusicLMError as error:
        text = str(error)
        for prefix in (f"'{given.path}' ", f"'{Path(given.path).name}' "):
            text = text.removeprefix(prefix)
        return {"path": given.path, "error": text}
    return {
        "path": given.path,
        "label": found.label,
        "probability": round(found.probability, 4),
        "unsure": found.unsure,
        "top": [{"label": n, "probability": round(p, 4)} for n, p in list(found.probabilities.items())[:top]],
        "num_notes": found.num_notes,
        "seconds": round(midi.seconds(score), 3),
    }


def _explain(tagger: Tagger, file: str, label: str | None, output: str, *, force: bool, quiet: bool) -> str:
    """Plot what each bar of a file is worth for a label, and return the path of the picture."""
    from ..plotting import evidence as plots
    from ..tagging.occlusion import evidence

    score = _read(file)
    label = label or tagger.predict(score).label
    found = list(_predictions.with_progress(evidence(tagger, score, label), None, "taking bars away", quiet=quiet))
    path = Path(output)
    title = f"{Path(file).name}: which bars speak for {label}"
    write_whole(path, plots.picture(score, found, path.suffix.lower(), title=title), force=force)
    best = max(found, key=lambda each: each.nats)
    where = f"bars {best.first_bar}-{best.last_bar} speak"
    if best.first_bar == best.last_bar:
        where = f"bar {best.first_bar} speaks"
    _console.say(f"plotted {output}: {where} most for {label} ({best.nats:+.2f} nats)", quiet=quiet)
    return output


def _print_answers(answers: Sequence[dict[str, Any]], *, quiet: bool) -> None:
    if not answers:
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("notes", justify="right", min_width=5)
    table.add_column("label", min_width=10)
    table.add_column("likely", justify="right", min_width=6)
    table.add_column("or", overflow="fold", min_width=16)
    for a in answers:
        label = escape(a["label"]) + ("?" if a["unsure"] else "")
        others = ", ".join(f"{escape(t['label'])} {t['probability']:.0%}" for t in a["top"][1:])
        table.add_row(_predictions.shown(a["path"]), f"{a['num_notes']:,}", label, f"{a['probability']:.0%}", others)
    _predictions.print_table(table)
    if any(a["unsure"] for a in answers):
        _console.say("? unsure", quiet=quiet)


command.add_command(_tag_training.train)
command.add_command(_tag_evaluation.evaluate)
