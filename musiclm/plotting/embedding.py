"""The embeddings of a model's pitch tokens in two dimensions, by principal components."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TokenizerError
from ..models.base import LanguageModel
from ..tokenizers import vocabulary
from ..tokenizers.base import Tokenizer
from . import PITCHES, figure, pitch_name, to_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANGE = (40, 79)  # E2 to G5, the range of nearly all music; embeddings of rare pitches are hardly trained
FARTHEST = 24  # semitones


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pitches:
    """The embeddings of a model's pitch tokens.

    Attributes:
        pitches: MIDI pitches, ascending, (N,).
        places: coordinates on the first three principal components, (N, 3).
        explained: share of the variance of each of these three.
        likeness: for 1 … `FARTHEST` semitones, the mean cosine of two centred embeddings that many semitones apart.
    """

    pitches: np.ndarray
    places: np.ndarray
    explained: np.ndarray
    likeness: np.ndarray


def pitch_ids(tokenizer: Tokenizer) -> dict[int, int]:
    """Return the id of each pitch; of tokenizers with note-on and note-off the former.

    Raises:
        TokenizerError: no id of this tokenizer is one pitch.
    """
    found = vocabulary.pitch_ids(tokenizer.vocabulary)
    if not found:
        raise TokenizerError(f"no id of the tokenizer '{tokenizer.name}' is one pitch: nothing can be drawn")
    return found


def arrange(model: LanguageModel, tokenizer: Tokenizer, lowest: int = RANGE[0], highest: int = RANGE[1]) -> Pitches:
    """Return the principal components of the embeddings of a model's pitch tokens.

    Args:
        model: any.
        tokenizer: the model's.
        lowest, highest: MIDI pitches, at least an octave apart.

    Raises:
        TokenizerError: see `pitch_ids`, or fewer than twelve pitches in the range.
    """
    ids = pitch_ids(tokenizer)
    pitches = np.array(sorted(p for p in ids if lowest <= p <= highest))
    if len(pitches) < 12:
        raise TokenizerError(
            f"'{tokenizer.name}' has {len(pitches)} pitches from {lowest} to {highest}: take an octave"
        )
    vectors = model.token_embeddings().detach().float().cpu().numpy()[[ids[int(p)] for p in pitches]]
    vectors = vectors - vectors.mean(0)
    left, strengths, _ = np.linalg.svd(vectors, full_matrices=False)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    cosines = unit @ unit.T
    likeness = [float(np.diagonal(cosines, apart).mean()) for apart in range(1, min(FARTHEST + 1, len(pitches)))]
    return Pitches(
        pitches=pitches,
        places=(left * strengths)[:, :3],
        explained=(strengths**2 / (strengths**2).sum())[:3],
        likeness=np.array(likeness),
    )


def document(found: Pitches) -> dict[str, Any]:
    """Return the JSON of `musiclm embedding --json`, except the model's name."""
    return {
        "explained": found.explained.tolist(),
        "likeness_by_semitones": found.likeness.tolist(),
        "pitches": [
            {"pitch": int(p), "place": place.tolist()} for p, place in zip(found.pitches, found.places, strict=True)
        ],
    }


def picture(found: Pitches, kind: str = ".png", *, title: str = "") -> bytes:
    """Return the pitches on the first and on the second and third components, beside their likeness by interval.

    Colours go round the circle of fifths, so that pitches a fifth apart have neighbouring ones and octaves the same.
    """
    made = figure(14, 5.0)
    made.suptitle(title, fontsize=11)
    first, second, by_interval = made.subplots(1, 3)
    _scatter(first, found, 0, 1)
    _scatter(second, found, 1, 2)
    apart = np.arange(1, len(found.likeness) + 1)
    named = {7: "#e08e1b", 19: "#e08e1b", 12: "#d62839", 24: "#d62839"}
    by_interval.bar(apart, found.likeness, color=[named.get(int(a), "#9aa5b5") for a in apart])
    by_interval.axhline(0, color="#555555", lw=0.7)
    by_interval.set_xticks(
        [5, 7, 12, 17, 19, 24], ["fourth", "fifth", "octave", "", "twelfth", "two\noctaves"], fontsize=7
    )
    by_interval.set_title("mean cosine of two pitches, by semitones between them", fontsize=9)
    by_interval.tick_params(labelsize=7)
    for lane in (first, second, by_interval):
        for side in ("top", "right"):
            lane.spines[side].set_visible(False)
    return to_bytes(made, kind)


def _scatter(lane: Axes, found: Pitches, across: int, up: int) -> None:
    from matplotlib import colormaps

    circle = colormaps["hsv"]
    x, y = found.places[:, across], found.places[:, up]
    lane.plot(x, y, color="#d5d9e0", lw=0.8, zorder=1)
    for pitch, px, py in zip(found.pitches.tolist(), x, y, strict=True):
        of = circle((pitch * 7 % 12) / 12)
        lane.scatter([px], [py], s=80, color=[of], alpha=0.55, linewidths=0, zorder=2)
        name = pitch_name(pitch) if pitch % 12 == 0 else PITCHES[pitch % 12]
        lane.annotate(name, (px, py), fontsize=7, ha="center", va="center", zorder=3)
    lane.set_xlabel(f"component {across + 1} ({found.explained[across]:.0%})", fontsize=8)
    lane.set_ylabel(f"component {up + 1} ({found.explained[up]:.0%})", fontsize=8)
    lane.set_title("pitch tokens; the line rises by semitones", fontsize=9)
    lane.tick_params(labelsize=7)
