"""From the state of a build to the store: pieces in the order of their names, and the result of each file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import midi
from ..errors import CorpusError, Drop, MidiError, Reason, TokenizerError
from ..tokenizers.base import Tokenizer, tells_kinds
from . import split as splitting
from .labels import LabelSources
from .parse import id_type
from .pieces import SPLITS
from .progress import BuildState
from .report import DataReport, pitch_range
from .store import FORMAT, LABELS, PIECE, WHOLE, Writer

MIN_BARS = 3  # a piece with fewer bars cannot be split by bars


def write_store(
    work: BuildState,
    folder: Path,
    tokenizer: Tokenizer,
    *,
    sources: Sequence[str],
    keep_duplicates: bool,
    bpe: int,
    programs: Mapping[int, int],
    labels: LabelSources,
) -> None:
    """Write a store into a new folder, from finished work whose official splits are known.

    Raises:
        CorpusError: no piece can be kept.
    """
    splitting.find_copies(work)
    notes = [*splitting.use_official(work), *splitting.split_the_rest(work, keep_duplicates=keep_duplicates)]
    kept = splitting.kept_rows(keep_duplicates=keep_duplicates)
    problems = [text for (text,) in work.rows("SELECT text FROM problems ORDER BY text")]
    num_kept = int(work.one(f"SELECT COUNT(*) FROM files WHERE {kept}"))
    if num_kept == 0:
        raise CorpusError(_nothing(work, sources, problems))
    by_bars = num_kept < splitting.MIN_PIECES and not work.one("SELECT COUNT(*) FROM files WHERE official")
    if by_bars:
        notes = ["fewer than ten pieces: the splits are bars within pieces, the first 80 % of each for training"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    of_files = _Labelling(labels)
    report = _write_files(work, folder, tokenizer, sources, of_files, keep_duplicates=keep_duplicates, by_bars=by_bars)
    notes += of_files.notes()
    if by_bars:
        notes += _without_held_out(folder)
    _write_kinds(folder, tokenizer)
    if bpe:
        tokenizer = _merge(folder, tokenizer, bpe)
    document = {
        "format": FORMAT,
        "sources": list(sources),
        "tokenizer": json.loads(json.dumps(tokenizer.describe())),
        "id_type": id_type(tokenizer.vocab_size),
        "options": {
            "bpe": bpe,
            "keep_duplicates": keep_duplicates,
            "programs": {str(k): v for k, v in programs.items()},
        },
        "found": report.found,
        "kept": report.kept,
        "dropped": report.dropped(),
        "num_notes": report.num_notes,
        **_sizes(folder),
        "notes": notes,
        "problems": problems,
        "twins_across_splits": splitting.twins(work),
        "doctor": report.report(),
    }
    (folder / "corpus.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_files(
    work: BuildState,
    folder: Path,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    labels: _Labelling,
    *,
    keep_duplicates: bool,
    by_bars: bool,
) -> DataReport:
    """Write the pieces and files.jsonl, file by file in the order of names, and return the counts."""
    report = DataReport()
    writer = Writer(folder, id_type(tokenizer.vocab_size))
    with (folder / "files.jsonl").open("w", encoding="utf-8") as lines:
        for row in work.rows(
            "SELECT f.source, f.name, f.reason, f.tokens, f.token_bytes, f.facts, f.split, f.official, f.is_exact,"
            " o.source, o.name, l.labels FROM files AS f LEFT JOIN files AS o ON o.rowid = f.copy_of"
            " LEFT JOIN labels AS l ON l.source = f.source AND l.name = f.name"
            " ORDER BY f.source, f.name, f.place"
        ):
            source, file, stored, at, size, facts_json, split, official, is_exact, first_source, first_file, said = row
            shown = _shown(sources, source, file)
            of_piece = labels.of_piece(file, shown, said)
            line: dict[str, Any] = {"name": shown, "kept": False}
            is_copy = first_file is not None
            if is_copy:
                report.add_copy(bool(is_exact))
                line["copy_of"] = _shown(sources, first_source, first_file)
            drop = Drop.parse(stored) if stored is not None else None
            if drop is None and is_copy and not official and not keep_duplicates:
                drop = Drop(Reason.EXACT_COPY if is_exact else Reason.NEAR_COPY)
            facts: dict[str, Any] = json.loads(facts_json) if facts_json else {}
            report.add_file(drop, facts)
            if drop is not None:
                line["reason"] = drop.stored
            else:
                ids = np.frombuffer(work.bytes_at(at, size), writer.id_type)
                line |= {"kept": True, "split": "by bars" if by_bars else split}
                line |= {k: facts[k] for k in ("num_notes_read", "num_notes", "seconds", "key", "tempo", "metre")}
                line |= {k: facts[k] for k in ("left_out", "cleaned") if facts[k]}
                _write_piece(writer, shown, ids, facts, tokenizer, None if by_bars else split, of_piece)
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    writer.close()
    return report


def _shown(sources: Sequence[str], source: int, name: str) -> str:
    """Return a file's name within the corpus: the name of its source and the path within that."""
    return name if sources[source] == name else f"{sources[source]}/{name}"


