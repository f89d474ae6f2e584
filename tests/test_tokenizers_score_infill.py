"""Crops of scores with a masked span that have a plan: nothing is lost, and the header says what is true of the crop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from musiclm import tokenizers
from musiclm.tokenizers import score_infill
from musiclm.tokenizers.vocabulary import Kind
from tests.crops_data import band

SCORE = tokenizers.create("score-infill")
PIECES = [SCORE.encode(band(seed, bars))[0] for seed, bars in enumerate((2, 9, 30, 70))]


def of_kind(ids: np.ndarray, *kinds: Kind) -> list[int]:
    return [int(i) for i in ids if SCORE.vocabulary[i].kind in kinds]


def attributes(ids: np.ndarray) -> list[int]:
    return of_kind(ids, Kind.SECTION, Kind.REPEAT, Kind.CHORD)


def notes(ids: np.ndarray, program: int = -1) -> Counter:
    """Return the notes of bars: bar, position, program, and ids of the note."""
    found: Counter = Counter()
    bar, position = -1, -1
    for at, i in enumerate(ids.tolist()):
        kind = SCORE.vocabulary[i].kind
        if kind == Kind.BAR:
            bar, position = bar + 1, -1
        elif kind == Kind.POSITION:
            position = i
        elif kind == Kind.PROGRAM:
            program = i
        elif kind in (Kind.NOTE_ON, Kind.DRUM_ON):
            assert position >= 0 and program >= 0
            found[(bar, position, program, *ids[at : at + 3].tolist())] += 1
    return found


def split(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Return header, past, given context and span of a crop, and the program before the span, -1 for none."""
    parts = SCORE.parts(ids)
    assert parts is not None
    begin = 1 + SCORE.plan.header_size(ids[1 : parts.ahead])
    said = int(ids[parts.write + 1]) if parts.written > parts.write + 1 else -1
    return ids[:begin], ids[begin : parts.ahead], ids[parts.ahead + 1 : parts.write], ids[parts.written :], said


def bars(piece: np.ndarray, first: int, stop: int) -> tuple[np.ndarray, int]:
    """Return some bars of a piece, and the program before them."""
    starts = SCORE.bar_starts(piece)
    before = of_kind(piece[starts[0] : starts[first]], Kind.PROGRAM)
    return piece[starts[first] : starts[stop]], before[-1] if before else -1


def place(piece: np.ndarray, ids: np.ndarray) -> int:
    """Return the bar of a piece at which a crop begins; an error where the crop is not made of its bars."""
    header, past, given, written, said = split(ids)
    num_past, size = len(of_kind(past, Kind.BAR)), len(of_kind(written, Kind.BAR))
    num_bars = len(SCORE.bar_starts(piece)) - 1
    edge = SCORE.bar_starts(np.append(given, SCORE.eos))[size]
    for first in range(num_bars - num_past - size + 1):
        before, span = bars(piece, first, first + num_past), bars(piece, first + num_past, first + num_past + size)
        if (
            of_kind(header, Kind.LENGTH) == [SCORE.plan.length(num_bars - first)]
            and not notes(past) - notes(*before)
            and attributes(before[0]) == attributes(past)
            and attributes(span[0]) == attributes(written)
            and notes(given[:edge]) + notes(written, said) == notes(*span)
        ):
            return first
    raise AssertionError("no such bars")


@pytest.mark.parametrize("index", range(len(PIECES)))
def test_a_crop_has_each_note_once_and_a_true_header(index: int):
    piece = PIECES[index]
    absent = 0
    for number in range(1, 60):
        ids = SCORE.rearranged(piece, number)
        assert len(ids) <= score_infill.LENGTH
        first = place(piece, ids)
        header, past, given, written, said = split(ids)
        assert header[0] == SCORE.bos and not attributes(given)
        assert of_kind(header, Kind.PROGRAM) == of_kind(piece[: SCORE.bar_starts(piece)[0]], Kind.PROGRAM)
        assert of_kind(header, Kind.TIME_SIGNATURE) == of_kind(bars(piece, first, first + 1)[0], Kind.TIME_SIGNATURE)
        before = of_kind(past, Kind.PROGRAM)
        assert said == (before[-1] if before else -1)
        assert np.array_equal(SCORE.eval_mask(ids).nonzero()[0], np.arange(len(ids) - len(written), len(ids)))
        assert not SCORE.loss_mask(ids)[: len(header)].any() and SCORE.loss_mask(ids)[-len(written) :].all()
        SCORE.decode(ids)
        if len(past):
            absent += notes(past) != notes(*bars(piece, first, first + len(of_kind(past, Kind.BAR))))
    assert absent > 5 or index == 0


