"""Losses of `accompaniment.py`: the same targets with and without attention, with and without a source, at one CPU budget.

Runs are kept in a folder each, see `efficient_training`. S songs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import efficient_training as training
import numpy as np

from musiclm import checkpoint, evaluation, models, tokenizers
from musiclm.data import SPLITS, Corpus, Piece
from musiclm.data.pair_crops import MAX_BARS
from musiclm.data.store import FORMAT, Writer, is_store
from musiclm.devices import faster_in_bf16
from musiclm.midi.theory import DRUMS
from musiclm.tokenizers.vocabulary import PLAN, Kind, is_kind
from musiclm.training.config import TrainConfig

RUNS: dict[str, tuple[str, dict[str, float | str]]] = {  # architecture, and fields of its config
    "no-attention": ("seq2seq_gru", {"attention": 0}),
    "seq2seq-gru": ("seq2seq_gru", {}),
    "seq2seq-transformer": ("seq2seq_transformer", {}),
    "joined": ("transformer", {}),
    "target-alone": ("transformer", {}),
}
ATTENTIVE, INATTENTIVE, JOINED, ALONE = ("seq2seq-gru", "seq2seq-transformer"), "no-attention", "joined", "target-alone"
FAMILIES = {  # of each kind of pair, but the melody's, the programs of its target; see `midi.parts`
    "drums": (DRUMS,), "bass": range(32, 40), "keys": (*range(8), *range(16, 24)), "strings": range(40, 52),
    "winds": range(56, 80),
}  # fmt: skip
LONG = f"{MAX_BARS} bars"  # windows of full length
BITS = "<u2"

Counts = dict[str, dict[str, list[float]]]
"""Of each song and group of its windows: nats, nats of the ids that are not of the plan, ids, notes."""


class Window(NamedTuple):
    """The same bars of both sides of a pair.

    Attributes:
        song: the name of its piece.
        groups: in which it is counted: "all", the kind of the pair, and `LONG` if it has `MAX_BARS` bars.
        piece: its ids and the notes of its target.
    """

    song: str
    groups: tuple[str, ...]
    piece: Piece


def losses(corpus: Corpus, data: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return the results of the runs in a folder, after training and measuring what is missing.

    Args:
        corpus: of pairs.
        data: its path.
        folder: of the runs.
        options: `runs`, `checkpoints` to measure beside them, `split`, `most_tokens` of its pieces, `preset`, `length`,
            `dropout`, `batch_size`, `seed`, and the budget `minutes` or `steps`.
    """
    found = held_out(corpus, options["split"], options["most_tokens"])
    plans = {}
    for name in options["runs"]:
        source = str(targets_alone(corpus, folder / "targets")) if name == ALONE else data
        plans[name] = plan_of(name, source, options)
        training.check_stored(folder / name, plans[name])
    counted = {name: measured(folder / name, plan, found, options) for name, plan in plans.items()}
    counted |= {name: of_checkpoint(name, found) for name in options["checkpoints"]}
    return {
        "data": data,
        "options": {key: value for key, value in options.items() if key not in ("runs", "checkpoints")},
        "num_songs": len({window.song for window in found if "all" in window.groups}),
        "num_windows": sum("all" in window.groups for window in found),
        "num_long_windows": sum(LONG in window.groups for window in found),
        **summary(counted),
    }


def held_out(corpus: Corpus, split: str, most_tokens: int | None) -> list[Window]:
    """Return the windows of pieces of a split, chosen by hash, and all other windows of full length.

    Few windows are as long as that; of the pieces that are not chosen these count in their own group alone.
    """
    chosen = evaluation.sample_pieces(corpus.pieces(split), most_tokens)
    names = {piece.name for piece in chosen}
    others = windows_of(corpus.tokenizer, (piece for piece in corpus.pieces(split) if piece.name not in names))
    long = [window._replace(groups=(LONG,)) for window in others if LONG in window.groups]
    return windows_of(corpus.tokenizer, chosen) + long


