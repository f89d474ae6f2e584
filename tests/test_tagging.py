"""Taggers: what they read, the network, training, calibration, and which bars speak for a label."""

from __future__ import annotations

import zipfile
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import ControlChange, Note, Score, Tempo, TextMeta, TimeSignature, Track
from torch import nn

from musiclm import checkpoint, midi, models, tokenizers
from musiclm.errors import CheckpointError, MidiError
from musiclm.evaluation.classification import confusion, f1_of_each, fit_threshold, report
from musiclm.tagging import probe, training
from musiclm.tagging.crops import Crop, LabelledCrops, batch_of, spread, spread_crops
from musiclm.tagging.dataset import TOKENIZER
from musiclm.tagging.model import MIN_NOTES, POOLINGS, Network, Tagger
from musiclm.tagging.notes import neutral
from musiclm.tagging.occlusion import MOST_CROPS, evidence, moved
from musiclm.tagging.training import Check, Labelled, TagConfig, train_tagger
from musiclm.tokenizers.vocabulary import Kind, Token
from musiclm.training.optim import Recipe, set_rate
from tests.conftest import SMALL

TOKENS = tokenizers.parse(TOKENIZER)
EVENTS = tokenizers.create("performance", features=1)


def tune(pitches: tuple[int, ...], seed: int = 0, *, num: int = 48, program: int = 0) -> Score:
    """A melody of eighths over a few pitches."""
    rng = np.random.default_rng(seed)
    score, track = Score(480), Track("tune", program, False)
    for i in range(num):
        track.notes.append(Note(240 * i, 240, int(rng.choice(pitches)), 70))
    score.tracks.append(track)
    return score


MAJOR, MINOR = (60, 64, 67, 72), (60, 63, 68, 70)


def labelled(count: int, first: int = 0) -> list[Labelled]:
    """Tunes of two labels, which a bag of intervals tells apart."""
    scores = [(tune((MAJOR, MINOR)[i % 2], first + i), i % 2) for i in range(count)]
    return [Labelled(TOKENS.encode(neutral(score))[0], label) for score, label in scores]


def network(arch: str = "gru", pooling: str = "mean", num_labels: int = 3, tokenizer=TOKENS) -> Network:
    torch.manual_seed(0)
    fields = {name: value for name, value in SMALL.items() if name in models.fields(arch)}
    made = Network(
        models.create(arch, tokenizer.vocab_size, size=16, num_layers=1, dropout=0.0, **fields), num_labels, pooling
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.eval()


def tagger(**options) -> Tagger:
    made = {"arch": "gru", "tokenizer": TOKENS, "labels": ("a", "b", "c"), "length": 32} | options
    return Tagger(
        options.pop("network", None) or network(made["arch"]), **{k: v for k, v in made.items() if k != "network"}
    )


class Bag(nn.Module):
    """A body whose hidden states tell one kind of token from all others, and know nothing of order."""

    def __init__(self, special: list[int]) -> None:
        super().__init__()
        self.config = SimpleNamespace(size=4)
        self.table = nn.Embedding(TOKENS.vocab_size, 4)
        with torch.no_grad():
            self.table.weight.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
            self.table.weight[special] = torch.tensor([0.0, 1.0, 0.0, 0.0])

    def forward(self, tokens, features=None, mask=None):
        return self.table(tokens)


def counts_pitch(pitch: int) -> Tagger:
    """A tagger that says "high" the more often a pitch occurs, and else "low"."""
    special = [i for i, token in enumerate(TOKENS.vocabulary) if token == Token(Kind.NOTE_ON, pitch)]
    assert len(special) == 1
    made = Network(Bag(special), 2, "mean")
    with torch.no_grad():
        made.head.weight.copy_(torch.tensor([[0.0, 4.0, 0.0, 0.0], [0.0] * 4]))
    return tagger(network=made, labels=("high", "low"), length=64)


# --- what is read


def disguised(score: Score, *, velocity: int, qpm: float, program: int, ticks: int) -> Score:
    """The same music as another source would write it."""
    copy = score.copy().resample(ticks)
    copy.tempos = type(copy.tempos)([Tempo(0, qpm), Tempo(ticks * 3, qpm / 2)])
    copy.time_signatures.append(TimeSignature(0, 3, 4))
    copy.markers.append(TextMeta(0, "style: hymn"))
    for track in copy.tracks:
        track.name, track.program = "Oboe", program
        for i, note in enumerate(track.notes):
            note.velocity = 1 + (velocity + 7 * i) % 127
        track.controls.append(ControlChange(0, 64, 127))
    return copy


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 50),
    velocity=st.integers(0, 126),
    qpm=st.floats(30, 240),
    program=st.integers(0, 7),
    ticks=st.sampled_from([96, 240, 960]),
)
def test_velocity_tempo_names_markers_and_programs_of_a_family_make_no_difference(seed, velocity, qpm, program, ticks):
    score = tune((48, 55, 60, 64), seed)
    other = disguised(score, velocity=velocity, qpm=qpm, program=program, ticks=ticks)
    for tokenizer in (TOKENS, EVENTS):
        np.testing.assert_array_equal(tokenizer.encode(neutral(score))[0], tokenizer.encode(neutral(other))[0])


