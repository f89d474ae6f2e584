"""musiclm classify."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError
from . import _console, _options, _predictions

if TYPE_CHECKING:
    from torch import Tensor

    from ..audio.classifier import NoteClassifier, Prediction

BATCH = 64  # files classified together
LONGEST_INPUT = 2**30  # bytes of standard input


@click.command("classify", epilog="Example: musiclm classify note.wav other.flac --top 3")
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option("--model", metavar="MODEL", help="A classifier file; default: the bundled one.")
@click.option("--top", type=click.IntRange(1, 11), default=3, show_default=True, help="How many families to list.")
@click.option("--notes", is_flag=True, help="Cut each file at its onsets, and classify each note.")
@_options.json_output
@_options.quiet
def command(files: tuple[str, ...], model: str | None, top: int, notes: bool, as_json: bool, quiet: bool) -> None:
    """Predict the instrument family of a recorded note.

    FILE is wav, flac, ogg, opus, mp3, aiff, caf, w64 or au, of any rate and number of channels; a folder stands for all
    sound files in it (those that must be converted first are counted), and - for standard input. The loudest note of
    each file is classified. A prediction that is more likely wrong than right is followed by a question mark.
    """
    paths, inside = _paths(files)
    answers = []
    foreign = {path for path in inside if _is_foreign(path)}
    for properties, predictions in _classified(model, paths, notes=notes, quiet=quiet):
        answer = _answer(properties, predictions, top)
        answers.append(answer)
        if "error" in answer and answer["path"] not in foreign:
            _console.say(f"Error: {answer['path']}: {answer['error']}")
    if as_json:
        _console.print_json(answers)
    else:
        _print_table([a for a in answers if "error" not in a])
        if any(a.get("unsure") for a in answers):
            _console.say("? more likely wrong than right", quiet=quiet)
    passed = Counter(a["error"] for a in answers if a["path"] in foreign)
    for reason, count in sorted(passed.items()):
        _console.say(f"passed over: {_console.counted(count, 'file')}: {reason}", quiet=quiet)
    is_failed = any("error" in a and a["path"] not in foreign for a in answers)
    if is_failed or all("error" in a for a in answers):
        click.get_current_context().exit(1)


def _classified(
    model: str | None, paths: list[str], *, notes: bool, quiet: bool
) -> Iterable[tuple[dict[str, Any], list[Prediction]]]:
    """Return what `classify_all` does; if none of the files exists, without loading torch and the classifier."""
    if not any(path == _console.STANDARD_INPUT or Path(path).exists() for path in paths):
        return [({"path": path, "error": os.strerror(errno.ENOENT)}, []) for path in paths]
    from ..audio.classifier import NoteClassifier

    return classify_all(NoteClassifier.load(model), paths, notes=notes, quiet=quiet)


def _is_foreign(path: str) -> bool:
    """Return whether a file has a sound format that must be converted first."""
    from ..audio import formats

    try:
        return formats.foreign_name(formats.start_of(Path(path))) is not None
    except OSError:
        return False


def _paths(files: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the files in the order given, those of a folder sorted by name, and which of them a folder stood for."""
    from ..audio.formats import is_sound

    paths: list[str] = []
    found: set[str] = set()
    for name in files:
        if name != _console.STANDARD_INPUT and Path(name).is_dir():
            inside = sorted(str(p) for p in Path(name).rglob("*") if p.is_file() and is_sound(p))
            paths += inside or [name]  # reading the folder itself then raises the error
            found.update(inside)
        else:
            paths.append(name)
    return paths, found


def classify_all(
    classifier: NoteClassifier, paths: list[str], *, notes: bool = False, quiet: bool = False
) -> Iterator[tuple[dict[str, Any], list[Prediction]]]:
    """Yield (properties of the file, its predictions, that of the loudest note first) in order, BATCH files at a time.

    With more files than that a terminal shows a progress bar.
    """
    found = _classify_all(classifier, paths, notes=notes)
    return _predictions.with_progress(found, len(paths), "classifying", most_silent=BATCH, quiet=quiet)