class _Labelling:
    """Gives pieces their labels, and remembers which files of the user's table were found."""

    def __init__(self, sources: LabelSources) -> None:
        self._sources = sources
        self._left = set(sources.of_files)

    def of_piece(self, file: str, shown: str, said: str | None) -> dict[str, str]:
        """Return the labels of a file; `said` is what the table that came with it says, as JSON."""
        self._left -= {file, shown}
        return self._sources.of_piece(file, shown, json.loads(said) if said else {})

    def notes(self) -> list[str]:
        """Return a sentence about files of the user's table that were not found, if there are some."""
        left = sorted(self._left)
        more = f" and {len(left) - 5:,} more" if len(left) > 5 else ""
        return [f"labels name files that are not there: {', '.join(left[:5])}{more}"] if left else []


def _write_piece(
    writer: Writer,
    name: str,
    ids: np.ndarray,
    facts: dict[str, Any],
    tokenizer: Tokenizer,
    split: str | None,
    labels: Mapping[str, str],
) -> None:
    """Write a piece to its split; without one, write it as a whole and its bars as parts with splits."""
    writer.add(
        name,
        ids,
        split=WHOLE if split is None else SPLITS.index(split),
        num_notes=facts["num_notes"],
        seconds=facts["seconds"],
        pitches=(facts["low"], facts["high"]),
        labels=labels,
    )
    for number, (part, score) in enumerate(_parts(ids, tokenizer) if split is None else ()):
        if score is not None:
            writer.add(
                f"{name} ({SPLITS[number]})",
                part,
                split=number,
                num_notes=int(score.note_num()),
                seconds=midi.seconds(score),
                pitches=pitch_range(score),
                labels=labels,
            )