def test_a_crop_begins_at_a_group_of_bars_where_it_can():
    piece = PIECES[-1]
    begins = [place(piece, ids) for number in range(1, 80) if len(split(ids := SCORE.rearranged(piece, number))[1])]
    assert np.mean([b % 4 == 0 for b in begins]) > 0.9 and np.mean([b % 8 == 0 for b in begins]) > 0.6


def test_the_tempo_of_a_header_is_the_one_in_force():
    piece, starts = PIECES[-1], SCORE.bar_starts(PIECES[-1])
    for bar in range(len(starts) - 1):
        header = SCORE._header(piece, starts, bar, len(starts) - 1)
        changes = of_kind(piece[starts[0] : starts[bar]], Kind.TEMPO)
        now = piece[starts[bar] + 6 : starts[bar] + 8]
        if SCORE.vocabulary[now[0]] == (Kind.POSITION, 0) and SCORE.vocabulary[now[1]].kind == Kind.TEMPO:
            changes.append(int(now[1]))
        assert of_kind(header, Kind.TEMPO) == changes[-1:]


def test_an_unknown_length_stays_unknown():
    piece = PIECES[2].copy()
    piece[2] = SCORE.plan.lengths[None]
    assert all(SCORE.rearranged(piece, number)[2] == piece[2] for number in range(1, 20))


def test_what_a_model_hears_is_what_it_learnt_from():
    piece = PIECES[-1]
    starts = SCORE.bar_starts(piece)
    asked = [SCORE.midi_tokenizer["Program_56"], SCORE.midi_tokenizer["Program_-1"]]
    for first in (0, 1, 7, 30, 50):
        ids = SCORE.infill_prompt(piece, first, 4, asked)
        given = ids[np.flatnonzero(ids == SCORE.ahead)[0] :]
        written = bars(piece, first, first + 4)[0]
        header, past, kept, _, said = split(np.concatenate([ids, written]))
        begin = first - len(of_kind(past, Kind.BAR))
        assert of_kind(header, Kind.LENGTH) == [SCORE.plan.length(len(starts) - 1 - begin)]
        expected = of_kind(piece[: starts[0]], Kind.PROGRAM) + asked
        assert of_kind(header, Kind.PROGRAM) == SCORE.plan.in_order(np.array(expected)).tolist()
        before = bars(piece, begin, first)
        assert notes(past) == notes(*before) and attributes(past) == attributes(before[0])
        assert notes(kept) == notes(*bars(piece, first, first + 6)) and not attributes(given)
        assert said == bars(piece, first, first)[1]


def test_most_masks_are_of_whole_instruments():
    piece = next(p for p in PIECES[1:] if len(of_kind(p[:12], Kind.PROGRAM)) > 2)
    kinds: Counter = Counter()
    for number in range(1, 200):
        _, _, given, written, said = split(SCORE.rearranged(piece, number))
        size = len(of_kind(written, Kind.BAR))
        kept = notes(given[: SCORE.bar_starts(np.append(given, SCORE.eos))[size]])
        of_kept, of_written = ({n[2] for n in of} for of in (kept, notes(written, said)))
        kinds["all" if not kept else "instruments" if not of_kept & of_written else "tops"] += 1
    assert kinds["instruments"] > kinds["all"] > kinds["tops"] > 0


def test_a_header_can_say_programs_that_do_not_play_yet():
    piece = PIECES[2][:-1]
    padded = SCORE.pad_with_silence(piece, SCORE.quarters(piece) + 8.0)
    asked = SCORE.midi_tokenizer["Program_56"]
    header, music = np.split(ids := SCORE.with_programs(padded, [asked]), [SCORE.plan.header_size(padded) + 1])
    assert asked in header and set(of_kind(piece, Kind.PROGRAM)) | {asked} == set(of_kind(header, Kind.PROGRAM))
    assert of_kind(header, Kind.LENGTH) == [SCORE.plan.length(len(of_kind(ids, Kind.BAR)))]
    assert np.array_equal(music, padded[SCORE.bar_starts(padded)[0] :])
