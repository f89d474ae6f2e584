"""The attention of a target's notes to those of its source: the matrix, its picture, its page, the command."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Note, Score, TimeSignature, Track

from musiclm import checkpoint, midi, tokenizers
from musiclm.errors import CheckpointError, MidiError
from musiclm.models.layers.cross_attention import CrossAttention, record_weights
from musiclm.models.seq2seq import Seq2SeqModel
from musiclm.plotting import alignment, alignment_plot
from musiclm.tokenizers.score_pairs import ScorePairs
from tests.conftest import tiny

TOKENIZER = tokenizers.create("score-pairs")
assert isinstance(TOKENIZER, ScorePairs)
SIZES = {
    "seq2seq_transformer": {"num_encoder_layers": 1, "num_heads": 3, "size": 12, "context": 512},
    "seq2seq_gru": {"comparison": 8},
}


def model_of(arch: str = "seq2seq_transformer", **config: object) -> Seq2SeqModel:
    model = tiny(arch, TOKENIZER.vocab_size, **TOKENIZER.model_config, **{**SIZES[arch], **config})
    assert isinstance(model, Seq2SeqModel)
    return model


def found_in(score: Score, names: str | None = None, arch: str = "seq2seq_transformer", bars=None):
    return alignment.alignment(model_of(arch), TOKENIZER, score, alignment.split(score, names), bars)


def canon(num_bars: int = 4) -> Score:
    """Return two voices that play the same rhythm, one an octave above the other."""
    score = Score(480)
    score.time_signatures.append(TimeSignature(0, 4, 4))
    upper, lower = Track("Melody", 73), Track("Bass part", 32)
    for i in range(4 * num_bars):
        pitch = 60 + (i * 7) % 12
        upper.notes.append(Note(480 * i, 480, pitch + 12, 90))
        lower.notes.append(Note(480 * i, 480, pitch, 90))
    score.tracks.extend([upper, lower])
    return score


@pytest.mark.parametrize("arch", SIZES)
def test_shares_are_the_weights_at_the_ids_that_predict_pitches(song, arch: str):
    model = model_of(arch)
    sides = alignment.split(song, "Tune")
    found = alignment.alignment(model, TOKENIZER, song, sides)
    num_layers, num_heads = (2, 3) if arch == "seq2seq_transformer" else (1, 1)
    assert found.shares.shape == (num_layers, num_heads, 48, 24)
    assert found.of_bars.shape == (num_layers, num_heads, 48, 8)
    source, target = (torch.from_numpy(side.ids)[None] for side in (found.source, found.target))
    state = model.start(source, TOKENIZER.features(source)[0])
    layers = record_weights(model, lambda: model.encode(target, state, TOKENIZER.features(target)[0]))
    header = int(TOKENIZER.bar_starts(found.source.ids)[0])
    for layer, head, note in ((0, 0, 5), (num_layers - 1, num_heads - 1, 40)):
        weights = layers[layer][0, head, found.target.notes[note].said - 1].detach().numpy()
        for other in (0, 9, 23):
            own = np.flatnonzero(found.source.owner[:, 0] == other)
            own = own[(own >= header) & ~np.isin(own, bar_ids(found.source.ids))]
            assert found.shares[layer, head, note, other] == pytest.approx(weights[own].sum(), abs=1e-6)
        of_none = weights[:header].sum() + weights[-1]
        total = found.shares[layer, head, note].sum() + found.of_bars[layer, head, note].sum() + of_none
        assert total == pytest.approx(1, abs=1e-5)


def bar_ids(ids: np.ndarray) -> np.ndarray:
    return (TOKENIZER.bar_starts(ids)[:-1, None] + np.arange(6)).ravel()


def test_a_model_that_reads_note_by_note_has_a_diagonal(monkeypatch):
    """Both sides have the same ids but for pitches, and the weights at each id are on the next id of the source."""

    def weights(self, x_BTD, keys_BHSE, values_BHSE, mask_BS):
        found = torch.zeros(len(x_BTD), self.num_heads, x_BTD.shape[1], keys_BHSE.shape[2])
        at = torch.arange(x_BTD.shape[1])
        found[:, :, at, (at + 1).clamp(max=keys_BHSE.shape[2] - 1)] = 1
        return found

    monkeypatch.setattr(CrossAttention, "weights", weights)
    found = found_in(canon())
    assert len(found.source.ids) == len(found.target.ids)
    np.testing.assert_array_equal(found.shares[0, 0], np.eye(16))
    matrix, columns = alignment_plot._matrix(found, 0, None)
    assert [column for column in columns if column[1] is None] == [(bar, None) for bar in range(4)]
    assert [columns[i] for i in matrix.argmax(1)] == [(i // 4, i) for i in range(16)]


def test_the_clearest_layer_attends_to_what_sounds_at_the_same_time():
    found = found_in(canon())
    far, near = np.roll(np.eye(16), 8, 1), np.eye(16)
    shares = np.stack([far, 0.5 * near + 0.5 * far, 0.2 * near + 0.8 * far])[:, None]
    assert alignment.Alignment(**{**vars(found), "shares": shares}).clearest() == 1


@pytest.mark.parametrize(
    ("names", "source", "is_melody"),
    [(None, ["Tune"], False), ("Chords", ["Chords"], False), ("1,drums", ["Tune", "Drums"], False)],
)
def test_the_named_tracks_are_the_source_and_the_others_the_target(song, names, source: list[str], is_melody: bool):
    song.tracks[0].name = "Tune"
    if names is None:
        source, names = ["Chords"], "piano"
    sides = alignment.split(song, names)
    assert [t.name for t in sides.source.tracks] == source
    assert sorted(t.name for t in [*sides.source.tracks, *sides.target.tracks]) == ["Chords", "Drums", "Tune"]
    assert sides.is_melody is is_melody


def test_melody_is_the_track_of_that_name_or_what_is_found(song):
    for names in (None, "melody"):
        sides = alignment.split(song, names)
        assert sides.is_melody
        pitches = [n.pitch for t in sides.source.tracks for n in t.notes]
        assert min(pitches) >= 72 and len(pitches) == 24  # the tune is the skyline
        assert sides.target.note_num() == song.note_num() - 24
    song.tracks[1].name = "Second melody"
    assert [t.name for t in alignment.split(song, "melody").source.tracks] == ["Second melody"]


def test_bars_are_those_of_the_piece_and_at_most_as_many_as_were_trained_on(song, monkeypatch):
    found = found_in(song, bars=(3, 5))
    assert (found.first_bar, found.num_left, len(found.bars)) == (3, 0, 3)
    assert len(found.source.notes) == 9
    assert found.target.notes[found.at(4, 2.0)].start == pytest.approx(4)
    assert found.bar_of(3.0) == 1
    whole = found_in(canon(40))
    assert (len(whole.bars), whole.num_left) == (32, 8)
    monkeypatch.setattr(alignment, "MAX_NOTES", 30)
    cut = found_in(song)
    assert max(len(cut.source.notes), len(cut.target.notes)) <= 30
    assert len(cut.bars) + cut.num_left == 8 and len(cut.bars) == 5
    monkeypatch.setattr(alignment, "MAX_NOTES", 2)
    assert len(found_in(song).bars) == 1


def test_silent_bars_of_the_source_have_columns():
    score = canon()
    score.tracks[0].notes = type(score.tracks[0].notes)([n for n in score.tracks[0].notes if n.time >= 8 * 480])
    found = found_in(score, "1")
    assert found.of_bars.shape[-1] == 4
    _, columns = alignment_plot._matrix(found, 0, [0])
    assert columns[:4] == [(0, None), (1, None), (2, None), (2, 0)]


def test_what_cannot_be_aligned_is_refused(song):
    drums = song.copy()
    drums.tracks = type(song.tracks)([t for t in song.tracks if t.is_drum])
    tune = song.copy()
    tune.tracks = type(song.tracks)([song.tracks[0]])
    for score, names, message in (
        (song, "organ", "no track 'organ': there are 1 Tune, 2 Chords"),
        (drums, None, "no melody"),
        (drums, "melody", "no melody"),
        (tune, None, "nothing is left as the target"),
        (song, "1,2,drums", "nothing is left as the target"),
    ):
        with pytest.raises(MidiError, match=message):
            alignment.split(score, names)
    with pytest.raises(MidiError, match="no bar 9: the piece has 8"):
        found_in(song, bars=(9, 9))
    late = canon()
    late.tracks[0].notes = type(late.tracks[0].notes)([n for n in late.tracks[0].notes if n.time >= 8 * 480])
    with pytest.raises(MidiError, match="the source has no note in bars 1 to 2"):
        found_in(late, "1", bars=(1, 2))
    deaf = model_of("seq2seq_gru", attention=0)
    with pytest.raises(CheckpointError, match="no attention to its source"):
        alignment.alignment(deaf, TOKENIZER, song, alignment.split(song))


def test_a_side_whose_notes_have_no_tokens_is_refused():
    score = canon()
    score.tracks.append(Track("Kit", 0, True))
    score.tracks[-1].notes.append(Note(0, 60, 5, 80))  # no drum of General MIDI
    with pytest.raises(MidiError, match="'score-pairs' has no note of the source in bars 1 to 4"):
        found_in(score, "Kit")


def test_pictures_are_the_same_each_time_and_name_notes_bars_and_tracks(song):
    found = found_in(song, "Tune", bars=(3, 6))
    image = alignment_plot.picture(found, ".svg", title="song")
    assert image == alignment_plot.picture(found, ".svg", title="song")
    written = re.findall(r"<text[^>]*>([^<]*)</text>", image.decode())
    assert {"source: Tune", "target: Chords", "target: Drums", "source note", "target note"} <= set(written)
    assert {"3", "4", "5", "6", "C5", "kick"} <= set(written)
    assert written.count("C3") >= 4  # of each chord
    assert alignment_plot.picture(found, layer=1, heads=[0, 2]).startswith(b"\x89PNG")
    assert alignment_plot.picture(found, ".svg", layer=1) != alignment_plot.picture(found, ".svg", layer=0)
    assert alignment_plot.matrices(found, ".svg").decode().count("layer 2, head") == 3


def test_names_of_many_notes_are_thinned():
    found = found_in(canon(32))
    written = re.findall(r"<text[^>]*>([A-G][♯♭]?\d)</text>", alignment_plot.picture(found, ".svg").decode())
    fitting = (alignment_plot.WIDTHS[1] + alignment_plot.HEIGHTS[1]) / alignment_plot.LABEL
    assert 60 < len(written) < fitting


def test_the_page_needs_nothing_else_and_holds_any_name(song):
    song.tracks[0].name = "</script><b>Ä & co"
    found = found_in(song, "1")
    page = alignment_plot.page(found, name="m", title="<img src=x>", note=found.at(3))
    assert not re.search(r"https?:|src=[^x]|@import|url\(|<link", page)
    assert page.count("</script>") == 1 and "<b>" not in page and "<img" not in page
    data = json.loads(re.search(r"const data = (.*);\n", page)[1])
    assert data["tracks"][0][:2] == ["source", "</script><b>Ä & co"]
    assert (len(data["source"]), len(data["target"]), len(data["bars"])) == (24, 48, 8)
    assert {n[3] for n in data["source"]} == {0} and {n[3] for n in data["target"]} == {1, 2}
    for layer, head in np.ndindex(found.shares.shape[:2]):
        packed = np.frombuffer(base64.b64decode(data["shares"][layer][head]), np.uint8).reshape(48, 24)
        np.testing.assert_allclose((packed / 255) ** 2, found.shares[layer, head], atol=0.004)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the paths of untrained checkpoints: of a transformer, and of a recurrent model without attention."""
    paths = {}
    for name, arch, config in (("heads", "seq2seq_transformer", {}), ("deaf", "seq2seq_gru", {"attention": 0})):
        path = tmp_path_factory.mktemp("seq2seq") / f"{name}.safetensors"
        card = {"data": "nothing", "figures": {}}
        checkpoint.save(path, model_of(arch, **config), arch=arch, tokenizer=TOKENIZER, card=card)
        paths[name] = str(path)
    return paths