def test_pitch_time_duration_and_family_make_a_difference():
    ids = TOKENS.encode(neutral(tune(MAJOR)))[0].tolist()
    assert TOKENS.encode(neutral(tune(MINOR)))[0].tolist() != ids
    assert TOKENS.encode(neutral(tune(MAJOR, program=40)))[0].tolist() != ids
    for change in ("time", "duration"):
        score = tune(MAJOR)
        note = score.tracks[0].notes[3]
        setattr(note, change, getattr(note, change) + 120)
        assert TOKENS.encode(neutral(score))[0].tolist() != ids


def test_a_neutral_copy_of_a_neutral_copy_is_the_same_and_leaves_the_score_alone(song: Score):
    before = song.dumps_midi()
    copy = neutral(song)
    assert song.dumps_midi() == before
    assert neutral(copy).dumps_midi() == copy.dumps_midi()
    assert copy.note_num() == song.note_num()
    assert [track.is_drum for track in copy.tracks].count(True) == 1


def test_silence_at_the_beginning_and_a_note_twice_make_no_difference():
    score = tune(MAJOR)
    late = score.copy()
    for note in late.tracks[0].notes:
        note.time += 480 * 7
    late.tracks[0].notes.append(late.tracks[0].notes[0].copy())
    assert neutral(late).dumps_midi() == neutral(score).dumps_midi()
    assert neutral(Score(480)).note_num() == 0
    with pytest.raises(ValueError, match="divide"):
        neutral(score, 7)


# --- the network


def crops(*sizes: int, vocab: int = TOKENS.vocab_size) -> list[Crop]:
    rng = np.random.default_rng(1)
    return [Crop(rng.integers(3, vocab, size), np.zeros((size, 0), np.int64)) for size in sizes]


@pytest.mark.parametrize("arch", training.bodies())
def test_padding_does_not_change_the_logits_of_any_body(arch: str):
    found = crops(24, 9, 17)
    for pooling in POOLINGS:
        made = network(arch, pooling)
        with torch.inference_mode():
            together = made(batch_of(found))
            alone = torch.cat([made(batch_of([each])) for each in found])
        torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-4)


def test_the_head_of_a_language_model_is_not_in_a_tagger_and_seq2seq_is_no_body():
    assert not any(name.startswith("body.head") for name in network().state_dict())
    with pytest.raises(CheckpointError, match="reads pairs"):
        training.new_network(TagConfig(arch="seq2seq_gru"), 2, TOKENS)
    with pytest.raises(ValueError, match="no pooling"):
        network(pooling="max")


def test_crops_cover_a_piece_and_are_at_most_so_many():
    ids = np.arange(3, 103)
    found = spread_crops(ids, TOKENS, length=32, most=24)
    assert len(found) == 4 and all(len(crop.ids) == 32 for crop in found)
    assert set(np.concatenate([crop.ids for crop in found])) == set(ids)
    assert len(spread_crops(ids, TOKENS, length=32, most=2)) == 2
    assert [len(crop.ids) for crop in spread_crops(ids[:5], TOKENS, length=32, most=2)] == [5]


@pytest.mark.parametrize("name", ["performance", "score"])
def test_features_of_crops_are_those_of_the_piece(name: str):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(neutral(tune(MAJOR, num=60)))
    whole = tokenizer.features_of([ids])
    for crop in spread_crops(ids, tokenizer, length=40, most=9):
        starts = [i for i in range(len(ids)) if ids[i : i + 40].tolist() == crop.ids.tolist()]
        assert any((whole[i : i + 40] == crop.features).all() for i in starts)
    batch = LabelledCrops([ids], [0], tokenizer, length=40, batch_size=2, seed=1, transpose=range(1))(0)
    assert batch.features is not None and batch.features.shape[:2] == batch.tokens.shape


