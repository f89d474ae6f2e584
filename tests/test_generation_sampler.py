"""Drawing: seeds, rows, filters, rules."""

from __future__ import annotations

import dataclasses
from itertools import islice

import pytest
import torch

from musiclm import models, tokenizers
from musiclm.generation.constraints import BannedTokens
from musiclm.generation.decode import sample_ids
from musiclm.generation.sampler import Sampler
from musiclm.tokenizers.vocabulary import Kind
from tests.conftest import tiny


def drawn(model, prompt, sampler=None, *, seed=0, count=12) -> torch.Tensor:
    return torch.stack(list(islice(sample_ids(model, prompt, sampler, seed=seed), count)), 1)


@pytest.mark.parametrize("arch", models.names())
def test_the_same_seed_draws_the_same_tokens_and_another_seed_others(arch: str):
    model, prompt = tiny(arch), torch.zeros(2, 3, dtype=torch.int64)
    assert torch.equal(drawn(model, prompt, seed=5), drawn(model, prompt, seed=5))
    assert not torch.equal(drawn(model, prompt, seed=5), drawn(model, prompt, seed=6))


@pytest.mark.parametrize("arch", models.names())
def test_a_row_draws_the_same_whatever_the_other_rows_are(arch: str):
    model = tiny(arch)
    prompt = torch.randint(0, 40, (3, 5))
    together = drawn(model, prompt)
    other = prompt.clone()
    other[1:] = 7
    assert torch.equal(drawn(model, other)[0], together[0])
    assert torch.equal(drawn(model, prompt[:1])[0], together[0])


@pytest.mark.parametrize("arch", models.names())
def test_drawing_step_by_step_follows_the_model_run_as_a_whole(arch: str):
    """Greedy tokens are those that one pass over all of them finds likeliest, past the context too."""
    model, prompt = tiny(arch), torch.randint(0, 40, (1, 4))
    tokens = torch.cat([prompt, drawn(model, prompt, Sampler(temperature=0), count=20)], 1)
    with torch.no_grad():
        logits, _ = model(tokens)
    assert torch.equal(logits[:, 3:-1].argmax(-1), tokens[:, 4:])


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.1, 0.2, 0.0, 0.7]]).log().repeat(4000, 1)

    class Fixed(torch.nn.Module):
        def forward(self, tokens, state=None, features=None):
            return logits[: tokens.shape[0], None].expand(-1, tokens.shape[1], -1), ()

    counts = torch.bincount(next(sample_ids(Fixed(), torch.zeros(4000, 1, dtype=torch.int64))), minlength=4) / 4000
    assert counts[2] == 0
    torch.testing.assert_close(counts, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.03, rtol=0)


def test_filters_leave_what_they_say():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    kept = {
        "top_k": Sampler(top_k=2),
        "top_p": Sampler(top_p=0.6),
        "min_p": Sampler(min_p=0.4),
        "greedy": Sampler(temperature=0),
        "next to greedy": Sampler(temperature=1e-300),
        "all": Sampler(top_k=4, top_p=1.0, min_p=1e-9),
    }
    found = {name: (s.probabilities(logits) > 0).sum().item() for name, s in kept.items()}
    assert found == {"top_k": 2, "top_p": 2, "min_p": 2, "greedy": 1, "next to greedy": 1, "all": 4}
    torch.testing.assert_close(Sampler(top_k=2).probabilities(logits)[0, :2], torch.tensor([2 / 3, 1 / 3]))
    torch.testing.assert_close(Sampler(temperature=0.5).probabilities(logits)[0, 0], torch.tensor(0.25 / 0.345))


def test_what_is_held_keeps_its_probability_and_temperature_chooses_among_the_others():
    """A voice of a chorale holds in 78 of 100 cells: a temperature of 0.7 over all left it little else."""
    logits = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.2, 0.1, 0.0, 0.7]]).log()
    sampler = Sampler(temperature=0.5)
    kept = torch.tensor([[True, False, False, False], [False, False, True, False]])
    expected = torch.tensor([[0.7, 0.3 * 0.8, 0.3 * 0.2, 0.0], [0.04 / 0.54, 0.01 / 0.54, 0.0, 0.49 / 0.54]])
    torch.testing.assert_close(sampler.probabilities(logits, kept), expected)
    torch.testing.assert_close(Sampler().probabilities(logits, kept), logits.exp())
    assert Sampler(top_k=1).probabilities(logits, kept)[0].tolist() == pytest.approx([0.7, 0.3, 0, 0])
    alone = torch.tensor([[0.0, float("-inf")]])
    assert sampler.probabilities(alone, torch.tensor([[True, False]])).tolist() == [[1.0, 0.0]]