def test_the_command_writes_pages_and_pictures(run, song_file, saved):
    model = ("--model", saved["heads"])
    assert run("attention", song_file, *model)[:2] == (0, "song.html\n")
    page = Path("song.html").read_text("utf-8")
    assert '"source":[[0.0,' in page
    code, out, err = run(
        "attention", song_file, *model, "--keep-tracks", "Chords,drums", "-o", "a.png", "--heads", "1,3"
    )
    assert (code, out, err) == (0, "a.png\n", "")
    code, _, err = run("attention", song_file, *model, "--bars", "3-4", "--layer", 2, "-o", "a.svg")
    assert code == 0, err
    assert "layer 2 of 2, mean of heads 1, 2, 3" in Path("a.svg").read_text("utf-8")
    assert run("attention", song_file, *model, "--matrices", "-o", "m.png")[0] == 0
    assert run("attention", song_file, *model, "--at", "3:2", "-o", "at.html")[0] == 0
    long = Path("long.mid")
    midi.write(canon(40), long)
    assert "only bars 1 to 32 are plotted" in run("attention", long, *model)[2]


def test_bad_input_is_one_line(run, song_file, saved, untrained):
    for arguments, said in (
        (["--model", saved["heads"], "--keep-tracks", "organ"], "no track 'organ'"),
        (["--model", saved["heads"], "--keep-tracks", "1,2,3"], "nothing is left as the target"),
        (["--model", saved["heads"], "--bars", "90"], "no bar 90"),
        (["--model", saved["deaf"]], "no attention to its source"),
        (["--model", untrained("score"), "--keep-tracks", "Tune"], "--keep-tracks is for models of kind seq2seq"),
    ):
        code, out, err = run("attention", song_file, *arguments, "-o", "x.png")
        assert (code, out) == (1, ""), arguments
        assert err.startswith("Error: ") and err.count("\n") == 1, err
        assert said in err
        assert not Path("x.png").exists()
    for arguments in (["--layer", 3], ["--heads", "4"], ["--at", "9"], ["--at", "2", "-o", "x.png"]):
        assert run("attention", song_file, "--model", saved["heads"], *arguments)[0] == 2, arguments