def test_batches_follow_from_seed_and_number_and_labels_are_sampled_alike():
    pieces = [each.ids for each in labelled(10)]
    targets = [0] * 9 + [1]
    make = LabelledCrops(pieces, targets, TOKENS, length=16, batch_size=64, seed=3)
    again = LabelledCrops(pieces, targets, TOKENS, length=16, batch_size=64, seed=3)
    torch.testing.assert_close(make(5).tokens, again(5).tokens)
    assert not torch.equal(make(5).tokens, make(6).tokens)
    share = float(torch.cat([make(i).targets for i in range(8)]).double().mean())
    assert share == pytest.approx(0.5, abs=0.08)
    as_they_are = LabelledCrops(pieces, targets, TOKENS, length=16, batch_size=64, seed=3, balance=0.0)
    assert float(torch.cat([as_they_are(i).targets for i in range(8)]).double().mean()) == pytest.approx(0.1, abs=0.05)


# --- training


def trained(learn, choose, *, steps: int = 60, start=None, tokenizer=TOKENS, **config) -> tuple[Tagger, list[Check]]:
    options = {"config": {"size": 24}, "preset": "tiny", "length": 48, "batch_size": 16} | config
    if start is not None:
        options.pop("config")
    recipe = Recipe(steps=steps, learning_rate=1e-2, warmup_steps=5, seed=1)
    events = list(
        train_tagger(
            learn, choose, recipe, TagConfig(**options), labels=("minor", "major"), tokenizer=tokenizer, start=start
        )
    )
    return events[-1], events[:-1]


@pytest.mark.parametrize(("arch", "pooling"), [("gru", "mean"), ("bidirectional_gru", "attention"), ("rotary", "last")])
def test_a_separable_set_is_learned_far_beyond_the_majority(arch: str, pooling: str):
    made, checks = trained(labelled(30), labelled(10, 100), arch=arch, pooling=pooling, steps=40)
    new = labelled(20, 1000)
    right = [int(made.log_probabilities(each.ids).argmax()) == each.target for each in new]
    assert np.mean(right) >= 0.9
    assert checks[-1].validation < np.log(2) / 2 and any(check.is_best for check in checks)


def test_the_same_seed_is_the_same_tagger():
    first, second = (trained(labelled(8), labelled(4, 50), steps=4)[0] for _ in range(2))
    for a, b in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def language_model(path: Path) -> checkpoint.Checkpoint:
    torch.manual_seed(3)
    model = models.create("gru", EVENTS.vocab_size, size=16, num_layers=1, dropout=0.0)
    checkpoint.save(path, model, arch="gru", tokenizer=EVENTS, card={})
    return checkpoint.load(str(path))


def test_a_frozen_body_stays_to_the_last_bit_and_another_changes(tmp_path: Path):
    start = language_model(tmp_path / "lm.safetensors")
    learn = [Labelled(EVENTS.encode(neutral(tune(p, s)))[0], i) for s in range(4) for i, p in enumerate((MINOR, MAJOR))]
    before = {f"body.{n}": t for n, t in start.model().state_dict().items() if not n.startswith("head.")}
    for frozen in (True, False):
        made, _ = trained(learn, learn, steps=3, start=start, tokenizer=EVENTS, frozen=frozen)
        after = made.network.state_dict()
        same = [torch.equal(tensor, after[name]) for name, tensor in before.items()]
        assert all(same) if frozen else not any(same)
        assert not torch.equal(after["head.weight"], network(num_labels=2).state_dict()["head.weight"])
    assert made.tokenizer.name == "performance" and made.arch == "gru"


def test_the_bodys_learning_rate_is_its_share_of_the_heads():
    made = network()
    optimizer = training.make_optimizer(made, Recipe(steps=10), 0.25)
    set_rate([optimizer], 0.5)
    body = {id(p) for p in made.body.parameters()}
    rates = {(id(p) in body, group["lr"]) for group in optimizer.param_groups for p in group["params"]}
    assert rates == {(False, 0.5), (True, 0.125)}


