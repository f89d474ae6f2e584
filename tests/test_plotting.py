"""Piano rolls, surprise, attention and embeddings."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import TextMeta

from musiclm import checkpoint, evaluation, midi, plotting, tokenizers
from musiclm.data import Piece
from musiclm.errors import OutputError, TokenizerError
from musiclm.plotting import attention, embedding, piano_roll, surprise, terminal_roll
from musiclm.plotting.notes import align
from tests.conftest import tiny

PNG = b"\x89PNG\r\n"
ONE_NOTE_AN_ID = ("score", "performance", "grid", "TSD", "MIDILike", "Structured", "PerTok", "MMM")


@pytest.mark.parametrize("name", ONE_NOTE_AN_ID)
def test_every_note_has_its_ids_and_no_id_is_forgotten(song, name: str):
    tokenizer = tokenizers.create(name)
    found = align(tokenizer, song)
    decoded = tokenizer.decode(found.ids)
    assert len(found.notes) == decoded.note_num()
    assert sorted(n.pitch for n in found.notes) == sorted(n.pitch for t in decoded.tracks for n in t.notes)
    owned = set(found.owner.ravel().tolist())
    assert set(range(len(found.notes))) <= owned
    assert all(found.owner[n.said, 0] == i for i, n in enumerate(found.notes))
    values = np.random.default_rng(0).random(len(found.ids))
    of_none = values[(found.owner < 0).all(1)].sum()
    assert found.by_note(values).sum() + of_none == pytest.approx(values.sum())
    if name != "grid":  # whose four voices are not the song's tracks
        starts = sorted(
            (n.time / song.ticks_per_quarter, n.pitch) for t in song.tracks for n in t.notes if not t.is_drum
        )
        assert [(pytest.approx(n.start, abs=0.02), n.pitch) for n in found.notes if not n.is_drum] == starts


def test_merged_ids_are_shared_among_their_notes(song):
    base = tokenizers.create("score")
    merged = base.trained_bpe([base.encode(song)[0]], 30)
    plain, found = align(base, song), align(merged, song)
    assert len(found.ids) < len(plain.ids)
    assert [(n.start, n.pitch) for n in found.notes] == [(n.start, n.pitch) for n in plain.notes]
    assert found.by_note(np.ones(len(found.ids))).min() > 0


def test_a_tokenizer_whose_ids_are_no_notes_is_refused_in_a_line(song):
    with pytest.raises(TokenizerError, match="do not say one note each"):
        align(tokenizers.create("BEAT"), song)


@pytest.mark.parametrize("name", ["score", "performance", "grid"])
def test_the_notes_surprise_is_the_pieces(song, name: str):
    tokenizer = tokenizers.create(name)
    model = tiny("gru", tokenizer.vocab_size, **tokenizer.model_config)
    found = surprise.surprise(model, tokenizer, song)
    ids = tokenizer.encode(song)[0]
    ((_, nats),) = evaluation.token_losses(model, tokenizer, [Piece(name="", tokens=ids, num_notes=0, seconds=0.0)])
    assert found.nats.sum() + found.elsewhere == pytest.approx(nats.sum())
    assert (found.nats > 0).all()
    assert surprise.picture(found).startswith(PNG)


def test_a_wrong_note_is_the_most_surprising():
    """In a hymn, to the model of chorales."""
    hymn = midi.read(Path(__file__).parents[1] / "examples" / "hymn.mid")
    track = hymn.tracks[0]
    wrong = track.notes[20].copy()
    wrong.pitch += 6
    track.notes[20] = wrong
    loaded = checkpoint.load("bach-transformer")
    found = surprise.surprise(loaded.model(), loaded.tokenizer(), hymn)
    when = wrong.time / hymn.tpq
    there = next(i for i, n in enumerate(found.heard.notes) if abs(n.start - when) < 0.1 and n.pitch == wrong.pitch)
    assert there in np.argsort(-found.nats)[:3]


@pytest.mark.parametrize("arch", ["transformer", "gru", "lstm", "rnn"])
def test_no_note_looks_at_one_to_come_and_shares_add_up(song, arch: str):
    tokenizer = tokenizers.create("score")
    model = tiny(
        arch, tokenizer.vocab_size, **tokenizer.model_config, **({"context": 64} if arch == "transformer" else {})
    )
    found = attention.attention(model, tokenizer, song)
    said = np.array([n.said for n in found.aligned.notes])
    assert found.by == ("attention" if arch == "transformer" else "gradient")
    assert (found.shares >= 0).all()
    assert (found.shares.sum(-1) <= 1 + 1e-5).all()
    assert found.shares.sum(-1).max() > 0.5
    assert found.shares[:, :, said[:, None] < said[None]].max() == 0


def test_attention_is_that_of_the_weights():
    """Asked with other values, attention gives its weights: those of a softmax by hand, in the first layer."""
    from musiclm.models import transformer

    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    distances = torch.randn(2, 5, 4)
    asked = transformer.relative_attention(q, k, torch.eye(9).expand(1, 2, 9, 9), distances)
    for t in range(9):
        seen = range(max(0, t - 4), t + 1)
        by_hand = torch.stack(
            [(q[0, :, t] * (k[0, :, s] + distances[:, t - s])).sum(-1) / 2 for s in seen], -1
        ).softmax(-1)
        torch.testing.assert_close(asked[0, :, t, seen.start : t + 1], by_hand)


def test_gradients_taken_together_and_by_windows_are_those_of_each_alone(song, monkeypatch):
    tokenizer = tokenizers.create("score")
    model = tiny("gru", tokenizer.vocab_size, **tokenizer.model_config)
    found = align(tokenizer, song)
    monkeypatch.setattr(attention, "LOOKED_BACK", 24)
    shares = attention.by_gradient(model, tokenizer, found)[0, 0]
    ids = torch.from_numpy(found.ids)[None]
    features, _ = tokenizer.features(ids)
    for i in (0, 3, 40, len(found.notes) - 1):
        place = found.notes[i].said - 1
        embedded = model.embedding(ids[:, : place + 1], features[:, : place + 1]).detach().requires_grad_()
        y, _ = model._run(embedded, None)
        logit = model.head(model.norm(y), features[:, : place + 1])[0, place].log_softmax(-1)[ids[0, place + 1]]
        norms = torch.autograd.grad(logit, embedded)[0][0].norm(dim=-1).numpy().copy()
        norms[: max(0, place - 23)] = 0
        owner = found.owner[: place + 1, 0]
        by_note = np.bincount(owner[owner >= 0], norms[owner >= 0], len(found.notes)) / norms.sum()
        np.testing.assert_allclose(shares[i], by_note, atol=1e-5)


def test_the_page_needs_nothing_else_and_holds_any_name(song):
    tokenizer = tokenizers.create("score")
    found = attention.attention(
        tiny("transformer", tokenizer.vocab_size, context=64, **tokenizer.model_config), tokenizer, song
    )
    song_name = "</script><b>Ä & co"
    page = attention.page(found, name="m", title=song_name, note=5)
    assert not re.search(r"https?:|src=|@import|url\(|<link", page)
    assert page.count("</script>") == 1
    data = json.loads(re.search(r"const data = (.*);\n", page)[1])
    assert data["title"] == song_name
    assert len(data["notes"]) == song.note_num()
    assert all(other != 3 and share >= 10 for other, share in zip(*[iter(data["arcs"][0][0][3])] * 2, strict=True))
    assert attention.picture(found, note=found.at(3)).startswith(PNG)
    assert attention.matrices(found, ".svg").lstrip().startswith(b"<?xml")


def test_a_longer_piece_is_cut_and_it_is_told(song, monkeypatch):
    monkeypatch.setattr(attention, "MAX_NOTES", 30)
    tokenizer = tokenizers.create("score")
    found = attention.attention(tiny("gru", tokenizer.vocab_size, **tokenizer.model_config), tokenizer, song)
    assert 24 <= len(found.aligned.notes) <= 30
    assert found.num_left == song.note_num() - len(found.aligned.notes)


def test_octaves_and_fifths_are_seen_in_bundled_models():
    loaded = checkpoint.load("score")
    likeness = embedding.arrange(loaded.model(), loaded.tokenizer()).likeness
    assert np.argmax(likeness) == 11
    assert embedding.picture(embedding.arrange(loaded.model(), loaded.tokenizer())).startswith(PNG)


@pytest.mark.parametrize("kind", [".png", ".svg"])
def test_a_roll_is_a_picture_and_the_same_each_time(song, kind: str):
    first = piano_roll.piano_roll(song, kind, prompt=6.0, title="song")
    assert first == piano_roll.piano_roll(song, kind, prompt=6.0, title="song")
    assert first.startswith(PNG) if kind == ".png" else b"Tune" in first


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_a_roll_is_wider_than_the_terminal_and_every_note_is_in_it(song, width: int):
    drawn = piano_roll.notes(song)
    lines = [line for system in terminal_roll.terminal_roll(song, drawn, width) for line in system.lines]
    assert max(sum(len(run.text) for run in line) for line in lines) <= width
    if width >= 80:
        shown = "".join(run.text for line in lines for run in line)
        num_drums = sum(n.is_drum for n in drawn)
        assert shown.count("●") == num_drums
        assert {run.colour for line in lines for run in line if run.colour} == {n.colour for n in drawn}


def test_where_a_prompt_ended_is_read_from_the_file(song):
    assert plotting.prompt_end(song) is None
    for told, end in (
        ('{"musiclm": "1", "prompt": "ab", "options": {"prompt_bars": 2}}', 6.0),
        ('{"musiclm": "1", "prompt": "ab", "prompt_quarters": 4.5, "options": {}}', 4.5),
        ('{"musiclm": "1", "prompt": null, "options": {}}', None),
        ('{"musiclm": "1", "prompt": "ab", "options": {"only_new": true, "prompt_bars": 2}}', None),
        ("[1, 2]", None),
        ("refrain", None),
    ):
        song.markers = type(song.markers)([TextMeta(0, told)])
        assert plotting.prompt_end(song) == end, told


def test_where_an_installation_lacks_matplotlib_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    with pytest.raises(OutputError, match="pip install matplotlib"):
        plotting.check_output(tmp_path / "a.png")
    plotting.check_output(tmp_path / "a.html", kinds=(".html",))


def test_the_commands_draw_files_and_print(run, song_file, untrained):
    code, out, err = run("show", song_file)
    assert code == 0, err
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert "Tune" in out
    assert run("show", song_file, "-o", "song.svg", "--bars", "2-3")[:2] == (0, "song.svg\n")
    model = untrained("score")
    code, out, err = run("surprise", song_file, "--model", model, "--json", "-o", "s.png")
    assert code == 0, err
    document = json.loads(out)
    assert document["num_notes"] == len(document["notes"]) == 72
    assert document["notes"][0].keys() == {"bar", "beat", "start", "end", "pitch", "velocity", "track", "nats"}
    assert [n["bar"] for n in document["notes"]] == sorted(n["bar"] for n in document["notes"])
    code, out, err = run("surprise", song_file, "--model", model, "--bars", "3-4", "--json")
    assert {n["bar"] for n in json.loads(out)["notes"]} == {3, 4}
    assert run("show", song_file, "--bars", "3-4")[1].split()[:3] == ["3", "3/4", "4"]
    code, out, err = run("surprise", song_file, "--model", model)
    assert code == 0, err
    assert "least expected" in out
    assert run("attention", song_file, "--model", model)[:2] == (0, "song.html\n")
    assert run("attention", song_file, "--model", model, "-o", "a.png", "--at", "3:2")[0] == 0
    assert run("embedding", "--model", model)[:2] == (0, "embedding.png\n")
    assert all(Path(p).stat().st_size > 1000 for p in ("song.svg", "s.png", "song.html", "a.png", "embedding.png"))


def test_bad_input_is_one_line_and_wrong_usage_is_said(run, tmp_path, song, song_file, untrained):
    (tmp_path / "text.mid").write_text("I am a text")
    drums = song.copy()
    drums.tracks = type(song.tracks)([t for t in song.tracks if t.is_drum])
    midi.write(drums, tmp_path / "drums.mid")
    model = untrained("grid")
    for arguments in (
        ["show", "text.mid"],
        ["show", "nowhere.mid"],
        ["show", song_file, "-o", "a.jpeg"],
        ["show", song_file, "-o", "nowhere/a.png"],
        ["show", song_file, "--bars", "90"],
        ["surprise", "drums.mid", "--model", model],
        ["surprise", song_file, "--model", "nope"],
        ["attention", "drums.mid", "--model", model],
        ["attention", song_file, "-o", "a.txt"],
        ["embedding", "--model", "nope"],
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (1, ""), arguments
        assert err.startswith("Error: "), arguments
        assert err.count("\n") == 1, arguments
    for arguments in (
        ["show", song_file, "--bars", "3-2"],
        ["show", song_file, "--bars", "x"],
        ["show", song_file, "--prompt", song_file, "--prompt-bars", 1],
        ["attention", song_file, "--model", model, "--at", "0"],
        ["attention", song_file, "--model", model, "--layer", 9],
        ["attention", song_file, "--model", model, "--heads", "1,x"],
        ["embedding", "--lowest", 60, "--highest", 65],
    ):
        assert run(*arguments)[0] == 2, arguments