def test_when_is_left_to_the_model_and_temperature_chooses_what():
    """At 0.95 and top-p 0.98 piano notes were half as long as those that the model has learnt from."""
    logits = torch.tensor([[0.2, 0.1, 0.2, 0.1, 0.4]]).log()
    timing = torch.tensor([False, False, True, True, False])
    sampler = Sampler(temperature=0.5, top_p=0.9)
    expected = torch.tensor([[0.7 * 0.2, 0.0, 0.2, 0.1, 0.7 * 0.8]])
    torch.testing.assert_close(sampler.probabilities(logits, timing), expected)
    only_time = logits.masked_fill(~timing, float("-inf"))
    torch.testing.assert_close(sampler.probabilities(only_time, timing)[0, 2:4], torch.tensor([2 / 3, 1 / 3]))


def test_rhythm_has_a_temperature_of_its_own():
    """What is exempt is tempered one by one, all others together as one; and among the others the temperature chooses."""
    logits = torch.tensor([[0.6, 0.1, 0.2, 0.1]]).log()
    exempt = torch.tensor([True, True, False, False])
    cold = Sampler(temperature=0.5, rhythm_temperature=0.5).probabilities(logits, exempt)
    when = torch.tensor([0.36, 0.01, 0.09]) / 0.46
    torch.testing.assert_close(cold[0], torch.tensor([when[0], when[1], when[2] * 0.8, when[2] * 0.2]))
    only = Sampler(rhythm_temperature=0.5).probabilities(logits.masked_fill(~exempt, float("-inf")), exempt)
    torch.testing.assert_close(only[0, :2], torch.tensor([0.36, 0.01]) / 0.37)
    none = Sampler(rhythm_temperature=0.5).probabilities(logits.masked_fill(exempt, float("-inf")), exempt)
    torch.testing.assert_close(none[0, 2:], torch.tensor([2 / 3, 1 / 3]))
    with pytest.raises(ValueError, match="rhythm_temperature"):
        Sampler(rhythm_temperature=0)


def test_tokenizers_say_which_ids_temperature_leaves_alone():
    exempt = tokenizers.create("performance").exempt_from_temperature(None)
    assert exempt is not None and (~exempt).sum() == 88 + 32  # keys and velocities are chosen
    grid = tokenizers.create("grid")
    ids = torch.tensor([[grid.bos, 70, 60, 50, 40], [grid.bos, 71, 61, 51, 41]])
    features, _ = grid.features(ids)
    sustained = grid.exempt_from_temperature(features[:, -1])
    assert sustained is not None and sustained.nonzero().tolist() == [[0, 70], [1, 71]]  # the soprano's turn again
    score = tokenizers.create("score")
    exempt = score.exempt_from_temperature(None)
    assert exempt is not None
    chosen = {score.vocabulary[i].kind for i in (~exempt).nonzero().flatten().tolist()}
    assert chosen == {Kind.NOTE_ON}


def test_the_temperature_of_rhythm_applies_between_the_beats_of_the_grid():
    logits = torch.tensor([[2.0, 1.0, 0.0]]).repeat(2, 1)
    exempt = torch.tensor([True, False, False])
    grid = tokenizers.create("grid")
    features, _ = grid.features(torch.tensor([[grid.bos] + [60] * 4, [grid.bos] + [60] * 4]))
    tempered = torch.stack([grid.tempers_rhythm(features[:, at])[0] for at in (0, 4)])
    assert tempered.tolist() == [[False], [True]]  # the first cell of all is on the beat, the fifth is not
    found = Sampler(rhythm_temperature=0.5).probabilities(logits, exempt, None, tempered)
    plain, cold = (Sampler(rhythm_temperature=t).probabilities(logits, exempt) for t in (1.0, 0.5))
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], cold[1]) and cold[1, 0] > plain[0, 0]
    assert tokenizers.create("score").tempers_rhythm(None) is None


def test_sampling_asks_which_tokens_are_exempt_at_each_step():
    """Greedy but for one token: at temperature near 0 and with an exempt token that is impossible, nothing else changes."""
    model, prompt = tiny("gru"), torch.zeros(2, 1, dtype=torch.int64)
    asked = []

    def exempt(features):
        asked.append(features)
        return torch.arange(40) == 7

    cold = Sampler(temperature=1e-3, constraints=[BannedTokens(40, [7])])
    tokens = drawn(model, prompt, dataclasses.replace(cold, exempt=exempt), count=5)
    assert torch.equal(tokens, drawn(model, prompt, cold, count=5)) and asked == [None] * 5
    free = dataclasses.replace(cold, exempt=exempt, constraints=())
    assert (drawn(model, prompt.expand(2, -1), free, count=40) == 7).any()


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"min_p": 2}])
def test_impossible_filters_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampler(**wrong)


def test_a_rule_keeps_out_what_it_forbids_and_may_not_forbid_everything():
    model, prompt = tiny("gru"), torch.zeros(2, 1, dtype=torch.int64)
    tokens = drawn(model, prompt, Sampler(constraints=[BannedTokens(40, range(39))]), count=5)
    assert (tokens == 39).all()
    with pytest.raises(ValueError, match="every token"):
        drawn(model, prompt, Sampler(constraints=[BannedTokens(40, range(40))]))
