"""The note classifier: sets of notes, the network, training, calibration, files."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from musiclm import checkpoint
from musiclm.audio import FAMILIES, augment, dataset, mel, metrics, training
from musiclm.audio import fit as fitting
from musiclm.audio import models as note_models
from musiclm.audio.classifier import NoteClassifier, loudest_picture
from musiclm.errors import AudioError, CheckpointError, CorpusError
from musiclm.evaluation.classification import (
    calibration_error,
    equal_mass_calibration_error,
    fit_temperature,
    grouped_bootstrap,
)

torch.set_num_threads(1)
TINY = {"channels": (4, 4, 8, 8)}


def note(family: str, hz: float, seconds: float = 0.5) -> np.ndarray:
    """Return a note that can be classified: a flute is a sine wave, a reed a square wave."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    wave = np.sin(2 * np.pi * hz * t)
    return (0.5 * (wave if family == "flute" else np.sign(wave) * 0.5)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a set with one folder per family: two families, three instruments each, four notes each."""
    root = tmp_path_factory.mktemp("notes")
    for family in ("flute", "reed"):
        for instrument in range(3):
            (root / family / f"player-{instrument}").mkdir(parents=True)
            for i in range(4):
                hz = 300 * 1.1 ** (3 * i + instrument)
                path = root / family / f"player-{instrument}" / f"{i}.wav"
                soundfile.write(path, note(family, hz), 16_000)
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path) -> training.PreparedNotes:
    *_, result = training.prepare(dataset.read_notes(folder), versions=2, seed=0, workers=1)
    return result


@pytest.fixture(scope="module")
def trained(prepared: training.PreparedNotes) -> NoteClassifier:
    """Return a tiny classifier that distinguishes flutes from reeds."""
    recipe = training.Recipe(steps=40, batch=16, warmup_steps=5, learning_rate=1e-2, ema_decay=0.9, mixup=0.0, seed=1)
    *_, classifier = fitting.fit(prepared, prepared, recipe, config=TINY)
    assert isinstance(classifier, NoteClassifier)
    return classifier


def test_one_folder_per_family_is_read_with_its_instruments(folder: Path) -> None:
    notes = dataset.read_notes(folder)
    assert len(notes) == 24
    assert {(n.family, n.instrument) for n in notes} == {
        (f, f"{f}/player-{i}") for f in ("flute", "reed") for i in range(3)
    }


def test_a_table_is_read_with_its_splits(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    with table.open("w", newline="") as file:
        rows = [["file", "family", "instrument", "split", "midi_pitch"]]
        rows.append([folder / "flute/player-0/0.wav", "flute", "a", "valid", "62"])
        csv.writer(file).writerows([*rows, [folder / "reed/player-0/0.wav", "reed", "b", "", ""]])
    read = dataset.read_notes(table)
    assert [(n.family, n.instrument, n.split) for n in read] == [("flute", "a", "validation"), ("reed", "b", None)]
    assert read[0].path.is_file()
    assert [n.midi_pitch for n in read] == [62, None]


def test_an_nsynth_download_works_as_it_is(tmp_path: Path) -> None:
    for split, name in (("train", "bass_synthetic_068-049-025"), ("valid", "vocal_acoustic_000-055-127")):
        part = tmp_path / f"nsynth-{split}"
        (part / "audio").mkdir(parents=True)
        family, instrument = name.split("_")[0], name.split("-")[0]
        example = {"instrument_family_str": family, "instrument_str": instrument, "pitch": 49}
        (part / "examples.json").write_text(json.dumps({name: example}))
        soundfile.write(part / "audio" / f"{name}.wav", note("flute", 300), 16_000)
    notes = dataset.read_notes(tmp_path)
    assert [(n.family, n.instrument, n.split) for n in notes] == [
        ("bass", "bass_synthetic_068", "train"),
        ("vocal", "vocal_acoustic_000", "validation"),
    ]
    assert all(n.path.is_file() for n in notes)
    assert notes[0].midi_pitch == 49
    assert len(dataset.read_notes(tmp_path / "nsynth-train")) == 1


@pytest.mark.parametrize(
    ("stem", "instrument"),
    [
        ("bass_synthetic_068-049-025", "bass_synthetic_068"),
        ("cello_A3_forte", "cello"),
        ("alto sax-C#4", "alto sax"),
        ("piano-060", "piano"),
        ("choir", "choir"),
    ],
)
def test_a_file_name_tells_its_instrument(stem: str, instrument: str) -> None:
    assert dataset.instrument_of(stem) == instrument


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "first line"),
        ("path,family\na.wav,bass\n", "first line"),
        ("file,family\na.wav,banjo\n", "line 2 .*'banjo'"),
        ("file,family,split\na.wav,bass,mine\n", "line 2 .*'mine'"),
        ("file,family,weight\na.wav,bass,much\n", "line 2 .*'much'"),
        ("file,family,weight\na.wav,bass,nan\n", "line 2 .*'nan' is not above 0 and finite"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "notes.csv").write_text(content)
    with pytest.raises(CorpusError, match=words):
        dataset.read_notes(tmp_path)


def test_no_notes_say_what_a_set_looks_like(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="one folder per family"):
        dataset.read_notes(tmp_path)
    with pytest.raises(CorpusError, match="neither a folder"):
        dataset.read_notes(tmp_path / "none")


@pytest.mark.parametrize("seed", range(5))
def test_no_instrument_is_on_both_sides_of_a_split(folder: Path, seed: int) -> None:
    notes = dataset.read_notes(folder)
    learn, choose = dataset.split_by_instrument(notes, share=0.1, seed=seed)
    assert len(learn) + len(choose) == len(notes)
    assert {n.family for n in choose} == {"flute", "reed"}
    assert not {(n.family, n.instrument) for n in learn} & {(n.family, n.instrument) for n in choose}
    assert dataset.split_by_instrument(notes, share=0.1, seed=seed) == (learn, choose)


def test_families_are_sampled_equally_often(prepared: training.PreparedNotes) -> None:
    keep = [i for i, n in enumerate(prepared.notes) if n.family == "flute" or n.instrument.endswith("0")]
    weights = training.sampling_weights([prepared.notes[i] for i in keep])
    flutes = torch.tensor([prepared.notes[i].family == "flute" for i in keep])
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[flutes].sum()) == pytest.approx(0.5)


def test_a_strip_holds_the_picture(folder: Path) -> None:
    sound = torch.from_numpy(soundfile.read(folder / "reed/player-0/0.wav", dtype="float32")[0])
    picture = augment.pictures(augment.strip(sound)[None])[0]
    assert float((picture - mel.log_mel(sound)).abs().mean()) < 0.5  # half a step of 0.5 dB, and the first frame's edge


def test_variations_are_pictures_and_repeat_with_their_seed(prepared: training.PreparedNotes) -> None:
    strips = prepared.strips[:, 0]
    one, same, other = (augment.vary(strips, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (24, 64, 64)
    assert float(one.min()) >= mel.FLOOR_DB
    assert float(one.max()) <= 0


def test_half_of_the_spectra_are_shifted_by_one_or_two_bands() -> None:
    power = torch.zeros(400, mel.NUM_BANDS, 2)
    power[:, 30] = 1.0
    power[:, 0] = 0.5
    shifted = augment._shift(power, torch.Generator().manual_seed(0))
    by = shifted[..., 0].argmax(dim=1) - 30
    assert 160 < int((by == 0).sum()) < 240
    assert sorted(by.unique().tolist()) == [-2, -1, 0, 1, 2]
    lower = by < 0
    assert torch.equal(
        shifted[lower].sum(dim=1), torch.ones(int(lower.sum()), 2)
    )  # what is shifted out does not return
    assert torch.equal(shifted[~lower].sum(dim=1), torch.full((int((~lower).sum()), 2), 1.5))


@pytest.mark.slow
def test_preparing_in_two_processes_gives_the_same(
    folder: Path, prepared: training.PreparedNotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHUNK", 12)
    *_, again = training.prepare(dataset.read_notes(folder), versions=2, seed=0, workers=2)
    assert torch.equal(again.strips, prepared.strips)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(prepared: training.PreparedNotes) -> None:
    def run() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        *_, step = training.train(
            note_models.create("cnn", **TINY), prepared, training.Recipe(steps=3, batch=8, seed=5)
        )
        return step.model.state_dict()

    one, two = run(), run()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_classifier_file_without_arch_is_a_cnn_and_one_of_no_architecture_is_refused(
    trained: NoteClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "mine.safetensors"
    trained.save(path)
    metadata, _ = checkpoint.read_header(path)
    for arch, is_read in ((None, True), ("nothing", False)):
        stored = {k: v for k, v in json.loads(metadata["classifier"]).items() if k != "arch"}
        stored |= {} if arch is None else {"arch": arch}
        tensors = trained.model.state_dict()
        path.write_bytes(checkpoint.pack(tensors, {"classifier": json.dumps(stored)}))
        if is_read:
            assert note_models.arch_of(NoteClassifier.load(path).model) == "cnn"
        else:
            with pytest.raises(CheckpointError, match="no architecture 'nothing'"):
                NoteClassifier.load(path)


def test_it_learns_to_distinguish_two_families(trained: NoteClassifier) -> None:
    for family, hz in (("flute", 415.0), ("reed", 415.0)):
        assert trained.predict(torch.from_numpy(note(family, hz, 0.8))).family == family


def test_one_by_one_is_all_at_once(trained: NoteClassifier) -> None:
    pictures = [mel.log_mel(torch.from_numpy(note(f, hz))) for f in ("flute", "reed") for hz in (300, 500, 700)]
    together = trained.look(pictures)
    for picture, prediction in zip(pictures, together, strict=True):
        alone = trained.look([picture])[0]
        assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
        assert sum(alone.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert list(alone.probabilities.values()) == sorted(alone.probabilities.values(), reverse=True)
    assert trained.look([]) == []


def test_a_classifier_comes_back_from_its_file(trained: NoteClassifier, tmp_path: Path) -> None:
    trained.card = {"data": "two families"}
    trained.save(tmp_path / "mine.safetensors")
    again = NoteClassifier.load(tmp_path / "mine.safetensors")
    assert again.card == trained.card
    assert again.temperature == trained.temperature
    sound = torch.from_numpy(note("reed", 350))
    assert again.predict(sound).probabilities == pytest.approx(trained.predict(sound).probabilities, abs=5e-3)  # fp16


def test_damaged_files_are_refused(trained: NoteClassifier, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    trained.save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match="cut off"):
        NoteClassifier.load(path)
    path.write_bytes(whole[: header + 5] + bytes([whole[header + 5] ^ 1]) + whole[header + 6 :])
    with pytest.raises(CheckpointError, match="damaged"):
        NoteClassifier.load(path)
    path.write_bytes(whole.replace(b'\\"hop\\": 320', b'\\"hop\\": 160'))
    with pytest.raises(CheckpointError, match="other pictures"):
        NoteClassifier.load(path)
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        data[int(rng.integers(header))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            NoteClassifier.load(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


def test_calibration_error_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    right = torch.tensor([True, True, True, False, True, False])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 0


def test_calibration_error_of_equal_mass_by_hand() -> None:
    """Two bins of five and four: mean confidences 0.54 and 0.9, accuracies 2/5 and 4/4."""
    confidence = torch.tensor([0.9, 0.5, 0.9, 0.5, 0.6, 0.9, 0.5, 0.6, 0.9])
    right = torch.tensor([True, True, True, False, True, True, False, False, True])
    assert equal_mass_calibration_error(confidence, right, 2) == pytest.approx(5 / 9 * 0.14 + 4 / 9 * 0.1)
    assert equal_mass_calibration_error(confidence, right, 1) == pytest.approx(0.3 / 9)
    each = (right.double() - confidence.double()).abs().mean()
    assert equal_mass_calibration_error(confidence, right, 20) == pytest.approx(float(each))
    assert equal_mass_calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 0
    with pytest.raises(ValueError, match="at least one bin"):
        equal_mass_calibration_error(confidence, right, 0)


def test_a_bootstrap_resamples_whole_groups() -> None:
    """Of two groups, all right and all wrong, a sample has two of the same or one of each: 0, 1/2 or 1."""
    right = torch.tensor([1.0] * 6 + [0.0] * 6)
    groups = ["a"] * 6 + ["b"] * 6
    seen = []

    def share(index: torch.Tensor) -> float:
        seen.append(float(right[index].mean()))
        return seen[-1]

    assert grouped_bootstrap(groups, share, samples=400) == (0.0, 1.0)
    assert set(seen) == {0.0, 0.5, 1.0}
    assert seen.count(0.5) / 400 == pytest.approx(0.5, abs=0.08)
    assert grouped_bootstrap(["only"] * 12, share) == (0.5, 0.5)
    without_b = grouped_bootstrap(groups, lambda i: float("nan") if (i > 5).all() else float(right[i].mean()))
    assert without_b == (0.5, 1.0)
    for groups, measure in (([], share), (["a"], lambda _: float("nan"))):
        with pytest.raises(ValueError):
            grouped_bootstrap(groups, measure)


def test_families_that_count_have_enough_notes_of_enough_sources() -> None:
    targets = torch.tensor([0] * 4 + [1] * 4 + [2] * 2)
    sources = [*"aabb", *"aaaa", *"ab"]
    assert metrics.covered_families(targets, sources, min_notes=3) == [0]
    assert metrics.covered_families(targets, sources, min_notes=2) == [0, 2]
    assert metrics.covered_families(targets, sources, min_notes=3, min_sources=1) == [0, 1]
    predicted = torch.tensor([0, 0, 0, 5, 1, 1, 0, 0, 2, 2])
    assert metrics.mean_recall(predicted, targets, [0, 1]) == pytest.approx((0.75 + 0.5) / 2)
    assert metrics.mean_recall(predicted, targets, [0, 9]) == pytest.approx(0.75)
    assert np.isnan(metrics.mean_recall(predicted, targets, [9]))


def test_the_mean_family_recall_weighs_families_the_same() -> None:
    targets = torch.tensor([0] * 8 + [1] * 2)
    probabilities = torch.nn.functional.one_hot(torch.tensor([0] * 8 + [1, 0]), 11).float()
    report = metrics.report(probabilities, targets, [False] * 10)
    assert report["mean_family_recall"] == pytest.approx((1 + 0.5) / 2)
    assert report["accuracy"] == pytest.approx(0.9)
    assert report["families"]["vocal"] == {"num_notes": 0, "recall": None}
    assert report["confusion"][1][:2] == [1, 1]


def test_the_fitted_temperature_calibrates_the_logits() -> None:
    """Targets sampled from softmax(scores / 2): the fit must find 2, whatever the class frequencies."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20_000, 11, generator=generator) * 4
    targets = torch.multinomial((scores / 2).softmax(dim=1), 1, generator=generator)[:, 0]
    assert fit_temperature(scores, targets) == pytest.approx(2, rel=0.05)


def test_the_classifier_is_not_taken_for_a_language_model() -> None:
    assert "instruments" not in checkpoint.bundled()


def test_the_bundled_classifier_is_small_and_says_what_it_is() -> None:
    classifier = NoteClassifier.load()
    assert sum(p.numel() for p in classifier.model.parameters()) < 2_000_000
    assert {"data", "licence", "credits", "figures", "command", "seed"} <= classifier.card.keys()
    assert classifier.model.config.num_families == len(FAMILIES)


def test_the_bundled_classifier_ignores_level_and_silence() -> None:
    """Public solutions give one answer to everybody's own recordings: wrong level, silence before the note."""
    t = torch.arange(48_000 * 2) / 48_000
    sound = sum(torch.sin(2 * torch.pi * 196 * k * t) / k**1.5 for k in range(1, 20)) * torch.exp(-2 * t)
    plain = NoteClassifier.load().predict(sound, 48_000)
    quiet = NoteClassifier.load().predict(sound * 0.003, 48_000)
    late = NoteClassifier.load().predict(torch.cat([torch.zeros(24_000), sound]), 48_000)
    for other in (quiet, late):
        assert other.family == plain.family
        assert other.probability == pytest.approx(plain.probability, abs=0.05)


def test_silence_has_no_picture() -> None:
    with pytest.raises(AudioError, match="silent"):
        loudest_picture(torch.zeros(16_000))


def test_a_run_that_is_stopped_keeps_the_best_weights_and_one_of_no_steps_has_none(
    prepared: training.PreparedNotes,
) -> None:
    recipe = training.Recipe(steps=40, batch=4, seed=1)
    events: list[object] = []
    for event in fitting.fit(prepared, prepared, recipe, config=TINY, should_stop=lambda: len(events) == 2):
        events.append(event)
    first, second, classifier = events
    assert isinstance(first, fitting.Check) and isinstance(second, fitting.Check) and second.step == 4
    assert isinstance(classifier, NoteClassifier)
    assert list(fitting.fit(prepared, prepared, recipe, config=TINY, should_stop=lambda: True)) == []
    *_, continued = fitting.fit(
        prepared, None, training.Recipe(steps=1, batch=4, learning_rate=0.0), start=classifier.model
    )
    assert isinstance(continued, NoteClassifier) and continued.model is not classifier.model
    for name, value in classifier.model.named_parameters():  # no random ones, and those of the start are not changed
        assert torch.equal(value, continued.model.get_parameter(name))
    with pytest.raises(ValueError, match="no steps"):
        list(fitting.fit(prepared, prepared, training.Recipe(steps=0, seconds=0), config=TINY))


def test_a_network_is_distilled_from_teachers(trained: NoteClassifier, prepared: training.PreparedNotes) -> None:
    """Without a right label among the targets, all that is learnt is the teacher's."""
    wrong = dataclasses.replace(prepared, targets=torch.full_like(prepared.targets, FAMILIES.index("vocal")))
    recipe = training.Recipe(steps=60, batch=16, warmup_steps=5, learning_rate=1e-2, ema_decay=0.9, mixup=0.0, seed=3)
    teachers = [trained.model, trained.model]
    first = next(training.distilled(training.batches(wrong, recipe), teachers))
    assert first.targets.sum(dim=1) == pytest.approx(torch.ones(16))
    assert first.targets[:, FAMILIES.index("vocal")].min() >= 1 - training.TAUGHT - 1e-6
    *_, classifier = fitting.fit(wrong, None, recipe, config=TINY, teachers=teachers)
    assert isinstance(classifier, NoteClassifier)
    found = training.scores(classifier.model, augment.pictures(prepared.strips[:, 0])).argmax(dim=1)
    assert (found == prepared.targets).float().mean() > 0.8
