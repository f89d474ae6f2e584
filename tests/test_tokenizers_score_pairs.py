"""Pairs as ids: both sides have the same bars and chords, each is a piece of `score`, and features begin anew at each."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from symusic import Score

from musiclm import data, midi, tokenizers
from musiclm.errors import MidiError, TokenizerError
from musiclm.midi import parts
from musiclm.tokenizers.score_pairs import PERIOD
from musiclm.tokenizers.vocabulary import Kind
from tests import crops_data
from tests.songs import song
from tests.tokenizers_data import band, real_scores

PAIRS, SCORE = tokenizers.create("score-pairs"), tokenizers.create("score")


def marked(score: Score, style: str = "band") -> Score:
    copied = score.copy()
    midi.add_text(copied, f"style: {style}")
    return copied


def of_kind(ids: np.ndarray, *kinds: Kind) -> list:
    return [PAIRS.vocabulary[i].value for i in ids.tolist() if PAIRS.vocabulary[i].kind in kinds]


def notes(score: Score) -> list[tuple[int, ...]]:
    return sorted(
        (n.time, n.duration, n.pitch, n.velocity, t.program, t.is_drum) for t in score.tracks for n in t.notes
    )


SCORES = [band(), *(crops_data.band(seed, bars) for seed, bars in ((2, 9), (3, 30)))]


def test_ids_are_those_of_score():
    assert PAIRS.is_paired
    assert not SCORE.is_paired
    assert list(PAIRS.vocabulary) == list(SCORE.vocabulary)
    assert PAIRS.feature_sizes == (*SCORE.feature_sizes, PERIOD + 1)


@pytest.mark.parametrize("score", SCORES)
def test_sides_are_the_parts_as_score_writes_them(score: Score):
    ids, _ = PAIRS.encode(marked(score))
    pairs, wanted = PAIRS.split(ids), parts.extract_pairs(score)
    assert len(pairs) == len(wanted) > 0
    assert np.array_equal(np.concatenate([side for pair in pairs for side in pair]), ids)
    for pair, (_, *of_kind_) in zip(pairs, wanted, strict=True):
        for side, part in zip(pair, of_kind_, strict=True):
            assert (side[0], side[-1]) == (PAIRS.bos, PAIRS.eos)
            assert notes(SCORE.decode(side)) == notes(SCORE.decode(SCORE.encode(part)[0]))
            assert of_kind(side, Kind.STYLE) == ["band"]


@pytest.mark.parametrize("archive", ["free-game-midi", "pop909", "openscore-lieder-midi"])
def test_both_sides_of_real_pairs_have_the_same_bars_and_chords(archive: str):
    found = 0
    for score in real_scores(archive, 5):
        try:
            pairs = PAIRS.split(PAIRS.encode(score)[0])
        except MidiError:
            continue
        whole = SCORE.encode(score)[0]
        for (source, target), (kind, *_) in zip(pairs, parts.extract_pairs(score), strict=True):
            found += 1
            times = [PAIRS.bars(side)[1] for side in (source, target)]
            assert np.array_equal(*times)
            assert np.array_equal(times[0], SCORE.bars(whole)[1])
            assert of_kind(source, Kind.LENGTH) == of_kind(target, Kind.LENGTH) == of_kind(whole, Kind.LENGTH)
            assert of_kind(source, Kind.CHORD) == of_kind(target, Kind.CHORD)
            if kind == "melody":
                assert of_kind(source, Kind.CHORD) == of_kind(whole, Kind.CHORD)
    assert found


def test_chords_of_other_kinds_are_those_of_what_is_given():
    score = marked(band())
    chords = {kind: of_kind(SCORE.encode(source)[0], Kind.CHORD) for kind, source, _ in parts.extract_pairs(score)}
    assert list(chords) == ["melody", "drums", "bass", "keys"]
    for pair, (kind, given) in zip(PAIRS.split(PAIRS.encode(score)[0]), chords.items(), strict=True):
        assert (of_kind(pair.target, Kind.CHORD) == given) == (kind != "melody")  # a melody alone has other chords


def test_decoding_gives_the_notes_of_both_sides_of_the_first_pair():
    for score in SCORES:
        ids, _ = PAIRS.encode(marked(score))
        again = PAIRS.decode(ids)
        assert notes(again) == notes(SCORE.decode(SCORE.encode(score)[0]))
        assert [(t.time, round(t.qpm)) for t in again.tempos] == [
            (t.time, round(t.qpm)) for t in SCORE.decode(SCORE.encode(score)[0]).tempos
        ]
        assert [m.text for m in again.markers] == ["style: band"]


def test_any_prefix_can_be_split_and_decoded():
    ids, _ = PAIRS.encode(band())
    first = PAIRS.split(ids)[0]
    for size in (0, 1, 2, len(first.source) - 1, len(first.source), len(first.source) + 1, len(first.source) + 40):
        pairs = PAIRS.split(ids[:size])
        assert sum(len(side) for pair in pairs for side in pair) == size
        assert PAIRS.decode(ids[:size]).note_num() <= PAIRS.decode(ids).note_num()


def test_only_ids_of_targets_count():
    ids, _ = PAIRS.encode(band())
    counted = np.split(PAIRS.eval_mask(ids), np.cumsum([len(s) for pair in PAIRS.split(ids) for s in pair])[:-1])
    for i, (pair, source, target) in enumerate(zip(PAIRS.split(ids), counted[::2], counted[1::2], strict=True)):
        assert not source.any(), i
        assert np.array_equal(target, SCORE.eval_mask(pair.target))
    alone = PAIRS.split(ids)[0].target
    assert np.array_equal(PAIRS.eval_mask(alone), SCORE.eval_mask(alone))


def test_features_of_each_side_are_those_of_score_and_the_number_of_the_bar():
    ids, _ = PAIRS.encode(crops_data.band(1, 70))
    found = PAIRS.features_of([ids])
    sides = [side for pair in PAIRS.split(ids) for side in pair]
    assert np.array_equal(found[:, :-1], np.concatenate([SCORE.features_of([side]) for side in sides]))
    bars = np.concatenate([np.cumsum([PAIRS.vocabulary[i].kind == Kind.BAR for i in side]) for side in sides])
    assert bars.max() >= 70
    assert np.array_equal(found[:, -1], np.where(bars == 0, 0, 1 + (bars - 1) % PERIOD))


def test_streamed_features_equal_those_of_whole_sequences_from_any_place():
    ids, _ = PAIRS.encode(crops_data.band(2, 12))
    wanted = PAIRS.features_of([ids])
    state, found = None, []
    for part in np.split(ids, [1, 7, len(ids) // 2]):
        features, state = PAIRS.features(torch.from_numpy(part)[None], state)
        found.append(features[0].numpy())
    assert np.array_equal(np.concatenate(found), wanted)
    begins = [0, 1, len(ids) // 3, len(PAIRS.split(ids)[0].source), len(ids) - 1]
    from_there = PAIRS.features_of([ids] * len(begins), begins)
    assert np.array_equal(from_there, np.concatenate([wanted[begin:] for begin in begins]))


def test_a_streaming_state_that_is_continued_twice_gives_the_same_twice():
    ids = torch.from_numpy(PAIRS.encode(band())[0])[None]
    _, state = PAIRS.features(ids[:, :100])
    first, second = (PAIRS.features(ids[:, 100:140], state)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_time_and_silence_are_those_of_the_last_side():
    ids, _ = PAIRS.encode(band())
    source, target = PAIRS.split(ids)[0]
    prompt = np.concatenate([source, target[:-1]])
    assert PAIRS.quarters(prompt) == SCORE.quarters(target[:-1])
    longer = PAIRS.pad_with_silence(prompt, 30.0)
    assert np.array_equal(longer, np.concatenate([source, SCORE.pad_with_silence(target[:-1], 30.0)]))
    headed = PAIRS.with_header(prompt, style="lied", new_bars=4, programs=[40])
    assert np.array_equal(headed[: len(source)], source)
    header = headed[len(source) : len(source) + 12]
    assert (of_kind(header, Kind.STYLE), of_kind(header, Kind.LENGTH)) == (["lied"], [8])
    assert 40 in of_kind(header, Kind.PROGRAM)


def test_each_side_forgets_parts_of_its_plan_by_itself():
    ids, _ = PAIRS.encode(marked(band()))
    styles = set()
    for seed in range(60):
        unknown = PAIRS.with_unknown(ids, np.random.default_rng(seed))
        styles.add(tuple("band" in of_kind(side, Kind.STYLE) for side in PAIRS.split(unknown)[0]))
    assert len(styles) == 4


@pytest.mark.parametrize("bars", [(0, 4), (3, 9), (8, 30), (29, 30)])
def test_a_crop_has_the_notes_of_its_bars_with_their_programs(bars: tuple[int, int]):
    first, stop = bars
    for side in (s for pair in PAIRS.split(PAIRS.encode(marked(crops_data.band(3, 30)))[0]) for s in pair):
        starts = PAIRS.bar_starts(side)
        crop = PAIRS.crop(side, starts, first, stop)
        begin = PAIRS.bars(side)[1][first] * 480
        end = [*PAIRS.bars(side)[1], np.inf][stop] * 480
        whole = [(n[0] - begin, *n[1:]) for n in notes(PAIRS.decode(side)) if begin <= n[0] < end]
        assert notes(PAIRS.decode(crop)) == whole
        assert len(of_kind(crop, Kind.BAR)) == stop - first
        assert of_kind(crop, Kind.LENGTH) == [30 - first]
        assert (crop[-1] == PAIRS.eos) == (stop == 30)
        assert len(crop) <= starts[stop] - starts[first] + starts[0] + 4


def test_some_bars_of_all_pairs_are_a_piece_by_themselves():
    ids, _ = PAIRS.encode(marked(crops_data.band(3, 30)))
    parts_ = [PAIRS.bars_between(ids, first, stop) for first, stop in ((0, 24), (24, 27), (27, 30))]
    for part, bars in zip(parts_, (24, 3, 3), strict=True):
        assert len(PAIRS.split(part)) == len(PAIRS.split(ids))
        for side in (side for pair in PAIRS.split(part) for side in pair):
            assert (side[0], side[-1]) == (PAIRS.bos, PAIRS.eos)
            assert (of_kind(side, Kind.LENGTH), len(of_kind(side, Kind.BAR))) == ([bars], bars)
            assert of_kind(side, Kind.STYLE) == ["band"]
    assert sum(PAIRS.decode(part).note_num() for part in parts_) == PAIRS.decode(ids).note_num()


def test_bars_without_notes_on_one_side_are_no_piece():
    score = band()
    for track in score.tracks[1:]:  # bass and drums are silent in the last of four bars
        track.notes = type(track.notes)([n for n in track.notes if n.time < 4800])
    pairs = {
        kind: np.concatenate(pair)
        for (kind, *_), pair in zip(parts.extract_pairs(score), PAIRS.split(PAIRS.encode(score)[0]), strict=True)
    }
    assert len(PAIRS.bars_between(pairs["drums"], 2, 3))
    with pytest.raises(MidiError, match="bars 4 to 4"):
        PAIRS.bars_between(pairs["drums"], 3, 4)
    for first in (4, 5):
        with pytest.raises(MidiError, match="no pair"):
            PAIRS.bars_between(pairs["drums"], first, 8)
    both = np.concatenate([pairs["drums"], pairs["melody"]])
    assert np.array_equal(PAIRS.bars_between(both, 3, 4), PAIRS.bars_between(pairs["melody"], 3, 4))


def test_what_has_no_pair_is_refused():
    alone = Score(480)
    alone.tracks.append(band().tracks[1])
    with pytest.raises(MidiError, match="no two parts"):
        PAIRS.encode(alone)


def test_it_comes_back_from_its_description_and_has_one_version_and_no_merges():
    again = tokenizers.from_description(json.loads(json.dumps(PAIRS.describe())))
    assert np.array_equal(again.encode(band())[0], PAIRS.encode(band())[0])
    with pytest.raises(TokenizerError, match="version 2"):
        tokenizers.create("score-pairs", features=2)
    with pytest.raises(TokenizerError, match="BPE"):
        PAIRS.trained_bpe([], num_merges=4)


def test_a_corpus_of_another_version_of_pairs_is_refused(tmp_path):
    """A version was declared, but nothing stored or compared it."""
    midi.write(song([(4, 4)] * 4, tracks="melody chords drums"), tmp_path / "song.mid")
    for _ in data.build_corpus([tmp_path / "song.mid"], tmp_path / "store", PAIRS, data.Options(workers=0)):
        pass
    file = tmp_path / "store" / "corpus.json"
    document = json.loads(file.read_text("utf-8"))
    described = document["tokenizer"]
    assert described["pairs"] == parts.PAIRS_VERSION == 2
    for version in (None, 1, 2):  # corpora of the first version may not say it
        described.pop("pairs") if version is None else described.update(pairs=version)
        file.write_text(json.dumps(document), "utf-8")
        for tokenizer in (None, PAIRS):
            assert len(data.open_store(tmp_path / "store", tokenizer).pieces("train")) <= 1
    described["pairs"] = 3
    file.write_text(json.dumps(document), "utf-8")
    for tokenizer in (None, PAIRS):
        with pytest.raises(TokenizerError, match=r"pairs of version 3.*makes those of version 2: build the corpus"):
            data.open_store(tmp_path / "store", tokenizer)


def test_the_first_version_of_pairs_is_that_of_descriptions_without_one(monkeypatch):
    described = PAIRS.describe()
    described.pop("pairs")
    assert tokenizers.from_description(described).describe() == {**PAIRS.describe(), "pairs": 1}
    monkeypatch.setattr(parts, "PAIRS_VERSIONS", (2,))
    with pytest.raises(TokenizerError, match="pairs of version 1"):
        tokenizers.from_description(described)
