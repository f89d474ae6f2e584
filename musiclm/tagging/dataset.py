"""From labelled files to pieces for training and evaluation: read, encoded, without copies, split.

A split follows from a hash of the notes, as in a corpus, so that copies share one. The same files have the same split in
training and in evaluation.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ..data.fingerprint import Fingerprint, are_copies, fingerprint
from ..data.pieces import SPLITS
from ..data.split import MIN_PIECES, by_key
from ..errors import CorpusError, MusicLMError
from ..tokenizers.base import Tokenizer
from .labels import LabelledFile, named
from .model import MIN_NOTES
from .notes import STEPS, neutral

TOKENIZER = (
    'score:{"features": 1, "use_velocities": false, "use_tempos": false, "use_time_signatures": false}'  # 2.7 ids/note
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagPiece:
    """A labelled piece.

    Attributes:
        name: of its file.
        label: as the source says.
        split: train, validation or test; None before `split_pieces` if the source does not say.
        ids: of its neutral copy, (T,) int64.
        num_notes: that the ids have.
        form: of the piece as it was read, by which copies are found: a grid would hide copies at another tempo.
    """

    name: str
    label: str
    split: str | None
    ids: np.ndarray
    num_notes: int
    form: Fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unusable:
    """A labelled file that cannot be used, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagData:
    """Labelled pieces by split.

    Attributes:
        labels: their names, in alphabetical order.
        splits: train, validation and test.
        notes: sentences for the user: what was left out.
    """

    labels: list[str]
    splits: dict[str, list[TagPiece]]
    notes: list[str]

    def pieces(self, split: str) -> list[TagPiece]:
        """Return the pieces of train, validation, test or all."""
        return [p for name in SPLITS for p in self.splits[name]] if split == "all" else self.splits[split]

    def seen(self) -> set[bytes]:
        """Return the fingerprint keys of the pieces for training and validation."""
        return {piece.form.key for split in ("train", "validation") for piece in self.splits[split]}


def read_pieces(
    files: Sequence[LabelledFile], tokenizer: Tokenizer, steps: int = STEPS, *, min_notes: int = MIN_NOTES
) -> Iterator[TagPiece | Unusable]:
    """Yield each file as a piece, or why it cannot be used, in order.

    Args:
        files: see `labels.find_labelled`.
        tokenizer: encodes the neutral copies.
        steps: of their grid; see `notes.neutral`.
        min_notes: a file with fewer cannot be used; of a piece below the default every prediction is unsure.
    """
    for file in files:
        try:
            score = file.read()
            copy = neutral(score, steps)
            ids, left_out = tokenizer.encode(copy)
        except MusicLMError as error:
            yield Unusable(name=file.name, reason=str(error))
            continue
        num_notes = int(copy.note_num()) - max(0, left_out)
        if num_notes < min_notes:
            notes = "1 note" if num_notes == 1 else f"{num_notes} notes"
            yield Unusable(name=file.name, reason=f"has {notes}: at least {min_notes} are needed")
            continue
        yield TagPiece(
            name=file.name,
            label=file.label,
            split=file.split,
            ids=ids.astype(np.int32),
            num_notes=num_notes,
            form=fingerprint(score),
        )