def test_training_stops_when_validation_gets_no_better(monkeypatch):
    monkeypatch.setattr(training, "PATIENCE", 2)
    swapped = [Labelled(each.ids, 1 - each.target) for each in labelled(6, 60)]
    _, checks = trained(labelled(12), swapped, steps=60)
    assert checks[-1].step == 60  # it is too early for patience
    monkeypatch.setattr(training, "LEAST_STEPS", 5)
    _, checks = trained(labelled(12), swapped, steps=60)
    assert checks[-1].step < 60
    assert not checks[-1].is_best and not checks[-2].is_best


def test_one_label_or_no_pieces_cannot_be_trained():
    with pytest.raises(ValueError, match="two labels"):
        list(train_tagger(labelled(2), [], Recipe(steps=1), TagConfig(), labels=("a",), tokenizer=TOKENS))
    with pytest.raises(ValueError, match="no pieces"):
        list(train_tagger([], [], Recipe(steps=1), TagConfig(preset="tiny"), labels=("a", "b"), tokenizer=TOKENS))


# --- predictions


def test_log_probabilities_of_crops_are_averaged_and_divided_by_the_temperature():
    made = tagger(temperature=0.5)
    ids, num_notes = made.encode(tune(MAJOR, num=100))
    of_crops = made.crop_log_probabilities(ids)
    assert len(of_crops) > 4
    torch.testing.assert_close(of_crops.exp().sum(1), torch.ones(len(of_crops)))
    expected = (of_crops.mean(0) / 0.5).softmax(0)
    found = made.predict_ids(ids, num_notes)
    assert found.probabilities[found.label] == pytest.approx(float(expected.max()))
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert list(found.probabilities.values()) == sorted(found.probabilities.values(), reverse=True)


def test_few_notes_a_low_probability_and_the_label_unsure_are_unsure():
    made = tagger(threshold=0.0)
    assert not made.predict(tune(MAJOR, num=MIN_NOTES)).unsure
    assert made.predict(tune(MAJOR, num=10)).unsure
    best = made.predict(tune(MAJOR)).label
    made.threshold = made.predict(tune(MAJOR)).probability + 1e-6
    assert made.predict(tune(MAJOR)).unsure
    names = ["unsure" if label == best else label for label in made.labels]
    assert tagger(threshold=0.0, labels=names).predict(tune(MAJOR)).unsure
    with pytest.raises(MidiError):
        made.predict(Score(480))


def test_the_temperature_is_that_of_the_validation_pieces():
    made = counts_pitch(63)
    with torch.no_grad():
        made.network.head.bias[0] = 2.0
    minor = [each.target == 1 for each in labelled(16)]  # one in four has the wrong label, so that none can be certain
    choose = [Labelled(each.ids, int(minor[i] == (i % 8 < 2))) for i, each in enumerate(labelled(16))]
    training.calibrate(made, choose)
    before = made.temperature
    with torch.no_grad():
        made.network.head.weight.mul_(2)
        made.network.head.bias.mul_(2)
    training.calibrate(made, choose)
    assert made.temperature > 1.2 * before  # overconfident logits are divided by more
    rows = torch.stack([made.log_probabilities(each.ids) for each in choose])
    targets = torch.tensor([each.target for each in choose])
    best = float(torch.nn.functional.nll_loss(rows, targets))
    for factor in (0.5, 2.0):
        other = torch.nn.functional.cross_entropy(rows * factor, targets)
        assert best <= float(other) + 1e-6


def test_the_threshold_has_the_most_right_minus_wrong_answers_above_it():
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.65, 0.6, 0.4])
    right = torch.tensor([True, True, True, False, False, False])
    assert 0.65 < fit_threshold(confidence, right) <= 0.7
    assert fit_threshold(torch.tensor([0.3, 0.9]), torch.tensor([True, True])) <= 0.3