def _classify_all(
    classifier: NoteClassifier, paths: list[str], *, notes: bool
) -> Iterator[tuple[dict[str, Any], list[Prediction]]]:
    from concurrent.futures import ThreadPoolExecutor

    with _libraries_silenced(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for first in range(0, len(paths), BATCH):
            files = list(pool.map(lambda path: _pictures(path, notes=notes), paths[first : first + BATCH]))
            predictions = iter(classifier.look([picture for _, pictures in files for picture in pictures]))
            for properties, pictures in files:
                yield properties, [next(predictions) for _ in pictures]


@contextlib.contextmanager
def _libraries_silenced() -> Iterator[None]:
    """Suppress what C libraries write to descriptor 2: libmpg123 writes several lines for each damaged mp3.

    Messages of this program still appear, through a duplicate of the descriptor.
    """
    ours, theirs = sys.stderr, None
    try:
        theirs = os.dup(2) if ours.fileno() == 2 else None
    except (OSError, ValueError, AttributeError):  # stderr was replaced: by a test, a notebook
        theirs = None
    if theirs is None:
        yield
        return
    ours.flush()
    with open(theirs, "w", encoding=ours.encoding, errors="replace", buffering=1, closefd=False) as other:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)
        os.close(silence)
        sys.stderr = other
        try:
            yield
        finally:
            sys.stderr = ours
            other.flush()
            os.dup2(theirs, 2)
            os.close(theirs)


def _pictures(path: str, *, notes: bool) -> tuple[dict[str, Any], list[Tensor]]:
    """Return the properties of a file, and the pictures to classify, that of its loudest note first."""
    from ..audio import io as audio_io
    from ..audio import mel, onsets
    from ..audio.classifier import loudest_picture

    try:
        source: Path | bytes = Path(path)
        if path == _console.STANDARD_INPUT:
            source = _console.read_bytes(path, error=AudioError, most=LONGEST_INPUT)
        elif Path(path).is_dir():
            raise AudioError("no sound files in this folder")
        recording = audio_io.read(source)
        pictures = [loudest_picture(recording.audio)]
        spans = []
        for span in onsets.notes(recording.audio) if notes else []:
            try:
                pictures.append(mel.log_mel(recording.audio[span.start : span.end]))
                spans.append({"start": span.start / mel.SAMPLE_RATE, "end": span.end / mel.SAMPLE_RATE})
            except AudioError:  # a silent span between two onsets is not a note
                continue
    except AudioError as error:
        return {"path": path, "error": str(error)}, []
    answer: dict[str, Any] = {"path": path, "seconds": recording.seconds, "sample_rate": recording.sample_rate}
    return (answer | {"notes": spans} if notes else answer), pictures


def _answer(properties: dict[str, Any], predictions: list[Prediction], top: int) -> dict[str, Any]:
    """Return the JSON object of a file: its predictions, or the error."""
    if "error" in properties:
        return properties
    best = predictions[0]
    answer = {
        "path": properties["path"],
        "family": best.family,
        "probability": round(best.probability, 4),
        "unsure": best.unsure,
        "top": [{"family": f, "probability": round(p, 4)} for f, p in list(best.probabilities.items())[:top]],
        "seconds": round(properties["seconds"], 3),
        "sample_rate": properties["sample_rate"],
    }
    if "notes" in properties:
        answer["notes"] = [
            {
                "start": round(span["start"], 3),
                "end": round(span["end"], 3),
                "family": p.family,
                "probability": round(p.probability, 4),
            }
            for span, p in zip(properties["notes"], predictions[1:], strict=True)
        ]
    return answer


def _print_table(answers: list[dict[str, Any]]) -> None:
    if not answers:
        return
    from rich.table import Table

    with_notes = "notes" in answers[0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("seconds", justify="right", min_width=11 if with_notes else 7)
    table.add_column("family", min_width=11)
    table.add_column("likely", justify="right", min_width=6)
    if not with_notes:
        table.add_column("or", overflow="fold", min_width=16)
    for a in answers:
        row = [
            _predictions.shown(a["path"]),
            f"{a['seconds']:.2f}",
            a["family"] + ("?" if a["unsure"] else ""),
            f"{a['probability']:.0%}",
        ]
        if with_notes:
            table.add_row(*row)
            for note in a["notes"]:
                when = f"{note['start']:.2f}-{note['end']:.2f}"
                table.add_row("", when, note["family"], f"{note['probability']:.0%}")
        else:
            table.add_row(*row, ", ".join(f"{t['family']} {t['probability']:.0%}" for t in a["top"][1:]))
    _predictions.print_table(table)
