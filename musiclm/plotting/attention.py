"""Attention from each note to earlier notes: the arcs of Huang et al. 2018 (figures 1, 7 and 8) over a piano roll.

With recordable attention (`models.layers.attention_recording`), a share is the attention of a head of a layer, at the
position that predicts a note's pitch, to the tokens of an earlier note. For other models it is the norm of the gradient of
that pitch's log-probability with respect to the embeddings of the earlier tokens, divided by the sum of these norms. In
both, shares of tokens that belong to no note, and of the note's own tokens, are left out, so that shares add up to less
than 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from symusic import Score
from torch import Tensor

from .. import midi
from ..models.base import LanguageModel, State, copy_state
from ..models.layers.attention_recording import record_attention
from ..tokenizers.base import Tokenizer
from . import colour, figure, paler, pitch_name, to_bytes, track_name
from .notes import AlignedNotes, Note, align
from .piano_roll import Drawn, drum_name, systems

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NOTES = 400  # of a picture; longer pieces are cut, and the result has the number of notes left out
LOOKED_BACK = 256  # tokens over which a gradient is computed
BATCH_SIZE = 16  # notes whose gradients are computed together
MOST_ARCS = 12  # per note and head, in a page
LEAST_SHARE = 0.01  # of an arc
BEFORE, BEHIND = 40.0, 6.0  # quarters shown around the note, in a picture
HEADS = (
    "#d62839",
    "#0a9396",
    "#7b2cbf",
    "#e08e1b",
    "#2b59c3",
    "#5a8f29",
    "#b5179e",
    "#6c584c",
)  # not the tracks' colours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
    """The attention of a model to the notes of a piece.

    Attributes:
        aligned: the notes that the model read, at most about `MAX_NOTES`, aligned with its tokens.
        shares: (L, H, N, N) float32: by layer, head, predicted note, attended note.
        by: "attention", or "gradient" with one layer and one head.
        num_left: number of later notes that were not read.
        first_bar: the number of the first bar.
    """

    aligned: AlignedNotes
    shares: np.ndarray
    by: str
    num_left: int
    first_bar: int = 1

    def at(self, bar: int | None = None, beat: float = 1.0) -> int:
        """Return the index of the highest note that begins at a position, or else of the first after it.

        Args:
            bar: its number; if left out, three quarters through the piece.
            beat: in quarters, counted from 1.
        """
        notes = self.aligned.notes
        if bar is None:
            when = notes[3 * (len(notes) - 1) // 4].start
        else:
            when = midi.bar_line(self.aligned.score, 0.0, max(0, bar - self.first_bar)) + beat - 1
        start = min((n.start for n in notes if n.start >= when - 1e-3), default=notes[-1].start)
        there = [i for i, n in enumerate(notes) if abs(n.start - start) < 1e-3]
        return max(there, key=lambda i: (not notes[i].is_drum, notes[i].pitch))


def attention(model: LanguageModel, tokenizer: Tokenizer, score: Score, *, first_bar: int = 1) -> Attention:
    """Return the attention of a model from each note of a score to all earlier notes.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        score: any; only the beginning if it has more than `MAX_NOTES` notes.
        first_bar: its number, for labels.

    Raises:
        MidiError: the tokenizer cannot express any note of it.
        TokenizerError: ids of the tokenizer do not belong to single notes.
    """
    num_notes = score.note_num()
    if num_notes > MAX_NOTES:
        starts = sorted(n.time for t in score.tracks for n in t.notes)
        behind = max(starts[MAX_NOTES], starts[0] + 1)
        score = midi.cut(score, 0.0, behind / score.ticks_per_quarter)
    found = align(tokenizer, score)
    shares = by_attention(model, tokenizer, found)
    by = "gradient" if shares is None else "attention"
    shares = by_gradient(model, tokenizer, found) if shares is None else shares
    itself = np.arange(len(found.notes))
    shares[:, :, itself, itself] = 0
    return Attention(aligned=found, shares=shares, by=by, num_left=num_notes - score.note_num(), first_bar=first_bar)


def _inputs(model: LanguageModel, tokenizer: Tokenizer, found: AlignedNotes) -> tuple[Tensor, Tensor | None]:
    """Return the ids and features of a piece on the model's device, (1, T) and (1, T, F)."""
    ids = torch.from_numpy(found.ids)[None]
    device = next(model.parameters()).device
    features = tokenizer.features(ids, None)[0].to(device) if tokenizer.feature_sizes else None
    return ids.to(device), features


def _owners(found: AlignedNotes) -> Tensor:
    """Return the share of each id that belongs to each note, (T, N + 1); the last column belongs to no note."""
    owners = torch.zeros(len(found.ids), len(found.notes) + 1)
    for column in np.where(found.owner < 0, len(found.notes), found.owner).T:
        owners[torch.arange(len(owners)), torch.from_numpy(column)] += 1 / found.owner.shape[1]
    return owners