def plan_of(name: str, data: str, options: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a run: crops of `length` ids a side, and a context that holds what it reads at once."""
    arch, config = RUNS[name]
    preset, length = models.preset(arch, options["preset"]), options["length"]
    context = {"context": 2 * length if name == JOINED else length} if "context" in preset else {}
    return TrainConfig(
        arch=arch,
        preset=options["preset"],
        data=data,
        tokenizer=None if is_store(data) else "score-pairs",
        minutes=options.get("minutes"),
        steps=options.get("steps"),
        batch_size=options["batch_size"],
        window=length,
        dropout=options["dropout"] if "dropout" in preset else None,
        config=dict(config),
        seed=options["seed"],
        threads=1,
        device="cpu",
        command=" ".join(["python", *sys.argv]),
        **context,
    )


def targets_alone(corpus: Corpus, folder: Path) -> Path:
    """Write a corpus of the targets of all training and validation windows, each a piece of `score`; return its folder.

    Windows begin with a header, as those that are measured do, so that a model without a source reads all but the source.
    """
    if is_store(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(folder, BITS)
    for split in SPLITS[:2]:
        for window in windows_of(corpus.tokenizer, corpus.pieces(split)):
            piece = target_of(corpus.tokenizer, window.piece)
            pitches = piece.pitches or (None, None)
            writer.add(
                piece.name,
                piece.tokens,
                split=SPLITS.index(split),
                num_notes=piece.num_notes,
                seconds=piece.seconds,
                pitches=pitches,
            )
    writer.close()
    document = {
        "format": FORMAT,
        "sources": [corpus.name],
        "tokenizer": {k: v for k, v in corpus.tokenizer.describe().items() if k != "pairs"} | {"name": "score"},
        "id_type": BITS,
        "dropped": {},
        "notes": ["targets of pairs, without their sources"],
    }
    (folder / "corpus.json").write_text(json.dumps(document) + "\n", encoding="utf-8")  # the last: it makes it a store
    return folder


def target_of(tokenizer: Any, piece: Piece) -> Piece:
    """Return the target of a window as a piece of `score`."""
    return dataclasses.replace(piece, tokens=tokenizer.split(piece.tokens)[0].target)


def windows_of(tokenizer: Any, pieces: Iterable[Piece]) -> list[Window]:
    """Return the windows of pieces, see `evaluation.paired_pieces`; their names differ."""
    found = []
    for piece in pieces:
        for number, pair in enumerate(tokenizer.split(piece.tokens)):
            kind = kind_of(tokenizer, pair.target, number)
            name = f"{piece.name} {number}"
            whole = dataclasses.replace(piece, name=name, tokens=np.concatenate(pair))
            for window in evaluation.paired_pieces(tokenizer, [whole]):
                num_bars = len(tokenizer.bar_starts(tokenizer.split(window.tokens)[0].target)) - 1
                groups = ("all", kind, *([LONG] if num_bars == MAX_BARS else []))
                found.append(Window(piece.name, groups, window))
    return found


def kind_of(tokenizer: Any, target: np.ndarray, number: int) -> str:
    """Return the kind of a pair. The first of a piece is the melody's; of others the target's programs say it.

    Args:
        tokenizer: of the ids.
        target: ids.
        number: of the pair in its piece.
    """
    if not number:
        return "melody"
    table = tokenizer.vocabulary
    programs = {table[i].value for i in np.unique(target[is_kind(table, Kind.PROGRAM)[target]]).tolist()}
    return next((kind for kind, family in FAMILIES.items() if programs and programs <= set(family)), "melody")


def measured(folder: Path, plan: TrainConfig, windows: Sequence[Window], options: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a run, after training and measuring what is missing."""
    asked = {name: value for name, value in dataclasses.asdict(plan).items() if name not in ("command", "precision")}
    asked |= {"most_tokens": options["most_tokens"], "split": options["split"], "num_windows": len(windows)}
    stored = training.read_json(folder / "result.json")
    if stored is not None and stored["asked"] == asked:
        return stored
    problem = training.trained(folder, plan)
    result: dict[str, Any] = {"asked": asked, "problem": problem}
    if problem is None:
        loaded = checkpoint.load(folder)
        pace = training.read_json(folder / "pace.json") or {}
        last = json.loads((folder / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
        bf16 = (training.read_json(folder / "run.json") or {})["precision"] == "bf16"
        result |= {
            "num_parameters": loaded.model().num_parameters,
            "steps": last["step"],
            "best_step": loaded.card["steps"],
            "cpu_seconds": pace.get("seconds"),
            "precision": "bf16" if bf16 else "fp32",
            "songs": counts_of(loaded, windows, bf16),
        }
    training.write_json(folder / "result.json", result)
    return result


def of_checkpoint(name: str, windows: Sequence[Window]) -> dict[str, Any]:
    """Return the result of a checkpoint as it is."""
    loaded = checkpoint.load(name)
    counted = counts_of(loaded, windows, faster_in_bf16())
    facts = {"num_parameters": loaded.model().num_parameters, "steps": loaded.card["steps"]}
    return {"problem": None, **facts, "songs": counted}


def counts_of(loaded: Any, windows: Sequence[Window], bf16: bool = False) -> Counts:
    """Return the sums of each song by a checkpoint's model, which reads sources if its tokenizer has pairs."""
    tokenizer, model = loaded.tokenizer(), loaded.model().eval()
    paired = tokenizer if tokenizer.is_paired else tokenizers.create("score-pairs")
    is_plan = is_kind(tokenizer.vocabulary, *PLAN)
    by_name = {window.piece.name: window for window in windows}
    pieces = [window.piece if tokenizer.is_paired else target_of(paired, window.piece) for window in windows]
    found: Counts = {}
    for piece, nats in evaluation.token_losses(model, tokenizer, pieces, bf16):
        window, ids = by_name[piece.name], np.asarray(piece.tokens)
        counted = tokenizer.eval_mask(ids)[1:]
        of_notes = counted & ~is_plan[ids[1:]]
        sums = [float(nats[counted].sum()), float(nats[of_notes].sum()), int(counted.sum()), piece.num_notes]
        for group in window.groups:
            row = found.setdefault(window.song, {}).setdefault(group, [0.0, 0.0, 0, 0])
            row[:] = [a + b for a, b in zip(row, sums, strict=True)]
    return found


def ratio(tops: np.ndarray, bottoms: np.ndarray) -> tuple[float, float | None]:
    """Return the sum of (S,) over the sum of (S,), and its standard error over songs; None for fewer than two.

    The error is that of a ratio estimator: of the residuals of each song (Cochran 1977, chapter 6).
    """
    value, count = float(tops.sum() / bottoms.sum()), len(tops)
    if count < 2:
        return value, None
    residuals = tops - value * bottoms
    return value, math.sqrt(float((residuals**2).sum()) / (count * (count - 1))) / float(bottoms.mean())


def summary(counted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return of each run and group the loss in nats per note and per id, and differences of runs, paired by song."""
    groups = ("all", LONG, "melody", *FAMILIES)
    report: dict[str, Any] = {"runs": {}, "differences": {}}
    for name, result in counted.items():
        facts = {key: value for key, value in result.items() if key not in ("songs", "asked")}
        of_groups = {group: _of_group(result["songs"], group) for group in groups} if "songs" in result else {}
        report["runs"][name] = facts | {"losses": {group: row for group, row in of_groups.items() if row}}
    trained = {name: result["songs"] for name, result in counted.items() if "songs" in result}
    for name, songs in trained.items():
        others = {other: theirs for other, theirs in trained.items() if other != name}
        report["differences"][name] = {
            other: {group: row for group in groups if (row := _difference(songs, theirs, group))}
            for other, theirs in others.items()
        }
    return report


def _of_group(songs: Counts, group: str) -> dict[str, Any]:
    rows = np.array([song[group] for song in songs.values() if group in song], float)
    if not len(rows):
        return {}
    nats, nats_of_notes, ids, notes = rows.T
    found: dict[str, Any] = {"num_songs": len(rows), "num_notes": int(notes.sum()), "num_tokens": int(ids.sum())}
    for name, tops, bottoms in (
        ("nats_per_note", nats, notes),
        ("nats_per_note_without_plan", nats_of_notes, notes),
        ("nats_per_token", nats, ids),
    ):
        value, error = ratio(tops, bottoms)
        found[name] = {"mean": value, "standard_error": error}
    return found


def _difference(songs: Counts, others: Counts, group: str) -> dict[str, Any]:
    """Return one run less another, nats per note."""
    names = [name for name in songs if group in songs[name]]
    if not names:
        return {}
    rows = np.array([songs[name][group] for name in names], float)
    theirs = np.array([others[name][group] for name in names], float)
    found: dict[str, Any] = {"num_songs": len(names)}
    for key, column in (("nats_per_note", 0), ("nats_per_note_without_plan", 1)):
        value, error = ratio(rows[:, column] - theirs[:, column], rows[:, 3])
        found[key] = {"mean": value, "standard_error": error}
    return found


def as_text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    names = list(report["runs"])
    groups = [group for group in ("all", LONG, "melody", *FAMILIES) if any(_rows(report, group))]
    numbers = f"{report['num_windows']} windows of {report['num_songs']} songs, {report['num_long_windows']} of {LONG}"
    lines = [f"nats per target note, {numbers}", ""]
    lines.append(f"{'':22}{'param':>8}{'steps':>8}" + "".join(f"{group:>16}" for group in groups))
    for name in names:
        run = report["runs"][name]
        if run["problem"]:
            lines.append(f"{name:22}{run['problem']}")
            continue
        cells = "".join(f"{_cell(run['losses'].get(group), 'nats_per_note'):>16}" for group in groups)
        lines.append(f"{name:22}{run['num_parameters'] / 1e6:7.2f}M{run['steps']:>8,}{cells}")
    for key, title in (("nats_per_note", "all ids"), ("nats_per_note_without_plan", "without the plan's ids")):
        others = [name for name in names if name not in RUNS]
        bases = [name for name in (INATTENTIVE, ALONE) if name in report["differences"]] + others[-1:]
        for base in bases:
            lines += ["", f"less {base}, {title}"]
            for name in names:
                rows = report["differences"].get(name, {}).get(base)
                if rows:
                    lines.append(f"{name:38}" + "".join(f"{_cell(rows.get(group), key):>16}" for group in groups))
    return "\n".join(lines)


def _rows(report: dict[str, Any], group: str) -> Iterable[Any]:
    return (run["losses"].get(group) for run in report["runs"].values())


def _cell(row: dict[str, Any] | None, key: str) -> str:
    if not row:
        return "-"
    found = row[key]
    error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
    return f"{found['mean']:.3f}{error}"