def test_f1_and_the_report_by_hand():
    matrix = confusion(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert f1_of_each(matrix) == [pytest.approx(2 / 3), pytest.approx(0.8), None]
    probabilities = torch.tensor([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0], [0, 1, 0]])
    found = report(probabilities, torch.tensor([0, 1, 1, 1]), [False, True, False, False], ("x", "y", "z"))
    assert found["accuracy"] == 0.75 and found["majority"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert found["accuracy_when_sure"] == 1.0 and found["unsure"] == 0.25
    assert found["labels"]["z"] == {"num_pieces": 0, "recall": None, "f1": None}


# --- the file


@pytest.mark.parametrize("arch", ["gru", "bidirectional_transformer", "performer"])
def test_a_saved_tagger_is_the_same_when_it_is_loaded(arch: str, tmp_path: Path):
    made = tagger(network=network(arch), arch=arch, temperature=0.7, threshold=0.4, card={"data": "tunes"})
    made.seen = [b"0123456789abcdef", b"abcdefghijklmnop"]
    made.save(tmp_path / "t.safetensors", dtype=None)
    again = Tagger.load(tmp_path / "t.safetensors")
    score = tune(MAJOR)
    assert again.predict(score) == made.predict(score)
    fields = ("arch", "labels", "length", "steps", "temperature", "threshold", "card")
    assert all(getattr(again, name) == getattr(made, name) for name in fields)
    assert again.seen == {b"01234567", b"abcdefgh"}


def test_what_is_no_tagger_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no tagger 'nobody'"):
        Tagger.load("nobody")
    language_model(tmp_path / "lm.safetensors")
    with pytest.raises(CheckpointError, match="is not a tagger"):
        Tagger.load(tmp_path / "lm.safetensors")
    made = tagger()
    made.save(tmp_path / "t.safetensors")
    data = bytearray((tmp_path / "t.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="damaged"):
        Tagger.load(tmp_path / "bad.safetensors")


# --- which bars speak for a label


def test_occlusion_points_to_the_bar_that_decides():
    score = tune((60, 62), num=48)  # six bars of 4/4
    for note in score.tracks[0].notes[24:32]:
        note.pitch = 84
    made = counts_pitch(84)
    found = list(evidence(made, score, "high"))
    assert [each.first_bar for each in found] == [1, 2, 3, 4, 5, 6]
    assert max(found, key=lambda each: each.nats).first_bar == 4
    assert all(each.nats > 0 if each.first_bar == 4 else each.nats <= 0 for each in found)
    assert found[2].nats < 0 and found[4].nats < 0
    against = list(evidence(made, score, "low"))
    np.testing.assert_allclose([e.nats for e in against], [-e.nats for e in found], atol=1e-5)
    with pytest.raises(ValueError, match="no label"):
        next(evidence(made, score, "lydian"))


def test_bars_that_no_crop_reads_are_worth_nothing_in_a_long_piece():
    score = tune((60, 84), num=600)
    made = counts_pitch(84)
    ids, _ = made.encode(score)
    ranges = spread(len(ids), length=made.length, most=MOST_CROPS)
    assert sum(stop - start for start, stop in ranges) < len(ids) / 3
    found = list(evidence(made, score, "high"))
    assert len(found) == 38  # spans of two bars
    silent = [each.nats == 0 for each in found]
    assert 10 < sum(silent) < 30


def test_crops_without_a_bar_begin_and_end_at_the_same_music():
    ids = np.array([1, 5, 6, 7, 8, 9, 10, 11, 2])
    without = np.array([1, 5, 6, 3, 10, 11, 2])  # 7, 8, 9 became 3
    found = moved([(0, 3), (2, 5), (4, 7), (6, 9), (3, 6)], ids, without)
    assert [without[a:b].tolist() for a, b in found] == [[1, 5, 6], [6, 3], [10], [10, 11, 2], [3]]
    assert moved([(0, 4), (2, 9)], ids, ids) == [(0, 4), (2, 9)]


def test_with_few_validation_pieces_the_threshold_has_a_floor():
    for count, is_floor in ((8, True), (24, False)):
        made = counts_pitch(63)
        training.calibrate(made, [Labelled(each.ids, 1 - each.target) for each in labelled(count)])
        right = fit_threshold(torch.ones(count), torch.ones(count, dtype=torch.bool))
        assert right < 0.75 and (made.threshold >= 0.75) == is_floor


def test_silent_bars_are_worth_nothing_and_the_rest_does_not_move(monkeypatch):
    made = tagger()
    score = tune(MAJOR, num=16)
    for note in score.tracks[0].notes[8:]:
        note.time += 4 * 480
    read: list[tuple[int, int]] = []
    original = Tagger.encode

    def encode(self, given, *, start=None):
        times = [note.time for track in neutral(given, start=start).tracks for note in track.notes]
        read.append((min(times), max(times)))
        return original(self, given, start=start)

    monkeypatch.setattr(Tagger, "encode", encode)
    found = list(evidence(made, score, "a"))
    assert [each.nats == 0 for each in found] == [False, True, False]
    whole, without_first, without_last = read
    assert whole == (0, 15 * 240 + 4 * 480)
    assert without_first == (8 * 240 + 4 * 480, whole[1])  # bar 3 is where it was
    assert without_last == (0, 7 * 240)


def test_a_head_is_fitted_as_a_logistic_regression_to_raw_vectors():
    """At its minimum the gradient of the loss is that of the penalty, of standardised vectors."""
    rng = torch.Generator().manual_seed(1)
    vectors = torch.randn(60, 4, generator=rng) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + 5
    targets = (vectors[:, 0] + torch.randn(60, generator=rng) > 5).long()
    head = torch.nn.Linear(4, 2)
    nats = probe.fit_head(head, vectors, targets, 1e-2)
    assert nats < 0.6 and float((head(vectors).argmax(1) == targets).float().mean()) > 0.7
    x = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    weight = (head.weight * vectors.std(0, correction=0)).detach().requires_grad_()
    bias = (head.bias + head.weight @ vectors.mean(0)).detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight.T + bias, targets) + 1e-2 * weight.square().sum()
    assert all(float(each.abs().max()) < 1e-3 for each in torch.autograd.grad(loss, [weight, bias]))


def test_a_frozen_body_reads_each_crop_once_and_is_checked_at_twice_the_share(tmp_path: Path):
    start = language_model(tmp_path / "lm.safetensors")
    learn = [Labelled(EVENTS.encode(neutral(tune(p, s)))[0], i) for s in range(8) for i, p in enumerate((MINOR, MAJOR))]
    made, checks = trained(learn, learn, steps=32, start=start, tokenizer=EVENTS, frozen=True)
    assert [check.step for check in checks] == [2, 4, 8, 16, 32]
    assert checks[-1].figure >= 0.9
    right = [int(made.log_probabilities(each.ids).argmax()) == each.target for each in learn]
    assert np.mean(right) >= 0.9


def test_a_head_without_validation_pieces_has_the_usual_penalty(tmp_path: Path):
    start = language_model(tmp_path / "lm.safetensors")
    learn = [Labelled(EVENTS.encode(neutral(tune(p, s)))[0], i) for s in range(4) for i, p in enumerate((MINOR, MAJOR))]
    made, checks = trained(learn, [], steps=4, start=start, tokenizer=EVENTS, frozen=True)
    assert checks[-1].validation is None and checks[-1].is_best and made.temperature == 1


def test_the_file_of_a_frozen_body_names_the_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path))
    language_model(tmp_path / "tunes-gru.safetensors")
    learn = [Labelled(EVENTS.encode(neutral(tune(p, s)))[0], i) for s in range(4) for i, p in enumerate((MINOR, MAJOR))]
    start = checkpoint.load("tunes")
    made, _ = trained(learn, learn, steps=4, start=start, tokenizer=EVENTS, frozen=True)
    made.save(tmp_path / "own-tagger.safetensors", dtype=None)
    assert (tmp_path / "own-tagger.safetensors").stat().st_size < (tmp_path / "tunes-gru.safetensors").stat().st_size
    read = Tagger.load("own")
    torch.testing.assert_close(read.log_probabilities(learn[0].ids), made.log_probabilities(learn[0].ids))
    read.save(tmp_path / "again-tagger.safetensors", dtype=None)
    assert Tagger.load("again").body.sha256 == start.sha256
    torch.manual_seed(4)
    checkpoint.save(
        tmp_path / "tunes-gru.safetensors",
        models.create("gru", EVENTS.vocab_size, size=16, num_layers=1, dropout=0.0),
        arch="gru",
        tokenizer=EVENTS,
        card={},
    )
    with pytest.raises(CheckpointError, match="other weights of 'tunes-gru'"):
        Tagger.load("own")
    (tmp_path / "tunes-gru.safetensors").unlink()
    with pytest.raises(CheckpointError, match="needs the model 'tunes-gru': see 'musiclm models install'"):
        Tagger.load("own")


def test_the_bundled_tagger_knows_a_chorale_without_any_name():
    with zipfile.ZipFile(str(resources.files("musiclm") / "chorales.zip")) as archive:
        names = sorted(archive.namelist())[::40]
        found = [Tagger.load().predict(midi.parse(archive.read(name), name)) for name in names]
    assert sum(each.label == "chorale" and not each.unsure for each in found) >= 0.8 * len(found)
    assert len(Tagger.load().labels) == 8 and Tagger.load("style").card["licence"] == "MIT"