@torch.no_grad()
def by_attention(model: LanguageModel, tokenizer: Tokenizer, found: AlignedNotes) -> np.ndarray | None:
    """Return how much each head attends to each note, (L, H, N, N); None if the model has no recordable attention."""
    ids, features = _inputs(model, tokenizer, found)
    queries = torch.tensor([n.said - 1 for n in found.notes], device=ids.device)
    with record_attention(_owners(found).to(ids.device), queries) as recorder:
        model(ids, None, features)
    layers = [layer_BHQN[0, :, :, :-1].float().cpu().numpy() for layer_BHQN in recorder.layers]
    return np.stack(layers) if layers else None


def by_gradient(model: LanguageModel, tokenizer: Tokenizer, found: AlignedNotes) -> np.ndarray:
    """Return the shares of gradients of each pitch's log-probability with respect to earlier notes, (1, 1, N, N)."""
    ids, features = _inputs(model, tokenizer, found)
    owners = _owners(found).numpy()
    shares = np.zeros((len(found.notes), len(found.notes) + 1), np.float32)
    asked = [n.said - 1 for n in found.notes]
    starts = [max(0, place + 1 - LOOKED_BACK) for place in asked]
    states = _states(model, ids, features, sorted(set(starts)))
    order = sorted(range(len(asked)), key=lambda i: asked[i])
    for batch in _batches(order, starts):
        state = (
            None
            if not starts[batch[0]]
            else tuple(torch.cat(s) for s in zip(*(states[starts[i]] for i in batch), strict=True))
        )
        reach = np.minimum(np.array([starts[i] for i in batch])[:, None] + np.arange(LOOKED_BACK), ids.shape[1] - 1)
        leaves: list[Tensor] = []

        def leaf(_module: Any, _inputs: Any, embedded: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
            leaves.append(embedded.detach().requires_grad_())
            return leaves[-1]

        handle = model.embedding.register_forward_hook(leaf)
        try:
            logits, _ = model(ids[0, reach], state, None if features is None else features[0, reach])
        finally:
            handle.remove()
        last = [asked[i] - starts[i] for i in batch]
        targets = ids[0, [asked[i] + 1 for i in batch]]
        chosen = logits[torch.arange(len(batch)), last].log_softmax(-1).gather(1, targets[:, None]).sum()
        (gradient_BTD,) = torch.autograd.grad(chosen, leaves[0])
        norms = gradient_BTD.norm(dim=-1).cpu().numpy()
        for row, i in enumerate(batch):
            seen = norms[row, : last[row] + 1]
            shares[i] = (seen / max(float(seen.sum()), 1e-12)) @ owners[starts[i] : asked[i] + 1]
    return shares[None, None, :, :-1].copy()


def _batches(order: Sequence[int], starts: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of notes, those read from the beginning apart from those with a state."""
    for group in ([i for i in order if not starts[i]], [i for i in order if starts[i]]):
        for first in range(0, len(group), BATCH_SIZE):
            yield group[first : first + BATCH_SIZE]


@torch.no_grad()
def _states(model: LanguageModel, ids: Tensor, features: Tensor | None, places: Sequence[int]) -> dict[int, State]:
    """Return the model's state before each of some positions; there is none before the first token."""
    found: dict[int, State] = {}
    state, begin = None, 0
    for place in places:
        if place > begin:
            given = None if features is None else features[:, begin:place]
            _, state = model(ids[:, begin:place], state, given)
            begin = place
            found[place] = copy_state(state)
    return found


def called(note: Note) -> str:
    """Return the name of a note's pitch, or of its drum."""
    return drum_name(note.pitch) if note.is_drum else pitch_name(note.pitch)


def picture(
    found: Attention,
    kind: str = ".png",
    *,
    note: int,
    layer: int = -1,
    heads: Sequence[int] | None = None,
    title: str = "",
) -> bytes:
    """Return a piano roll around a note with arcs to the notes it attends to, a colour per head, above the heads' matrices.

    Args:
        found: see `attention`.
        kind: ".png" or ".svg".
        note: its index.
        layer: the last if left out.
        heads: all if left out.
        title: above the picture.
    """
    notes = found.aligned.notes
    begin = max(0.0, notes[note].start - BEFORE)
    end = notes[note].start + BEHIND
    heads = list(range(found.shares.shape[1])) if heads is None else list(heads)
    shown = [_shown(n, is_chosen=i == note) for i, n in enumerate(notes) if n.end > begin and n.start < end]
    side = 2.1
    made, rooms = systems(
        found.aligned.score, shown, title=title, extra=side, span=(begin, end), first_bar=found.first_bar
    )
    lane, below = made.axes[0], rooms[0][0]
    assert below is not None
    for place, head in enumerate(heads):
        _arcs(lane, found, layer, head, note, place / max(1, len(heads)))
    below.set_axis_off()
    for rules in list(below.collections):
        rules.remove()
    bottom, top = lane.get_ylim()
    lane.set_ylim(bottom, top + 0.3 * (top - bottom))  # space for the arcs
    for place, head in enumerate(heads):
        width = 1 / max(len(heads), 5)
        inner = below.inset_axes((place * width, 0.0, width * 0.92, 0.84))
        _matrix(inner, found, layer, head, note)
        if not place:
            inner.set_ylabel("note chosen", fontsize=7)
    return to_bytes(made, kind)


def _shown(note: Note, *, is_chosen: bool) -> Drawn:
    """Return how a note of the piano roll looks: black if it is the chosen one, else pale."""
    return Drawn(
        start=note.start,
        end=note.end,
        pitch=note.pitch,
        is_drum=note.is_drum,
        colour="#111111" if is_chosen else paler(colour(note.track), 0.4),
        opacity=1.0 if is_chosen else 0.5,
    )


def _matrix(inner: Axes, found: Attention, layer: int, head: int, note: int) -> None:
    """Plot the matrix of one head, with a line at the chosen note."""
    own = HEADS[head % len(HEADS)]
    shares = found.shares[layer, head] ** 0.5
    inner.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    inner.axhline(note, color=own, lw=0.8)
    inner.set_title(f"head {head + 1}" if found.by == "attention" else "gradient", fontsize=8, color=own)
    inner.tick_params(labelsize=6, length=0)
    inner.set_xlabel("note looked at", fontsize=7)


def matrices(found: Attention, kind: str = ".png", *, title: str = "") -> bytes:
    """Return the matrices of all layers and heads: rows are predicted notes, columns attended notes; darker is more."""
    num_layers, num_heads = found.shares.shape[:2]
    made = figure(max(4.0, 2.1 * num_heads), 2.2 * num_layers + 0.5)
    made.suptitle(title, fontsize=10)
    parts = made.subplots(num_layers, num_heads, squeeze=False, sharex=True, sharey=True)
    for (layer, head), lane in np.ndenumerate(parts):
        lane.imshow(found.shares[layer, head] ** 0.5, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
        lane.set_title(f"layer {layer + 1}, head {head + 1}" if found.by == "attention" else "gradient", fontsize=8)
        lane.tick_params(labelsize=6, length=0)
    made.supxlabel("note looked at", fontsize=8)
    made.supylabel("note chosen", fontsize=8)
    return to_bytes(made, kind)


def _arcs(lane: Axes, found: Attention, layer: int, head: int, note: int, turn: float) -> None:
    """Plot the arcs of one head from a note, bent a little more than those of the head before."""
    from matplotlib.patches import FancyArrowPatch

    notes = found.aligned.notes
    here = notes[note]
    for other in np.argsort(-found.shares[layer, head, note])[:MOST_ARCS]:
        share, there = float(found.shares[layer, head, note, other]), notes[other]
        if share < LEAST_SHARE or there.is_drum != here.is_drum:
            continue
        bend = -0.12 - 0.16 * turn
        lane.add_patch(
            FancyArrowPatch(
                (here.start, here.pitch),
                ((there.start + min(there.end, here.start)) / 2, there.pitch),
                connectionstyle=f"arc3,rad={-bend if there.start < here.start else bend}",
                arrowstyle="-",
                color=HEADS[head % len(HEADS)],
                alpha=min(1.0, 0.25 + share),
                linewidth=0.6 + 9 * share,
                zorder=4,
            )
        )


def page(
    found: Attention, *, name: str, title: str, note: int, layer: int = -1, heads: Sequence[int] | None = None
) -> str:
    """Return a self-contained HTML page: the piano roll and its arcs, to be scrolled through in time.

    Args:
        found: see `attention`.
        name: of the model.
        title: of the page.
        note: the index of the note that is selected first.
        layer: the layer that is shown first.
        heads: the heads that are shown first; all if left out.
    """
    num_layers, num_heads, num_notes, _ = found.shares.shape
    last = max(n.end for n in found.aligned.notes)
    lines = []
    for bar in midi.bars(found.aligned.score):
        lines.append([bar.start, f"{bar.numerator}/{bar.denominator}"])
        if bar.start >= last:
            break
    data = {
        "title": title,
        "model": name,
        "by": found.by,
        "left": found.num_left,
        "first": found.first_bar,
        "note": note,
        "layer": layer % num_layers,
        "heads": list(range(num_heads) if heads is None else heads),
        "colours": [HEADS[h % len(HEADS)] for h in range(num_heads)],
        "tracks": [
            [track_name(t), paler(colour(i), 0.35)]
            for i, t in enumerate(t for t in found.aligned.score.tracks if t.notes)
        ],
        "bars": lines,
        "notes": [
            [round(n.start, 4), round(n.end, 4), n.pitch, n.track, int(n.is_drum), called(n)]
            for n in found.aligned.notes
        ],
        "arcs": [
            [[_most(found.shares[la, h, n]) for n in range(num_notes)] for h in range(num_heads)]
            for la in range(num_layers)
        ],
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    template = resources.files(__package__).joinpath("attention.html").read_text("utf-8")
    return template.replace("/*DATA*/null", text)


def _most(shares: np.ndarray) -> list[int]:
    """Return the largest shares of a note, flat: the other note's index, then its share in thousandths."""
    found: list[int] = []
    for other in np.argsort(-shares, kind="stable")[:MOST_ARCS].tolist():
        if shares[other] >= LEAST_SHARE:
            found += [other, round(float(shares[other]) * 1000)]
    return found
