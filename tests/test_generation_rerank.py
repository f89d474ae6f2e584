"""Best-of-n reranking: the critic, its place in a checkpoint, and what is kept by it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from symusic import Note, Score, Tempo, TimeSignature, Track

from musiclm import checkpoint, midi, tokenizers
from musiclm.checkpoint import install
from musiclm.errors import CheckpointError
from musiclm.evaluation import yardstick
from musiclm.generation import critic, provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.critic import Critic
from musiclm.generation.files import generate_files
from musiclm.generation.options import OptionError
from tests.conftest import tiny

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
GRID = tokenizers.create("grid")


def eighths(bars: int, beats: int = 4, first: int = 0) -> Score:
    """Return a line of eighths, another pitch each, behind so many bars of silence."""
    score = Score(480)
    score.time_signatures.append(TimeSignature(0, beats, 4))
    score.tempos.append(Tempo(0, 60))
    track = Track("", 0)
    for i in range(2 * beats * bars):
        track.notes.append(Note(2 * beats * first * 240 + i * 240, 240, 60 + i % 12, 80))
    score.tracks.append(track)
    return score


def made_critic(kind: str, **weights: float) -> Critic:
    names = tuple(weights)
    return Critic(
        kind=kind, bars=4, names=names, mean=np.full(len(names), 2.0), scale=np.full(len(names), 0.5),
        weights=np.array([*weights.values(), *[0.0] * len(weights)]), bias=0.25,
    )  # fmt: skip


def with_critic(path: Path, made: Critic, **card: object) -> Path:
    loaded = checkpoint.load(str(path))
    changed = path.with_name(f"with-{path.name}")
    changed.write_bytes(
        checkpoint.with_critic(loaded, made.tensors(), loaded.card | {"critic": made.described()} | card)
    )
    return changed


def test_windows_overlap_by_half_and_the_last_one_ends_with_the_music():
    assert [p.note_num() for p in critic.windows(eighths(4, beats=3), "score", 4)] == [24]
    assert len(critic.windows(eighths(8), "score", 4)) == 3
    seven = critic.windows(eighths(7), "score", 4)
    assert [p.note_num() for p in seven] == [32, 32, 32] and midi.end(seven[2]) == 16
    assert seven[2].tracks[0].notes[0].pitch == 60 + 24 % 12
    assert [p.note_num() for p in critic.windows(eighths(3), "score", 4)] == [24]
    assert critic.windows(Score(480), "score", 4) == []
    behind_silence = critic.windows(eighths(4, first=3), "score", 4)
    assert [p.note_num() for p in behind_silence] == [32], "bars before the first note do not count"


def test_behind_a_prompt_the_first_window_begins_within_it():
    parts = critic.windows(eighths(10), "score", 4, start=16.0)
    assert [p.note_num() for p in parts] == [32] * 3  # bars 3-6, 5-8 and 7-10: bar 5 begins the new music
    assert parts[0].tracks[0].notes[0].pitch == 60 + 16 % 12
    assert critic.windows(eighths(4), "score", 4, start=16.0) == [], "nothing new"


def test_a_bar_of_piano_music_is_two_seconds():
    parts = critic.windows(eighths(8), "piano", 4)  # 32 quarters of a second each: 16 bars
    assert [p.note_num() for p in parts] == [16] * 7
    behind = critic.windows(eighths(8), "piano", 4, start=16.0)
    assert len(behind) == 4 and behind[0].tracks[0].notes[0].pitch == 60 + 24 % 12


def test_the_log_odds_are_the_mean_over_windows_of_a_sum_that_can_be_done_by_hand():
    score = eighths(7)
    made = made_critic("score", pitch_class_entropy=0.5, polyphony=-1.5)
    expected = []
    for part in critic.windows(score, "score", 4):
        values = yardstick.values(part, "score", bars=None)
        z = [max(-4.0, min(4.0, (values[name] - 2.0) / 0.5)) for name in made.names]
        expected.append(0.25 + 0.5 * z[0] - 1.5 * z[1])
    assert made.log_odds(score) == pytest.approx(np.mean(expected))
    assert made.log_odds(score, start=100.0) == critic.SILENT < -50


def test_what_is_missing_and_what_is_far_away_have_bounds():
    made = made_critic("score", pitch_class_entropy=0.5, polyphony=-1.5)
    odds = made.of_table(np.array([[np.nan, np.nan], [np.nan, 2.5], [1e9, np.nan]]))
    assert odds.tolist() == [0.25, 0.25 - 1.5, 0.25 + 0.5 * 4]


def test_no_critic_looks_at_the_end_of_a_piece_which_samples_do_not_have():
    left_out = set(yardstick.names("chorale")) - set(critic.names("chorale"))
    assert left_out == {"ends_on_tonic", "ends_held"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid-gru.safetensors"
    model = tiny("gru", GRID.vocab_size, **GRID.model_config)
    checkpoint.save(path, model, arch="gru", tokenizer=GRID, card={"data": "none"}, dtype=torch.float16)
    return path


def test_a_checkpoint_has_its_critic_and_the_model_stays_the_same_to_the_byte(file: Path):
    made = made_critic("chorale", triads=1.0, crossed=-1.0)
    plain, changed = checkpoint.load(str(file)), checkpoint.load(str(with_critic(file, made)))
    assert Critic.of(plain) is None
    again = Critic.of(changed)
    assert again is not None and again.names == made.names and again.bars == made.bars
    for name, tensor in made.tensors().items():
        assert (again.tensors()[name] == tensor).all()
    assert changed.sha256 == plain.sha256 and changed.num_parameters == plain.num_parameters
    one, other = plain.model().state_dict(), changed.model().state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    other_critic = with_critic(with_critic(file, made), made_critic("chorale", triads=2.0))
    assert checkpoint.load(str(other_critic)).sha256 == plain.sha256
    assert Critic.of(checkpoint.load(str(other_critic))).names == ("triads",)


def test_a_new_run_does_not_inherit_a_critic(file: Path, tmp_path: Path):
    loaded = checkpoint.load(str(with_critic(file, made_critic("chorale", triads=1.0))))
    assert "critic" in loaded.card
    checkpoint.save(tmp_path / "new.safetensors", loaded.model(), arch="gru", tokenizer=GRID, card=loaded.card)
    new = checkpoint.load(str(tmp_path / "new.safetensors"))
    assert Critic.of(new) is None and "critic" not in new.card


def test_a_damaged_critic_is_refused_in_one_line_and_the_model_is_not(file: Path):
    changed = with_critic(file, made_critic("chorale", triads=1.0))
    data = bytearray(changed.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    first, _ = json.loads(data[8:begin])["critic.weights"]["data_offsets"]
    data[begin + first] ^= 1
    changed.write_bytes(data)
    loaded = checkpoint.load(str(changed))
    loaded.model()
    with pytest.raises(CheckpointError, match="its critic is not the one that was saved"):
        Critic.of(loaded)


@pytest.mark.parametrize(
    "described",
    [
        None,
        {"kind": "chorale", "bars": 4},
        {"kind": "song", "bars": 4, "measures": ["triads"]},
        {"kind": "chorale", "bars": 4, "measures": ["triads", "crossed"]},
        {"kind": "chorale", "bars": 4, "measures": ["beauty"]},
        {"kind": "chorale", "bars": 10**9, "measures": ["triads"]},
    ],
)
def test_a_critic_that_this_version_cannot_use_is_refused(file: Path, described):
    changed = with_critic(file, made_critic("chorale", triads=1.0), critic=described)
    with pytest.raises(CheckpointError, match="damaged, or of another version"):
        Critic.of(checkpoint.load(str(changed)))


def test_an_installed_model_brings_its_critic(file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "models"))
    with install.opened(str(with_critic(file, made_critic("chorale", triads=1.0)))) as source:
        installed = install.install(source, source.blocks, name="mine")
    assert Critic.of(installed).names == ("triads",)


def options(**given: object) -> GenerationConfig:
    return GenerationConfig.from_options(bars=4, **given)


@pytest.fixture
def judged(untrained, tmp_path) -> Path:
    """Return an untrained model with a critic that prefers few different pitch classes."""
    plain = Path(untrained("grid"))
    copied = tmp_path / plain.name
    copied.write_bytes(plain.read_bytes())
    return with_critic(copied, made_critic("chorale", pitch_class_entropy=-1.0), sampling={"draw": 3})


def test_the_critic_ranks_and_the_best_of_each_draw_is_kept(judged: Path):
    writer = Composer.load(str(judged))
    prompt = writer.prompt(None)
    kept, ranked = writer.generate_best(prompt, options(n=2, draw=3), 1)
    odds = {each.composition.index: each.log_odds for each in ranked}
    assert sorted(odds) == list(range(6)) and len(set(odds.values())) > 1
    assert [each.log_odds for each in ranked] == sorted(odds.values(), reverse=True)
    assert [c.index for c in kept] == [max(range(3), key=odds.get), max(range(3, 6), key=odds.get)]
    made = Critic.of(writer.checkpoint)
    for each in ranked:
        assert each.log_odds == made.log_odds(prompt.decoded(each.composition.ids)) and each.distance is None
    best, again = writer.generate_best(prompt, options(n=6, keep=2), 1)
    assert [c.index for c in best] == [each.composition.index for each in ranked[:2]]
    assert [each.log_odds for each in again] == [each.log_odds for each in ranked]


def test_a_recommended_draw_is_for_one_variation_and_its_record_gives_it_again(judged: Path):
    made = generate_files(options(), seed=4, model=str(judged))
    assert len(made.files) == 1 and len(made.ranked) == 3
    (file,) = made.files
    assert file.composition.index == made.ranked[0].composition.index
    record = provenance.read(midi.parse(file.data, "made.mid"), "made.mid")
    assert (record.request.n, record.request.keep, record.request.draw) == (3, 1, 1)
    without = checkpoint.load(str(judged.with_name(judged.name.removeprefix("with-"))))
    assert provenance.check(record, without, None) == [], "the critic is no part of the music"
    assert provenance.reproduce(record, Composer(without), None) == file.data
    for given in ({"n": 2}, {"n": 2, "keep": 2}, {"draw": 1}, {"live": True}):
        plain = generate_files(options(**given), seed=4, model=str(judged))
        assert len(plain.files) == given.get("n", 1)
        assert len(plain.ranked) == (2 if "keep" in given else 0)
    with pytest.raises(OptionError, match="draw keeps the best of several: not with keep"):
        options(draw=2, n=2, keep=1)
    with pytest.raises(OptionError, match="draw must be 1"):
        GenerationConfig.from_options(draw=2, live=True)


def test_generate_draws_as_the_model_recommends_unless_it_is_told_a_number(run, judged: Path):
    asked = ["generate", "--model", judged, "--bars", 4, "--seed", 4]
    code, out, err = run(*asked, "-o", "a.mid", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert len(document["outputs"]) == 1 and len(document["weighed"]) == 3
    assert [w["kept"] for w in document["weighed"]] == [True, False, False]
    assert document["outputs"][0]["index"] == document["weighed"][0]["index"]
    for given, files, weighed in ((["-n", 1], 1, 0), (["--draw", 1], 1, 0), (["-n", 2, "--draw", 2], 2, 4)):
        code, out, err = run(*asked, *given, "-o", "out/", "--json")
        document = json.loads(out)
        assert (len(document["outputs"]), len(document.get("weighed", []))) == (files, weighed), given
    code, out, err = run(*asked, "-o", "b.mid")
    assert code == 0 and "of 3, by the critic" in err and "log odds" not in err
    assert Path("b.mid").read_bytes() == Path("a.mid").read_bytes()
    code, out, err = run("repro", "b.mid", "--model", judged)
    assert code == 0 and "the same" in err
    code, out, err = run(*asked, "-n", 3, "--keep", 1, "-o", "c.mid")
    assert code == 0 and err.count("log odds") == 3


def test_a_critic_is_fitted_by_what_tells_real_from_sampled():
    pytest.importorskip("sklearn")
    recipe = importlib.import_module("critic")
    random = np.random.default_rng(1)
    num = len(critic.names("chorale"))
    values = random.normal(size=(400, num))
    is_real = np.arange(400) % 2 == 0
    telling = critic.names("chorale").index("triads")
    values[is_real, telling] += 2.0
    values[random.random(values.shape) < 0.1] = np.nan
    pieces = np.arange(400) // 2 * 2 + is_real  # two windows each
    data = recipe.Data(values=values, is_real=is_real, groups=pieces // 8, pieces=pieces)
    made, figures = recipe.fitted(data, "chorale", 8)
    assert made.names[int(np.argmax(np.abs(made.weights)))] == "triads" and made.weights[telling] > 0
    assert 0.8 < figures["window_auc"] <= figures["piece_auc"] + 0.05
    assert np.nanmean(values, axis=0) == pytest.approx(made.mean)
    real = np.full((1, num), np.nan)
    real[0, telling] = 3.0
    assert made.of_table(real)[0] > 0 > made.of_table(-real)[0]


def test_samples_for_a_critic_are_reused_and_those_of_other_options_refused(untrained, tmp_path: Path, monkeypatch):
    pytest.importorskip("sklearn")
    recipe = importlib.import_module("critic")
    monkeypatch.setattr(recipe, "LENGTH", 2)
    monkeypatch.setattr(recipe, "NEW", 2)
    writer = Composer.load(untrained("grid"))
    source = recipe.open_source(None, writer.tokenizer)
    a = recipe.argparse.Namespace(samples=tmp_path / "samples", n=8, batch=3, seed=1)
    first = list(recipe.Samples(writer, "chorale", source, a).examples())
    assert len(first) == 8 and len({e.group for e in first}) == 5
    assert all(midi.num_bars(e.score) == (2 if e.start == 0 else 6) for e in first)
    stored = {path: path.stat().st_mtime_ns for path in a.samples.glob("*.mid")}
    again = list(recipe.Samples(writer, "chorale", source, a).examples())
    assert {path: path.stat().st_mtime_ns for path in a.samples.glob("*.mid")} == stored and len(again) == 8
    hotter = dataclasses.replace(writer.checkpoint, card={"sampling": {"temperature": 0.5}})
    with pytest.raises(ValueError, match="other weights or options"):
        recipe.Samples(Composer(hotter), "chorale", source, a)
    real = list(recipe.real_examples("chorale", source, first))
    assert sum(e.group.startswith("after") for e in real) == 1 and all(e.is_real for e in real)
    assert {e.group for e in real if e.start} == {e.group for e in first if e.start}
