"""The data report of a corpus, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import _console
from ._sparkline import sparkline

ROWS = 8  # rows per table; the others are summed in one row
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
PITCHES = [f"{name}{octave}" for octave in range(-1, 10) for name in NOTES]
LENGTHS = {0: "1/32", 1: "1/16", 2: "1/8", 3: "1/4", 4: "1/2", 5: "1", 6: "2 bars", 7: "4 bars"}


def show(document: dict[str, Any]) -> None:
    """Print the content of corpus.json."""
    console = Console(highlight=False)
    report = document["doctor"]
    bpe = f" + {document['options']['bpe']} merges" if document["options"]["bpe"] else ""
    sources = escape(", ".join(document["sources"]))
    console.print(f"[bold]{escape(document['name'])}[/bold]: {sources}; {document['tokenizer']['name']}{bpe}")
    _table(
        console,
        "files",
        [("found", document["found"]), ("kept", document["kept"]), *(_dropped(document["dropped"]))],
    )
    splits = [
        (name, f"{_console.counted(s['pieces'], 'piece')}, {_console.counted(s['tokens'], 'token')}")
        for name, s in document["splits"].items()
    ]
    _table(console, "splits", splits)
    _table(
        console,
        "music",
        [
            ("notes", document["num_notes"]),
            ("notes read, before cleaning and dropping copies", report["notes_read"]),
            ("notes that the tokenizer cannot express", report["notes_left_out_by_tokenizer"]),
            ("hours", f"{report['hours']:.1f}"),
            *report["cleaned"].items(),
        ],
    )
    kept = max(1, document["kept"])
    _table(
        console,
        "to look at",
        [
            ("onsets off the grid of sixteenths and triplets", f"{report['share_of_onsets_off_grid']:.1%}"),
            ("pieces with over a fifth of them off the grid", _of(report["pieces_off_grid"], kept)),
            ("pieces with one velocity", _of(report["pieces_with_one_loudness"], kept)),
            ("pieces with several tracks on one program", _of(report["pieces_with_tracks_on_one_program"], kept)),
            ("pieces that change tempo", _of(report["pieces_with_tempo_changes"], kept)),
            ("copies: the same tokens", report["copies"]["exact"]),
            ("copies: transposed or at another speed", report["copies"]["near"]),
            ("groups of copies across official splits", document["twins_across_splits"]["groups"]),
            (
                "held-out pieces with a tune of the training split",
                sum(document["twins_across_splits"]["share_a_tune"].values()),
            ),
        ],
    )
    programs = [(_program(p), n) for p, n in report["notes_by_program"].items()]
    _table(console, "notes by instrument", _most(programs))
    _table(console, "pieces by key (estimated)", _most(list(report["pieces_by_key"].items())))
    _table(console, "pieces by time signature", _most(list(report["pieces_by_metre"].items())))
    _bars(console, "pieces by tempo", {int(k): v for k, v in report["pieces_by_tempo"].items()}, 10, lambda t: f"{t}")
    _bars(console, "notes by pitch", {int(k): v for k, v in report["notes_by_pitch"].items()}, 1, lambda p: PITCHES[p])
    lengths = {int(k): v for k, v in report["notes_by_length"].items()}
    _bars(console, "notes by length", lengths, 1, lambda n: LENGTHS.get(n, f"{2.0**n:g}/32"))
    sizes = {int(k): v for k, v in report["pieces_by_size"].items()}
    _bars(console, "pieces by notes", sizes, 1, lambda n: f"{2**n:,}")
    for text in (*document["notes"], *document["problems"]):
        console.print(f"[dim]note:[/dim] {escape(text)}")


def _dropped(dropped: dict[str, int]) -> list[tuple[str, Any]]:
    return [(f"dropped: {reason}", count) for reason, count in dropped.items()]


def _of(count: int, kept: int) -> str:
    return f"{count:,} ({count / kept:.0%})"


def _program(name: str) -> str:
    if name == "drums":
        return "drums"
    from pretty_midi import program_to_instrument_name

    return f"{program_to_instrument_name(int(name))} ({name})"


def _most(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    rest = sum(count for _, count in rows[ROWS:])
    return rows[:ROWS] + ([(f"{len(rows) - ROWS} others", rest)] if rest else [])


def _table(console: Console, title: str, rows: list[tuple[str, Any]]) -> None:
    console.print(f"[bold]{title}[/bold]")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=52)
    table.add_column(justify="right", overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), f"{value:,}" if isinstance(value, int) else escape(str(value)))
    console.print(table)
    console.print()


def _bars(console: Console, title: str, counts: dict[int, int], step: int, label: Any) -> None:
    """Print a histogram in one line, between the labels of its ends."""
    if counts:
        values = [counts.get(k, 0) for k in range(min(counts), max(counts) + 1, step)]
        width = 50
        if len(values) > width:
            size = -(-len(values) // width)
            values = [sum(values[i : i + size]) for i in range(0, len(values), size)]
        text = f"{label(min(counts))} {sparkline([0.0, *values], width + 1)[1:]} {label(max(counts))}"
        console.print(f"[bold]{title:<16}[/bold] {text}", no_wrap=True, crop=True)