def _parts(ids: np.ndarray, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield ids and score of the first 80 % of a piece's bars, of the next tenth and of the last; None without a note."""
    ids = ids.astype(np.int64)
    score = tokenizer.decode(ids)
    bars = midi.BarMap(score)
    total = bars.num_bars(midi.end(score))
    held_out = max(1, total // 10) if total >= MIN_BARS else 0
    counts = (total - 2 * held_out, held_out, held_out)
    at = 0
    for count in counts:
        first, at = at, at + count
        try:
            if count == 0:
                raise MidiError("no bars")
            if tokenizer.is_paired:
                yield _pairs_between(ids, tokenizer, first, at)
            else:
                part = midi.cut(score, bars[first].start, bars[at].start)
                if part.note_num() == 0:
                    raise MidiError("no notes in these bars")
                yield tokenizer.encode(part)[0], part
        except MidiError:  # silence, or only notes without ids: this split has no part of the piece
            yield np.zeros(0, np.int64), None


def _pairs_between(ids: np.ndarray, tokenizer: Tokenizer, first: int, stop: int) -> tuple[np.ndarray, Any]:
    """Return ids and score of some bars of pairs; decoded and encoded again they would no longer be the same pairs.

    Raises:
        MidiError: no pair has notes in these bars.
    """
    from ..tokenizers.score_pairs import ScorePairs  # not at the top, as it imports MidiTok

    assert isinstance(tokenizer, ScorePairs)
    part = tokenizer.bars_between(ids, first, stop)
    return part, tokenizer.decode(part)


def _without_held_out(folder: Path) -> list[str]:
    """If no piece is long enough for held-out bars, validate on the training music. Return notes for the user."""
    rows = np.load(folder / "pieces.npy")
    if (rows["split"] == 1).any():
        return []
    again = rows[rows["split"] == 0].copy()
    again["split"] = 1
    if (folder / "labels.npy").exists():
        labels = np.load(folder / "labels.npy")
        np.save(folder / "labels.npy", np.concatenate([labels, labels[rows["split"] == 0]]).astype(LABELS))
    np.save(folder / "pieces.npy", np.concatenate([rows, again]).astype(PIECE))
    return ["too few bars to hold any out: validation is on the training music"]


def _write_kinds(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the kind of music of each piece, if the tokenizer tells kinds: training need not read the ids for it."""
    if not tells_kinds(tokenizer):
        return
    rows = np.load(folder / "pieces.npy", mmap_mode="r")
    ids = np.memmap(folder / "tokens.bin", id_type(tokenizer.vocab_size), "r")  # there is at least one piece
    pieces = (
        ids[int(start) : int(start + length)] for start, length in zip(rows["start"], rows["length"], strict=True)
    )
    np.save(folder / "kinds.npy", np.fromiter(map(tokenizer.kind_of, map(np.asarray, pieces)), np.uint8, len(rows)))


def _sizes(folder: Path) -> dict[str, Any]:
    """Return the numbers of pieces and tokens by split, and of all tokens."""
    rows = np.load(folder / "pieces.npy", mmap_mode="r")
    splits = {}
    for i, name in enumerate(SPLITS):
        of_split = rows["split"] == i
        splits[name] = {"pieces": int(of_split.sum()), "tokens": int(rows["length"][of_split].sum())}
    return {"num_tokens": sum(s["tokens"] for s in splits.values()), "splits": splits}


def _merge(folder: Path, tokenizer: Tokenizer, num_merges: int) -> Tokenizer:
    """Learn BPE merges on the training pieces, rewrite all tokens, and return the tokenizer with merges."""
    rows = np.load(folder / "pieces.npy")
    ids = np.memmap(folder / "tokens.bin", id_type(tokenizer.vocab_size), "r")

    def piece(row: Any) -> np.ndarray:
        return np.asarray(ids[int(row["start"]) : int(row["start"]) + int(row["length"])]).astype(np.int64)

    merged = tokenizer.trained_bpe((piece(row) for row in rows[rows["split"] == 0]), num_merges=num_merges)
    apply = getattr(merged, "merged_ids", None) or getattr(merged, "apply", None)
    if apply is None:
        raise TokenizerError(f"the tokenizer '{tokenizer.name}' cannot be given a BPE vocabulary: leave out --bpe")
    start, new_type = 0, np.dtype(id_type(merged.vocab_size))
    written: dict[int, tuple[int, int]] = {}
    with (folder / "tokens.new").open("wb") as file:
        for row in rows:
            at = int(row["start"])
            if at not in written:
                shorter = np.asarray(apply(piece(row)))
                file.write(shorter.astype(new_type).tobytes())
                written[at] = (start, len(shorter))
                start += len(shorter)
            row["start"], row["length"] = written[at]
    np.save(folder / "pieces.npy", rows)
    (folder / "tokens.new").replace(folder / "tokens.bin")
    return merged


def _nothing(work: BuildState, sources: Sequence[str], problems: Sequence[str]) -> str:
    query = "SELECT reason, COUNT(*) FROM files WHERE reason IS NOT NULL GROUP BY reason"
    found = [(Drop.parse(stored).text, count) for stored, count in work.rows(query)]
    reasons = sorted(found, key=lambda pair: (-pair[1], pair[0]))
    described = [f"{count} {'file' if count == 1 else 'files'}: {reason}" for reason, count in reasons[:12]]
    if not reasons:
        described = ["no file with a music suffix (.mid, .midi, .kar, .rmi, .abc) was found"]
    where = " and ".join(f"'{source}'" for source in sources[:3]) + (" and more" if len(sources) > 3 else "")
    return f"nothing to use in {where}: " + "; ".join([*described, *problems[:3]])