def split_pieces(pieces: Sequence[TagPiece], *, min_pieces: int = 2) -> TagData:
    """Return pieces by split, without copies and without labels that have too few pieces.

    A split that the source gives stays, but a copy of a held-out piece is not for training. Of the other pieces about a tenth
    are for validation and a tenth for testing; where a label has fewer than ten pieces, none are for testing. Each label has
    at least one piece for validation, unless all its pieces have one hash: these stay together.

    Args:
        pieces: as they were read.
        min_pieces: different pieces that a label needs, at least 2.

    Raises:
        CorpusError: fewer than two labels are left.
    """
    kept, notes = _without_copies(pieces)
    counts = Counter(piece.label for piece in kept)
    few = sorted(label for label, count in counts.items() if count < max(2, min_pieces))
    if few:
        have = f"labels with fewer than {max(2, min_pieces)} different pieces are left out"
        notes.append(f"{have}: {named([f'{label} ({counts[label]})' for label in few])}")
    kept = [piece for piece in kept if piece.label not in few]
    has_validation = any(piece.split == "validation" for piece in kept)
    splits: dict[str, list[TagPiece]] = {name: [] for name in SPLITS}
    by_label: dict[str, list[TagPiece]] = defaultdict(list)
    for piece in kept:
        by_label[piece.label].append(piece)
    for label, of_label in sorted(by_label.items()):
        found = _split_label(of_label, may_move=not has_validation)
        if not found["train"]:
            notes.append(f"the label '{label}' has no piece for training: it is left out")
            continue
        for name in SPLITS:
            splits[name] += found[name]
    labels = sorted({piece.label for piece in splits["train"]})
    if len(labels) < 2:
        seen = f"'{labels[0]}' alone" if labels else "none"
        raise CorpusError(
            f"tagging needs at least two labels with two different pieces each; there is {seen}"
            + (f" ({'; '.join(notes)})" if notes else "")
        )
    return TagData(labels=labels, splits=splits, notes=notes)


def _split_label(pieces: Sequence[TagPiece], *, may_move: bool) -> dict[str, list[TagPiece]]:
    """Return the pieces of one label by split."""
    found: dict[str, list[TagPiece]] = {name: [] for name in SPLITS}
    for piece in pieces:
        split = piece.split or by_key(piece.form.key)
        if piece.split is None and split == "test" and len(pieces) < MIN_PIECES:
            split = "train"
        found[split].append(dataclasses.replace(piece, split=split))
    given = {piece.name for piece in pieces if piece.split is not None}
    fixed = set() if may_move else {piece.form.key for piece in found["train"] if piece.name in given}
    free = [piece for piece in found["train"] if piece.form.key not in fixed]
    if not found["validation"] and free:
        _move(found, "train", "validation", {min(piece.form.key for piece in free)})
    elif not found["train"] and found["validation"] and not given:
        keys = {piece.form.key for piece in found["validation"]}
        _move(found, "validation", "train", keys - {min(keys)})
    return found


def _move(found: dict[str, list[TagPiece]], start: str, to: str, keys: set[bytes]) -> None:
    """Move all pieces of these hashes from one split to another, unless none would be left in the first."""
    left = [piece for piece in found[start] if piece.form.key not in keys]
    if left:
        found[to] += [dataclasses.replace(piece, split=to) for piece in found[start] if piece.form.key in keys]
        found[start] = left


def _without_copies(pieces: Sequence[TagPiece]) -> tuple[list[TagPiece], list[str]]:
    """Return one piece of each group of copies, a held-out one if there is one, in order; and what was left out.

    Of a group with two labels none is taken, unless the source gives one of them a split.
    """
    order = {"test": 0, "validation": 1, "train": 2, None: 3}
    firsts: dict[bytes, list[TagPiece]] = defaultdict(list)
    copies, clashes, disputed = 0, [], set()
    for piece in sorted(pieces, key=lambda p: order[p.split]):
        first = next((other for other in firsts[piece.form.key] if are_copies(other.form, piece.form)), None)
        if first is None:
            firsts[piece.form.key].append(piece)
            continue
        copies += 1
        if first.label != piece.label:
            clashes.append(f"{piece.name} ({piece.label}) is {first.name} ({first.label})")
            disputed |= {id(first)} if first.split is None else set()
    kept = {id(piece) for group in firsts.values() for piece in group} - disputed
    notes = [f"left out: {copies:,} {'copy' if copies == 1 else 'copies'} of other files"] if copies else []
    if clashes:
        taken = "left out unless the source gives them a split"
        notes.append(f"copies with two labels, {taken}: {named(clashes)}")
    return [piece for piece in pieces if id(piece) in kept], notes
