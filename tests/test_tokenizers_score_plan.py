"""The plan of score tokens: header, sections, repeats and chords, computed from the notes; and what training hides of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from symusic import Note, Score, TextMeta, TimeSignature, Track

from musiclm import tokenizers
from musiclm.data.crops import RandomCrops, ends_by_kind
from musiclm.tokenizers import score_plan
from musiclm.tokenizers.score import ScoreTokenizer
from musiclm.tokenizers.vocabulary import Kind
from tests.tokenizers_data import band, real_scores

torch.set_num_threads(1)
TOKENIZER = tokenizers.create("score")
assert isinstance(TOKENIZER, ScoreTokenizer)
PLAN = TOKENIZER.plan
assert PLAN is not None
WORDS = [*TOKENIZER.miditok_vocabulary, *TOKENIZER.own_special_tokens]
C, AM, F, G = (0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14)


def song(bars: list[tuple[tuple[int, ...], int]], beats: int = 4, style: str | None = None) -> Score:
    """Return a piano piece: of each bar a chord, semitones above middle C, and a melody's seed."""
    score, track = Score(480), Track("Piano", 0, False)
    score.time_signatures.append(TimeSignature(0, beats, 4))
    for number, (chord, seed) in enumerate(bars):
        start = number * beats * 480
        for pitch in chord:
            track.notes.append(Note(start, beats * 480, 48 + pitch, 80))
        for beat in range(beats):
            track.notes.append(Note(start + beat * 480, 240, 72 + chord[(seed + beat * (1 + seed % 2)) % 3], 90))
    score.tracks.append(track)
    if style is not None:
        score.markers.append(TextMeta(0, score_plan.STYLE_MARKER + style))
    return score


def words(ids: np.ndarray) -> list[str]:
    return [WORDS[i] for i in ids.tolist()]


def bars_of(ids: np.ndarray) -> list[list[str]]:
    """Return the attributes of each bar, what stands before their underscores left out."""
    starts = [i for i, word in enumerate(words(ids)) if word == "Bar_None"]
    return [[word.split("_")[1] for word in words(ids[i + 2 : i + 6])] for i in starts]


def test_the_header_says_style_length_time_signature_tempo_and_programs_drums_last():
    score = band()
    score.markers.append(TextMeta(0, "style: band"))
    ids, _ = TOKENIZER.encode(score)
    header = words(ids)[: words(ids).index("Bar_None")]
    assert header[:4] == ["BOS_None", "Style_band", "Length_4", "TimeSig_3/4"] and header[4].startswith("Tempo_89")
    assert header[5:] == ["Program_0", "Program_33", "Program_-1"]


def test_a_style_comes_back_as_a_marker_and_an_unknown_one_is_none():
    for style, found in (("lied", "lied"), ("reggae", None), (None, None)):
        ids, _ = TOKENIZER.encode(song([(C, 0)], style=style))
        assert TOKENIZER.vocabulary[ids[1]] == (Kind.STYLE, found)
        decoded = TOKENIZER.decode(ids)
        assert [m.text for m in decoded.markers] == ([f"style: {found}"] if found else [])


def test_chords_are_those_of_the_halves_and_bars_repeat_the_nearest_that_is_alike():
    verse = [(C, 0), (AM, 1), (F, 2), (G, 3)]
    ids, _ = TOKENIZER.encode(song([*verse, (AM, 0), (F, 0), (AM, 2), (F, 3), *verse]))
    found = bars_of(ids)
    assert [chord for _, _, *both in found[:4] for chord in both] == [
        "0:maj", "0:maj", "9:min", "9:min", "5:maj", "5:maj", "7:maj", "7:maj",
    ]  # fmt: skip
    assert [section for section, *_ in found] == [*"AAAABBBBAAAA"]
    assert [repeat for _, repeat, *_ in found][:4] == ["0"] * 4 and [r for _, r, *_ in found][8:] == ["8"] * 4


def test_a_note_that_sounds_into_the_next_half_counts_there():
    score, track = Score(480), Track("Piano", 0, False)
    for pitch in (48, 52, 55):
        track.notes.append(Note(0, 960, pitch, 80))
    for pitch in (53, 57, 60):
        track.notes.append(Note(960, 2880, pitch, 80))
    track.notes.append(Note(3840, 480, 41, 80))
    score.tracks.append(track)
    ids, _ = TOKENIZER.encode(score)
    assert [b[2:] for b in bars_of(ids)][:2] == [["0:maj", "5:maj"], ["5:maj", "5:maj"]]


