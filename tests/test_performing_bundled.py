"""The performers of the repository: their sizes, cards and licences, and what they do to a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musiclm import midi
from musiclm.checkpoint import card as cards
from musiclm.checkpoint.install import is_noncommercial
from musiclm.checkpoint.model_file import PERFORMER, bundled_models, read_model
from musiclm.performing.model import DRUMS, PIANO, Performer
from musiclm.performing.render import Expression, perform

ROOT = Path(__file__).parents[1]
FILES = {
    PIANO: ROOT / "checkpoints" / "noncommercial" / "performer-piano.safetensors",
    DRUMS: ROOT / "checkpoints" / "performer-drums.safetensors",
}
MOST = {PIANO: 3e6, DRUMS: 1.5e6}  # bytes


@pytest.mark.parametrize("kind", [PIANO, DRUMS])
def test_a_performer_is_small_and_has_a_card(kind: str):
    file = read_model(FILES[kind], role=PERFORMER)
    assert file.kind == kind and file.path.stat().st_size < MOST[kind]
    assert file.path.with_suffix(".md").read_text("utf-8") == cards.model_page(file, file.path.stem)
    assert {"data", "licence", "command", "figures"} <= set(file.card)
    assert is_noncommercial(file.card["licence"]) == (kind == PIANO)


def test_the_drums_alone_come_with_the_package():
    assert bundled_models(PERFORMER) == ["performer-drums"]


def test_drums_get_velocities_and_small_deviations_and_the_keyboard_stays(run):
    path = ROOT / "examples" / "rhythm-best.mid"
    code, _, err = run("perform", path, "--seed", 1, "-o", "played.mid")
    assert code == 0 and "keyboard stays as it is" in err
    before, after = (midi.read(str(p)).to("second") for p in (path, "played.mid"))
    for one, other in zip(before.tracks, after.tracks, strict=True):
        times = [np.array(sorted((n.pitch, n.time) for n in t.notes)) for t in (one, other)]
        assert not len(one.notes) or np.abs(times[0] - times[1]).max() < (0.2 if one.is_drum else 2e-3)
    drums = next(t for t in after.tracks if t.is_drum)
    assert len({n.velocity for n in drums.notes}) > 10


def test_the_piano_plays_a_song_louder_and_softer_faster_and_slower():
    score = midi.read(str(ROOT / "examples" / "lied.mid"))
    played = perform(score, {PIANO: Performer.load(FILES[PIANO])}, Expression(seed=1))
    piano = [n for t in played.tracks[1:] for n in t.notes]
    assert np.std([n.velocity for n in piano]) > 4
    assert midi.seconds(played) == pytest.approx(midi.seconds(score), rel=0.2)
