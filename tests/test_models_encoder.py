"""Encoders: each note's hidden state knows both directions, or the past only; padding changes nothing."""

from __future__ import annotations

import pytest
import torch

from musiclm import models
from musiclm.models.encoder import EncoderModel

ARCHS = models.names(models.ENCODER)


def tiny(arch: str, **config) -> EncoderModel:
    torch.manual_seed(0)
    model = models.create(arch, 128, **models.preset(arch, "tiny") | {"num_layers": 2, "feature_sizes": (5,)} | config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def notes(batch: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 128, (batch, number)), torch.randint(0, 5, (batch, number, 1))


def test_the_kind_has_its_architectures():
    assert ARCHS == ["bidirectional_gru", "bidirectional_lstm", "bidirectional_rnn", "bidirectional_transformer"]
    assert not set(ARCHS) & {*models.names(), *models.names(models.SEQ2SEQ)} and set(ARCHS) < set(models.names(None))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("both", [True, False])
def test_a_padded_batch_gives_what_each_sequence_gives_alone(arch: str, both: bool):
    model, sizes = tiny(arch, both=both), (3, 9, 1)
    pitches, features = notes(3, 9)
    mask = torch.arange(9) < torch.tensor(sizes)[:, None]
    with torch.no_grad():
        together = model(pitches, features, mask)
        for i, size in enumerate(sizes):
            alone = model(pitches[i : i + 1, :size], features[i : i + 1, :size])
            torch.testing.assert_close(together[i : i + 1, :size], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("both", [True, False])
def test_hidden_states_know_the_notes_after_their_own_only_in_both_directions(arch: str, both: bool):
    model = tiny(arch, both=both)
    pitches, features = notes(1, 20)
    for changed in (0, 7, 19):
        other = pitches.clone()
        other[0, changed] = (other[0, changed] + 1) % 128
        with torch.no_grad():
            differs = (model(pitches, features) - model(other, features)).abs().amax(-1)[0] > 1e-6
        assert differs[changed]
        assert bool(differs[:changed].any()) == (both and changed > 0)
        assert bool(differs[changed + 1 :].any()) == (changed < 19)


@pytest.mark.parametrize("arch", ARCHS)
def test_features_count_and_gradients_reach_all_parameters(arch: str):
    model = tiny(arch).train()
    pitches, features = notes(2, 12)
    assert not torch.allclose(model.eval()(pitches, features), model(pitches, (features + 1) % 5))
    model(pitches, features).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("size", models.SIZES)
def test_presets_make_encoders(arch: str, size: str):
    with torch.device("meta"):
        model = models.create(arch, 128, **models.preset(arch, size))
    assert model.size == models.preset(arch, size)["size"]
    assert models.training(arch).keys() == {"learning_rate", "batch_size", "window"}


@pytest.mark.parametrize("arch", ARCHS)
def test_impossible_configs_are_refused(arch: str):
    with pytest.raises(ValueError, match="num_layers"):
        models.create(arch, 128, num_layers=0)
    with pytest.raises(ValueError, match="size"):
        models.create(arch, 128, size=33)