@pytest.mark.parametrize("archive", ["openscore-lieder-midi", "groove-v1.0.0-midi", "free-game-midi"])
def test_real_pieces_come_back_with_the_same_plan(archive: str):
    plain = tokenizers.create("score", features=2)
    for score in real_scores(archive, 4):
        ids, left_out = TOKENIZER.encode(score)
        assert np.array_equal(PLAN.without(ids), plain.encode(score)[0]) and left_out == plain.encode(score)[1]
        assert np.array_equal(TOKENIZER.encode(TOKENIZER.decode(ids))[0], ids)
        assert TOKENIZER.quarters(ids) == plain.quarters(PLAN.without(ids))


def test_chords_are_transposed_and_sections_are_not():
    ids, _ = TOKENIZER.encode(song([(C, 0), (AM, 1)]))
    higher = TOKENIZER.transpose_ids(ids, 3)
    assert higher is not None
    again, _ = TOKENIZER.encode(TOKENIZER.decode(higher))
    assert np.array_equal(again, higher) and bars_of(higher)[0][2:] == ["3:maj", "3:maj"]


def test_lengths_are_exact_up_to_64_bars_and_the_next_larger_ones_beyond():
    assert [TOKENIZER.vocabulary[PLAN.length(n)].value for n in (1, 17, 64, 65, 129, 9999)] == [1, 17, 64, 72, 160, 512]
    assert TOKENIZER.vocabulary[PLAN.length(None)] == (Kind.LENGTH, None)


def test_training_hides_each_part_of_the_plan_about_one_time_in_seven():
    ids, _ = TOKENIZER.encode(song([(C, 0), (AM, 1)] * 4, style="piano"))
    counts = dict.fromkeys(("Style", "Length", "TimeSig", "Program", "Section", "Repeat", "Chord"), 0)
    for seed in range(400):
        hidden = PLAN.with_unknown(ids, np.random.default_rng(seed))
        assert np.array_equal(PLAN.without(hidden), PLAN.without(ids))
        said = words(hidden)
        header = said[: said.index("Bar_None")]
        for part in ("Style", "Length", "Section", "Repeat", "Chord"):
            values = [word.split("_")[1] == "unknown" for word in said if word.startswith(part)]
            assert all(values) or not any(values)
            counts[part] += values[0]
        for part in ("TimeSig", "Program"):
            counts[part] += not any(word.startswith(part) for word in header)
    assert all(30 <= n <= 95 for n in counts.values()), counts


def test_beginnings_are_sampled_by_kind_and_not_by_file():
    sizes = np.array([100] * 90 + [10_000])
    extra = ends_by_kind(np.array([8] * 90 + [5]), np.ones(91), sizes)
    assert extra[:90].sum() == pytest.approx(0.1 * 9000) and extra[90] == pytest.approx(1000)
    weighted = ends_by_kind(np.array([8] * 90 + [5]), np.array([0.5] * 90 + [1]), sizes)
    assert (0.5 * weighted[:90]).sum() == pytest.approx(450) and weighted[90] == pytest.approx(1000)


def test_one_crop_in_twelve_begins_and_one_in_twelve_ends_its_piece():
    """Ends were 2 % of the crops of long pieces, and no trained model ended a piece by itself."""
    ids, _ = TOKENIZER.encode(song([(C, 0), (AM, 1), (F, 2), (G, 3)] * 60, style="band"))
    assert len(ids) > 3000
    crops = RandomCrops([ids], TOKENIZER, length=32, batch_size=64, seed=3, transpose=range(1), faster=range(1))
    batches = [crops(number) for number in range(20)]
    ends = torch.cat([(batch.targets == TOKENIZER.eos).any(1) for batch in batches]).float().mean()
    begins = torch.cat([batch.tokens[:, 0] == TOKENIZER.bos for batch in batches]).float().mean()
    assert 0.06 < ends < 0.11 and 0.06 < begins < 0.11


def test_crops_from_the_middle_of_a_piece_have_the_features_of_its_header():
    ids, _ = TOKENIZER.encode(song([(C, 0), (AM, 1), (F, 2), (G, 3)] * 12, style="band"))
    crops = RandomCrops([ids], TOKENIZER, length=64, batch_size=16, seed=3, transpose=range(1), faster=range(1))
    found = crops(0)
    assert found.features is not None
    first = len(tokenizers.create("score", features=2).feature_sizes) + 1
    style, left = found.features[..., first], found.features[..., first + 1]
    is_behind = (found.tokens[:, 0] != TOKENIZER.bos) & (style[:, 0] > 0)
    assert is_behind.any() and set(style[is_behind, 0].tolist()) == {7}
    known = left[left > 0]
    assert len(set(known.tolist())) > 5 and known.max() == 33
