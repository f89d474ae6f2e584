"""Encoder and decoder: the streaming invariant given a source, padding, the source's part in predictions, configs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from musiclm import models
from musiclm.errors import CheckpointError
from musiclm.generation.decode import sample_ids
from musiclm.models import base
from musiclm.models.layers.alignment_bias import FARTHEST, AlignmentBias
from musiclm.models.layers.bidirectional import Bidirectional
from musiclm.models.layers.bidirectional_attention import FAR, NUM_BUCKETS, buckets
from musiclm.models.layers.cross_attention import AdditiveAttention, record_weights
from musiclm.models.seq2seq import Seq2SeqModel

ARCHS = models.names(models.SEQ2SEQ)
VARIANTS = [
    ("seq2seq_gru", {"num_layers": 2, "size": 16, "comparison": 8}),
    ("seq2seq_gru", {"num_layers": 2, "size": 16, "cell": "lstm"}),
    ("seq2seq_gru", {"num_layers": 1, "size": 16, "attention": 0, "cell": "rnn"}),
    ("seq2seq_transformer", {"num_layers": 2, "num_encoder_layers": 2, "num_heads": 2, "size": 16, "context": 8}),
]


def tiny(arch: str, **config) -> Seq2SeqModel:
    torch.manual_seed(0)
    model = models.create(arch, 40, **config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)  # else predictions hardly differ
    assert isinstance(model, Seq2SeqModel)
    return model


@pytest.fixture(params=VARIANTS, ids=lambda v: f"{v[0]}-{v[1].get('cell', '')}{v[1].get('attention', '')}")
def model(request) -> Iterator[Seq2SeqModel]:
    arch, config = request.param
    yield tiny(arch, **config)


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 40, shape)


def test_kinds_have_their_architectures():
    assert ARCHS == ["seq2seq_gru", "seq2seq_transformer"]
    assert not set(ARCHS) & set(models.names()) and set(ARCHS) < set(models.names(None))
    with pytest.raises(CheckpointError, match="seq2seq_gru"):
        models.create("seq2seq", 40)


@pytest.mark.parametrize("cuts", [[1], [7], [1, 7, 19], list(range(1, 24))], ids=str)
def test_pieces_of_a_target_give_the_logits_of_the_whole(model: Seq2SeqModel, cuts: list[int]):
    source, target = tokens(3, 11), tokens(3, 24)
    with torch.no_grad():
        whole, _ = model(target, model.start(source))
        state, found = model.start(source), []
        for start, stop in itertools.pairwise([0, *cuts, 24]):
            logits, state = model(target[:, start:stop], state)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-4)


def test_pieces_give_the_logits_of_the_whole_with_gradients_too(model: Seq2SeqModel):
    source, target = tokens(2, 11), tokens(2, 24)
    whole, _ = model(target, model.start(source))
    first, state = model(target[:, :9], model.start(source))
    rest, _ = model(target[:, 9:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=1e-4)


def test_a_padded_batch_gives_what_each_source_gives_alone(model: Seq2SeqModel):
    sizes = (3, 9, 5)
    source, target = tokens(3, 9), tokens(3, 12)
    mask = torch.arange(9) < torch.tensor(sizes)[:, None]
    with torch.no_grad():
        together, state = model(target, model.start(source, None, mask))
        later, _ = model(target, state)
        for i, size in enumerate(sizes):
            alone, own = model(target[i : i + 1], model.start(source[i : i + 1, :size]))
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(later[i : i + 1], model(target[i : i + 1], own)[0], atol=1e-5, rtol=1e-4)


def test_what_stands_in_the_padding_changes_nothing(model: Seq2SeqModel):
    source, target = tokens(1, 9), tokens(1, 12)
    mask = torch.arange(9)[None] < 6
    other = source.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 40
    with torch.no_grad():
        found = [model(target, model.start(each, None, mask))[0] for each in (source, other)]
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


def test_the_source_changes_each_prediction(model: Seq2SeqModel):
    source, target = tokens(1, 9), tokens(1, 12)
    with torch.no_grad():
        found = [model(target, model.start(each))[0] for each in (source, (source + 7) % 40)]
    assert ((found[0] - found[1]).abs().amax(-1) > 1e-4).all()


def test_predictions_do_not_see_the_targets_future(model: Seq2SeqModel):
    source, target = tokens(1, 9), tokens(1, 20)
    other = target.clone()
    other[:, 13:] = (other[:, 13:] + 1) % 40
    with torch.no_grad():
        found = [model(each, model.start(source))[0] for each in (target, other)]
    torch.testing.assert_close(found[0][:, :13], found[1][:, :13], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found[0][:, 13:], found[1][:, 13:])


def test_gradients_reach_the_encoder(model: Seq2SeqModel):
    embedded: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out) or out.retain_grad())
    logits, _ = model(tokens(1, 80), model.start(tokens(1, 9)))
    logits[0, -1].sum().backward()
    assert (embedded[0].grad[0].abs().sum(1) > 0).all()


def test_states_of_shuffled_rows_go_on_as_those_rows(model: Seq2SeqModel):
    source, target, order = tokens(4, 9), tokens(4, 20), [2, 0, 3, 3]
    with torch.no_grad():
        whole, _ = model(target[order], model.start(source[order]))
        _, state = model(target[:, :13], model.start(source))
        rest, _ = model(target[order, 13:], base.rows(state, order))
    torch.testing.assert_close(rest, whole[:, 13:], atol=1e-5, rtol=1e-4)


def test_a_conditioned_model_is_a_language_model_for_batches_of_any_size(model: Seq2SeqModel):
    source, prompt = tokens(1, 9), tokens(1, 5)
    given = model.conditioned(source)
    with torch.no_grad():
        torch.testing.assert_close(given(prompt)[0], model(prompt, model.start(source))[0])
        several, _ = given(prompt.expand(3, -1))
    torch.testing.assert_close(several[2], several[0])
    drawn = [
        torch.stack(list(itertools.islice(sample_ids(given, p, seed=5), 60)), 1) for p in (prompt, prompt.expand(3, -1))
    ]
    assert torch.equal(drawn[0][0], drawn[1][0]) and not torch.equal(drawn[1][0], drawn[1][1])
    other = model.conditioned((source + 7) % 40)
    assert not torch.equal(torch.stack(list(itertools.islice(sample_ids(other, prompt, seed=5), 60)), 1), drawn[0])


def test_scaled_logits_are_those_of_the_conditioned_model_too(model: Seq2SeqModel):
    source, prompt = tokens(1, 9), tokens(1, 5)
    with torch.no_grad():
        before = model.conditioned(source)(prompt)[0]
        model.scale_logits(2.0)
        torch.testing.assert_close(model.conditioned(source)(prompt)[0], before / 2)


def test_a_target_without_a_source_is_refused(model: Seq2SeqModel):
    with pytest.raises(ValueError, match="source"):
        model(tokens(1, 5))


def test_features_of_source_and_target_count():
    for arch, config in VARIANTS:
        model = tiny(arch, feature_sizes=(3, 5), **config)
        source, target = tokens(1, 6), tokens(1, 6)
        zeros = torch.zeros(1, 6, 2, dtype=torch.int64)
        with torch.no_grad():
            plain, of_source, of_target = (
                model(target, model.start(source, a), b)[0]
                for a, b in ((zeros, zeros), (zeros + 1, zeros), (zeros, zeros + 1))
            )
        assert not torch.allclose(plain, of_source) and not torch.allclose(plain, of_target)


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_the_bidirectional_stack_is_that_of_torch(cell: str):
    torch.manual_seed(0)
    mine = Bidirectional(cell, 8, 2, 0.0)
    theirs = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM, "rnn": torch.nn.RNN}[cell](
        8, 4, 2, batch_first=True, bidirectional=True
    )
    for i, directions in enumerate(mine.directions):
        for layer, end in zip(directions, ("", "_reverse"), strict=True):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{name}_l{i}{end}").data.copy_(getattr(layer, f"{name}_l0").data)
    x, lengths = torch.randn(3, 7, 8), torch.tensor([4, 7, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found, finals = mine(x, lengths)
    for i, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(found[i, :length], wanted[i, :length])
        torch.testing.assert_close(finals[-1][i], torch.cat([wanted[i, length - 1, :4], wanted[i, 0, 4:]]))


def test_additive_attention_is_that_of_the_paper_and_of_its_chunks():
    torch.manual_seed(0)
    attention = AdditiveAttention(8, 4)
    x, memory, mask = torch.randn(2, 150, 8), torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    keys, added = attention.keys(memory), torch.zeros(2, 1, 1, 5).masked_fill(~mask[:, None, None], float("-inf"))
    for element in range(2):
        for t in (0, 63, 64, 149):
            scores = [
                attention.score.weight[0] @ torch.tanh(attention.query(x[element, t]) + keys[element, s])
                for s in range(int(mask[element].sum()))
            ]
            wanted = torch.stack(scores).softmax(0) @ memory[element, : len(scores)]
            torch.testing.assert_close(attention(x, memory, keys, added)[element, t], wanted)


def test_recorded_weights_are_shares_of_the_source():
    for arch, config in VARIANTS:
        model = tiny(arch, **config)
        source, target, mask = tokens(1, 9), tokens(1, 70), torch.arange(9)[None] < 6
        with torch.no_grad():
            found = record_weights(model, lambda m=model, s=source, t=target, k=mask: m(t, m.start(s, None, k)))
        wanted = 0 if config.get("attention") == 0 else config.get("num_layers") if "num_heads" in config else 1
        assert len(found) == wanted
        for weights in found:
            assert weights.shape == (1, config.get("num_heads", 1), 70, 9)
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
            assert not weights[..., 6:].any() and weights.std(-1).max() > 0.01


def test_buckets_are_exact_near_by_and_tell_directions_apart():
    found = buckets(1200, torch.device("cpu"))
    half = NUM_BUCKETS // 2
    assert found[20, 20 - half + 1 : 21].tolist() == list(range(half))[::-1]
    assert found[20, 21 : 20 + half].tolist() == [NUM_BUCKETS + n for n in range(1, half)]
    assert found[1199, 0] == NUM_BUCKETS - 1 and found[0, 1199] == 2 * NUM_BUCKETS - 1
    assert found[0, FAR] == 2 * NUM_BUCKETS - 1 and (found[0, 1:].diff() >= 0).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", models.SIZES)
def test_presets_make_models_of_growing_size(arch: str, size: str):
    with torch.device("meta"):
        model = models.create(arch, 100, **models.preset(arch, size))
    assert model.num_parameters > 10_000
    assert models.training(arch).keys() == {"learning_rate", "batch_size", "window"}


@pytest.mark.parametrize(
    ("arch", "config", "named"),
    [
        ("seq2seq_gru", {"size": 15}, "even"),
        ("seq2seq_gru", {"cell": "qrnn"}, "cell"),
        ("seq2seq_gru", {"num_layers": 0}, "num_layers"),
        ("seq2seq_transformer", {"size": 15}, "num_heads"),
        ("seq2seq_transformer", {"num_encoder_layers": 0}, "num_encoder_layers"),
    ],
)
def test_impossible_configs_are_refused(arch: str, config: dict, named: str):
    with pytest.raises(ValueError, match=named):
        models.create(arch, 40, **config)


ALIGNED = {"feature_sizes": (5, 70, 9), "aligned_features": (2, 1), "alignment_slopes": (0.5, 0.1)}


def features_of(batch: int, number: int) -> Tensor:
    return torch.stack([torch.randint(0, size, (batch, number)) for size in ALIGNED["feature_sizes"]], -1)


@pytest.mark.parametrize(("arch", "config"), VARIANTS, ids=lambda v: str(v)[:24])
def test_aligned_features_keep_pieces_and_padding_as_the_whole(arch: str, config: dict):
    model, sizes = tiny(arch, **config, **ALIGNED), (9, 4)
    source, target, of_source, of_target = tokens(2, 9), tokens(2, 20), features_of(2, 9), features_of(2, 20)
    mask = torch.arange(9) < torch.tensor(sizes)[:, None]
    with torch.no_grad():
        whole, _ = model(target, model.start(source, of_source, mask), of_target)
        state, found = model.start(source, of_source, mask), []
        for start, stop in itertools.pairwise([0, 7, 8, 9, 20]):
            logits, state = model(target[:, start:stop], state, of_target[:, start:stop])
            found.append(logits)
        alone, _ = model(target[1:], model.start(source[1:, :4], of_source[1:, :4]), of_target[1:])
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone, whole[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_tokens", [1, 7])
def test_the_bias_is_the_sum_of_tables_at_clipped_differences(num_tokens: int):
    torch.manual_seed(0)
    bias = AlignmentBias((70, 9), (0.5, 0.1), 3)
    with torch.no_grad():
        for table in bias.tables:
            table.add_(torch.randn_like(table))
    target, source = (torch.stack([torch.randint(0, n, (2, size)) for n in (70, 9)], -1) for size in (num_tokens, 5))
    target[0, 0, 0], source[0, 0, 0] = 69, 0  # farther apart than FARTHEST
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = bias(target, source, mask).detach()
    for b, h, t, s in itertools.product(range(2), range(3), range(num_tokens), range(5)):
        apart = [min(max(int(target[b, t, i] - source[b, s, i]), -FARTHEST), FARTHEST) + FARTHEST for i in range(2)]
        wanted = sum(float(table.detach()[h, d]) for table, d in zip(bias.tables, apart, strict=True))
        assert float(found[b, h, t, s]) == (pytest.approx(wanted, abs=1e-5) if mask[b, s] else float("-inf"))


@pytest.mark.parametrize(
    ("arch", "config"), [v for v in VARIANTS if v[1].get("attention") != 0], ids=lambda v: str(v)[:24]
)
def test_at_first_attention_is_to_the_same_bar(arch: str, config: dict):
    torch.manual_seed(0)
    model = models.create(arch, 40, **config, **ALIGNED | {"alignment_slopes": (0.0, 2.0)}).eval()
    bars = torch.arange(1, 9).repeat_interleave(4)[None]
    features = torch.stack([torch.zeros_like(bars), bars, torch.zeros_like(bars)], -1)
    source = tokens(1, 32)
    with torch.no_grad():
        found = record_weights(model, lambda: model(source, model.start(source, features), features))
    of_bars = found[0][0, 0].view(8, 4, 8, 4).sum(3).mean(1)
    assert of_bars.diagonal().min() > 0.6


@pytest.mark.parametrize("wrong", [{"aligned_features": (3,)}, {"alignment_slopes": (0.5,)}])
def test_impossible_alignments_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="align"):
        models.create("seq2seq_gru", 40, **ALIGNED | wrong)
