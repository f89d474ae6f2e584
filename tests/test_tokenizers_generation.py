"""Tokenizers at work: models that know nothing go on from a prompt, and what comes is music of the asked length."""

from types import SimpleNamespace

import pytest
import torch

from musiclm import midi, models, tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from tests.tokenizers_data import band

torch.set_num_threads(1)


def composer(tokenizer):
    def model(device):
        torch.manual_seed(0)
        return models.create(
            "gru", tokenizer.vocab_size, **models.preset("gru", "tiny"), **tokenizer.model_config
        ).eval()

    return Composer(SimpleNamespace(name="untrained", tokenizer=lambda: tokenizer, model=model, sampling={}))


def merged(name):
    base = tokenizers.create(name)
    return base.trained_bpe([base.encode(band())[0]] * 2, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["performance", "score", "TSD", "MIDILike", "PerTok", "Structured", "BEAT"])
@pytest.mark.parametrize("with_merges", [False, True])
def test_a_prompt_is_continued_to_its_bars(name, with_merges):
    """Two bars of 3/4 at 90 and two of 4/4 at 120; two bars more, in the metre that the model draws if it has any."""
    writer = composer(merged(name) if with_merges else tokenizers.create(name))
    prompt = writer.prompt(band(), bars=4)
    assert prompt.quarters == 14
    composed = writer.generate(prompt, GenerationConfig(length=Length(bars=2)), seed=1)[0]
    assert composed.num_bars <= 6
    assert composed.num_notes > 40
    if name == "performance":  # a piano is all it knows, and time all it counts
        assert midi.end(composed.score) <= 22 and composed.seconds <= 12.001
    else:
        assert {(t.program, t.is_drum) for t in composed.score.tracks} >= {(0, False), (33, False), (0, True)}
    if name != "PerTok":  # knows no bars: what it draws at random may lie behind them all, and that is said
        new = writer.generate(prompt, GenerationConfig(length=Length(bars=2), only_new=True), seed=1)[0]
        assert new.num_bars <= 3  # the prompt may end within one


def test_a_performance_goes_on_in_the_tempo_of_its_prompt():
    writer = composer(tokenizers.create("performance"))
    prompt = writer.prompt(band(), bars=2)
    assert prompt.quarters == 6
    composed = writer.generate(prompt, GenerationConfig(length=Length(bars=4)), seed=2)[0].score
    assert [round(t.qpm) for t in composed.tempos] == [90]
    assert [(t.numerator, t.denominator) for t in composed.time_signatures] == [(3, 4)]
    assert midi.end(composed) <= 18
    was = sorted((n.time, n.pitch) for t in band().tracks for n in t.notes if n.time < 6 * 480)
    kept = sorted((n.time, n.pitch) for t in composed.tracks for n in t.notes)
    assert len(kept) > len(was) and kept[: len(was)] == was
    assert all(time >= 6 * 480 for time, _ in kept[len(was) :])


def test_notes_that_still_sound_are_cut_at_the_end():
    writer = composer(tokenizers.create("performance"))
    composed = writer.generate(None, GenerationConfig(length=Length(seconds=3)), seed=3)[0]
    assert composed.num_notes > 0
    assert 2.9 < composed.seconds <= 3.001


def test_instruments_one_behind_the_other_can_be_written_but_not_continued():
    writer = composer(tokenizers.create("MMM"))
    with pytest.raises(TokenizerError, match="without a prompt"):
        writer.prompt(band())
    assert writer.generate(None, GenerationConfig(length=Length(tokens=80)), seed=0)[0].num_new_tokens == 80
