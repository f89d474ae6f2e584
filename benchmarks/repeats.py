"""How much bars that repeat others are like them: in a model's music with a form, and in real pieces.

    python benchmarks/repeats.py score --corpus CORPUS -n 12
    python benchmarks/repeats.py score --option repeat_strength=0 -n 12

MODEL has `score` tokens with a plan. It samples -n pieces in one batch by --form, --bars and --seed, with its own defaults;
--option sets any option of `musiclm generate`, by its name in Python. Each bar whose plan says that it repeats another is
compared with that one: those that the form makes repeats, and those that the model itself says to be. Beside them, with
--corpus, the bars of real pieces whose plan says so. What is real repeats by definition: a plan is computed from the notes, and
its repeats have a Jaccard index of at least 0.7.

    jaccard   notes that both bars have / notes that one of them has; a note is its program, pitch and position
    chroma    cosine of the sounding time of the twelve pitch classes, drums left out
    copies    the share of bars that have exactly the same notes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

import music
import numpy as np
import torch

from musiclm.data import open_source
from musiclm.errors import MusicLMError
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.tokenizers.score import ScoreTokenizer
from musiclm.tokenizers.score_plan import Notes
from musiclm.tokenizers.vocabulary import Kind, is_kind

QUICK = 2
MEASURES = ("jaccard", "chroma", "copies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--corpus", help="of scores: for real pieces")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"], help="(validation)")
    parser.add_argument("-n", type=int, default=12, help="pieces (12)")
    parser.add_argument("--form", default="AABA", help="(AABA)")
    parser.add_argument("--bars", type=int, default=32, help="of a piece (32)")
    parser.add_argument("--seed", type=int, default=1, help="of the batch (1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="for sampling; repeatable")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pieces of 8 bars, and {QUICK} real ones")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    try:
        report = measured(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    print(json.dumps(report) if a.json else as_text(report))


def measured(a: argparse.Namespace) -> dict[str, Any]:
    """Return the document of --json."""
    torch.set_num_threads(a.threads)
    composer = Composer.load(a.model)
    tokenizer = composer.tokenizer
    if not isinstance(tokenizer, ScoreTokenizer) or tokenizer.plan is None:
        raise ValueError(f"the model '{a.model}' has tokens without a plan")
    number, bars = (QUICK, 8) if a.quick else (a.n, a.bars)
    options = music.options_of(a.option)
    asked = GenerationConfig.from_options(**options, form=a.form, bars=bars, n=number)
    pieces = composer.generate(composer.prompt(None), composer.completed(asked), a.seed)
    of_form, of_model = [], []
    for piece in pieces:
        ids = np.concatenate([[tokenizer.bos], piece.ids])
        for bar, row in compared(tokenizer, ids).items():
            is_first = a.form.index(a.form[bar * len(a.form) // bars]) == bar * len(a.form) // bars
            (of_model if is_first else of_form).append(row)
    report: dict[str, Any] = {"model": a.model, "form": a.form, "bars": bars, "n": number, "seed": a.seed}
    report |= {"options": options, "form_repeats": averaged(of_form), "sampled_repeats": averaged(of_model)}
    if a.corpus:
        found = open_source(a.corpus, tokenizer).pieces(a.split)
        real = [np.asarray(piece.tokens, np.int64) for piece in (found[:QUICK] if a.quick else found)]
        report["real_repeats"] = averaged(row for ids in real for row in compared(tokenizer, ids).values())
    return report


def compared(tokenizer: ScoreTokenizer, ids: np.ndarray) -> dict[int, list[float]]:
    """Return the measures of each bar that is said to repeat another, by its number; a pair without a note has none."""
    assert tokenizer.plan is not None
    table = tokenizer.vocabulary
    backs = [table[i].value or 0 for i in ids[is_kind(table, Kind.REPEAT)[ids]].tolist()]
    notes = tokenizer.plan.notes(tokenizer.plan.without(ids))
    pitches = np.array([token.value if token.kind == Kind.NOTE_ON else -1 for token in table])
    found = {}
    for bar, back in enumerate(backs):
        if back:
            one, other = (_bar(notes, pitches, number) for number in (bar, bar - back))
            if either := one[0] | other[0]:
                length = float(np.linalg.norm(one[1]) * np.linalg.norm(other[1]))
                chroma = float(one[1] @ other[1]) / length if length else np.nan
                found[bar] = [len(one[0] & other[0]) / len(either), chroma, float(one[0] == other[0])]
    return found


def _bar(notes: Notes, pitches: np.ndarray, number: int) -> tuple[set[tuple[int, ...]], np.ndarray]:
    """Return the notes of a bar, and for how long it has each pitch class, (12,)."""
    here = notes.bar == number
    each = zip(notes.program[here].tolist(), notes.pitch[here].tolist(), notes.start[here].tolist(), strict=True)
    is_pitched = here & (pitches[notes.pitch] >= 0)
    return set(each), np.bincount(pitches[notes.pitch[is_pitched]] % 12, notes.duration[is_pitched], 12)


def averaged(rows: Iterable[list[float]]) -> dict[str, float | int | None]:
    """Return the mean of each measure, and of how many bars."""
    table = np.array(list(rows), float).reshape(-1, len(MEASURES))
    means = [float(np.nanmean(column)) if np.isfinite(column).any() else None for column in table.T]
    return {"num_bars": len(table)} | dict(zip(MEASURES, means, strict=True))


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [
        f"{report['model']}, {report['n']} pieces of {report['bars']} bars, {report['form']}, seed {report['seed']}"
    ]
    for key, title in (("form_repeats", "form"), ("sampled_repeats", "sampled"), ("real_repeats", "real")):
        if key in report:
            row = report[key]
            cells = [f"{name} {'-' if row[name] is None else format(row[name], '.3f')}" for name in MEASURES]
            lines.append(f"{title:8} {row['num_bars']:6} bars: " + ", ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
