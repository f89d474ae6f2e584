"""The performance tokenizer: real seconds, the pedal, one way to write each performance, and its grammar."""

import math

import miditok
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Note, Score, Tempo, Track

from musiclm import midi, tokenizers
from musiclm.data import crops
from musiclm.errors import MidiError, TokenizerError
from musiclm.generation import constraints
from musiclm.tokenizers import performance as p
from musiclm.tokenizers.features import performance as performance_features
from tests.tokenizers_data import band, pressed, real_scores

torch.set_num_threads(1)
TOKENIZER = tokenizers.create("performance")
STEP = 0.01

millisecond = st.integers(0, 4000).map(lambda n: n / 1000)
notes = st.lists(
    st.tuples(millisecond, st.integers(1, 3000), st.integers(19, 110), st.integers(1, 127)).map(
        lambda n: (n[0], n[0] + n[1] / 1000, n[2], n[3])
    ),
    min_size=1,
    max_size=25,
).filter(lambda found: any(21 <= n[2] <= 108 for n in found))
pedals = st.lists(st.tuples(millisecond, st.sampled_from([0, 63, 64, 127])), max_size=6, unique_by=lambda c: c[0])
quickly = settings(max_examples=60, deadline=None)


def played(score: Score) -> list[tuple[float, float, int, int]]:
    """Return start, end, pitch, velocity of all notes, in seconds."""
    timed = score.to("second")
    return sorted((n.time, n.end, n.pitch, n.velocity) for t in timed.tracks for n in t.notes)


@quickly
@given(notes, pedals)
def test_a_performance_is_written_in_one_way(pressed_notes, pedal):
    ids, _ = TOKENIZER.encode(pressed(pressed_notes, pedal))
    again, left_out = TOKENIZER.encode(TOKENIZER.decode(ids))
    assert left_out == 0
    assert np.array_equal(again, ids)


@quickly
@given(notes, pedals)
def test_each_note_is_kept_or_counted(pressed_notes, pedal):
    score = pressed(pressed_notes, pedal)
    ids, left_out = TOKENIZER.encode(score)
    assert TOKENIZER.decode(ids).note_num() + left_out == len(pressed_notes)


@quickly
@given(notes.map(lambda found: list({n[2]: n for n in found if 21 <= n[2] <= 108}.values())), st.floats(30, 240))
def test_without_pedal_notes_begin_and_end_within_half_a_step(pressed_notes, qpm):
    """Each key is struck once, so that nothing cuts it; what is shorter than a step becomes one."""
    score = pressed(pressed_notes, qpm=qpm)
    decoded = TOKENIZER.decode(TOKENIZER.encode(score)[0])
    was = sorted(played(score), key=lambda n: n[2])
    for (start, end, pitch, _), (new_start, new_end, new_pitch, _) in zip(
        was, sorted(played(decoded), key=lambda n: n[2]), strict=True
    ):
        assert new_pitch == pitch
        assert abs(new_start - start) <= STEP / 2 + 0.001
        assert abs(new_end - end) <= (STEP / 2 if end - start > STEP + 1e-4 else 1.5 * STEP) + 0.001


@quickly
@given(notes.map(lambda found: [n for n in found if 21 <= n[2] <= 108]), pedals)
def test_a_note_rings_until_the_pedal_goes_up_or_its_key_is_struck_again(pressed_notes, pedal):
    """Compared with a piano that is played through step by step, each time rounded to the grid first."""
    on_grid = [
        (round(100 * s) / 100, round(100 * s) / 100 + math.ceil(100 * (e - s)) / 100, k, v)
        for s, e, k, v in pressed_notes
    ]
    first = {}
    for note in on_grid:
        first.setdefault((note[0], note[2]), note)  # no key twice at a time
    struck = sorted(first.values())
    changes = sorted({round(100 * t) / 100: value for t, value in pedal}.items())
    expected = []
    last = max([n[1] for n in struck] + [t for t, _ in changes])
    for start, end, key, _ in struck:
        down = [value >= 64 for t, value in changes if t <= end + 1e-9][-1:] == [True]
        if down:
            end = max(end, min([t for t, value in changes if t > end + 1e-9 and value < 64] or [last]))
        following = [s for s, _, other, _ in struck if other == key and s > start]
        expected.append((round(100 * start), round(100 * min([end, *following])), key))
    decoded = TOKENIZER.decode(TOKENIZER.encode(pressed(struck, changes, qpm=60.0 * 50 / 48))[0])
    found = sorted((round(100 * s), round(100 * e), k) for s, e, k, _ in played(decoded))
    for (s, e, k), (start, end, key) in zip(found, sorted(expected), strict=True):
        assert (s, k) == (start, key)
        assert abs(e - end) <= 1  # a time halfway between two steps may go to either


def test_a_pedal_that_goes_down_as_the_key_goes_up_holds_the_note():
    """In seconds the end, 0.1 + 0.63, came out a hair before the pedal at 0.73, and the note was cut."""
    score = pressed([(0.1, 0.73, 22, 1), (0.47, 0.75, 21, 1)], [(0.73, 64)], qpm=62.5)
    decoded = played(TOKENIZER.decode(TOKENIZER.encode(score)[0]))
    assert [round(end, 2) for _, end, _, _ in decoded] == [0.75, 0.75]


def test_the_tempo_map_is_followed():
    """A quarter at 60, one at 30 and one at 240 last 1 s, 2 s and a quarter of one: MidiTok alone would read ticks."""
    score = Score(480)
    for time, qpm in ((0, 60), (480, 30), (960, 240)):
        score.tempos.append(Tempo(time, qpm))
    track = Track("", 0, False)
    for i in range(3):
        track.notes.append(Note(480 * i, 480, 60 + i, 64))
    score.tracks.append(track)
    found = played(TOKENIZER.decode(TOKENIZER.encode(score)[0]))
    assert [(round(s, 2), round(e, 2)) for s, e, _, _ in found] == [(0, 1), (1, 3), (3, 3.25)]


def test_all_tracks_become_one_piano_and_drums_are_counted():
    score = band()
    ids, left_out = TOKENIZER.encode(score)
    decoded = TOKENIZER.decode(ids)
    assert len(decoded.tracks) == 1
    assert left_out == 14
    drums = Score(480)
    drums.tracks.append(score.tracks[2])
    with pytest.raises(MidiError):
        TOKENIZER.encode(drums)


def test_vocabulary_is_that_of_miditok():
    assert [name for name, _ in sorted(miditoks().vocab.items(), key=lambda item: item[1])] == vocabulary()


@pytest.mark.slow
def test_real_performances_come_back_and_are_what_miditok_writes():
    with_pedal = real_scores("maestro-v3.0.0-midi", 6, stand_in=False)
    for score in with_pedal:
        ids, left_out = TOKENIZER.encode(score)
        decoded = TOKENIZER.decode(ids)
        assert np.array_equal(TOKENIZER.encode(decoded)[0], ids)
        assert left_out <= 0.002 * score.note_num()
        starts = sorted(n[0] for n in played(score))
        if left_out == 0:
            assert np.abs(np.array(starts) - [n[0] for n in played(decoded)]).max() <= STEP / 2 + 0.001
    fifty = Score(50)
    fifty.tempos.append(Tempo(0, 120))
    track = Track("", 0, False)
    for n in decoded.tracks[0].notes:
        start, end = round(n.time / 9.6), round(n.end / 9.6)
        track.notes.append(Note(start, end - start, n.pitch, n.velocity))
    fifty.tracks.append(track)
    assert miditoks().encode(fifty)[0].ids == ids[1:-1].tolist()


def test_events_are_counted_as_in_the_published_tables():
    score = pressed([(0, 1, 60, 64), (0, 1, 64, 64), (0.5, 1, 67, 62), (2, 3, 60, 100)])
    ids, _ = TOKENIZER.encode(score)
    # 4 on, 4 off, 2 velocities (64 and 62 share one of 32), shifts 0.5 0.5 1 1
    assert TOKENIZER.num_events(ids) == 4 + 4 + 2 + 4
    assert int(TOKENIZER.eval_mask(ids).sum()) == TOKENIZER.num_events(ids) + 2


def test_transposed_louder_and_faster():
    ids, _ = TOKENIZER.encode(pressed([(0.1, 3.3, 60, 64), (0.1, 0.4, 64, 70), (1.0, 2.15, 21, 80)]))
    base = played(TOKENIZER.decode(ids))
    up = played(TOKENIZER.decode(TOKENIZER.varied(ids, semitones=3)))
    assert [(n[0], n[1], n[2] + 3, n[3]) for n in base] == up
    assert TOKENIZER.transpose_ids(ids, -1) is None  # the lowest key is in use
    louder = played(TOKENIZER.decode(TOKENIZER.varied(ids, louder=2)))
    assert [n[3] + 8 for n in base] == [n[3] for n in louder]
    assert TOKENIZER.varied(ids, louder=40) is None
    for faster in (-3, -1, 2, 5):
        varied = TOKENIZER.varied(ids, faster=faster)
        assert np.array_equal(TOKENIZER.encode(TOKENIZER.decode(varied))[0], varied)
        for old, new in zip(base, played(TOKENIZER.decode(varied)), strict=True):
            assert abs(old[1] / 1.05**faster - new[1]) < 0.03  # three silences, half a step each
    table = TOKENIZER.faster(-1)
    assert table[p.TIME_SHIFT + 99] == -1
    assert table[p.TIME_SHIFT + 19] == p.TIME_SHIFT + 20
    assert np.array_equal(table[: p.TIME_SHIFT], np.arange(p.TIME_SHIFT))


def test_a_cut_performance_keeps_the_notes_that_still_sound():
    ids = [p.BOS, p.NOTE_ON + 39, p.VELOCITY + 20, p.TIME_SHIFT + 49, p.NOTE_ON + 43, p.VELOCITY + 20, p.NOTE_ON + 50]
    found = played(TOKENIZER.decode(ids))
    assert [(round(s, 2), round(e, 2), pitch) for s, e, pitch, _ in found] == [(0, 0.5, 60), (0.5, 0.51, 64)]
    assert TOKENIZER.decode([p.BOS]).note_num() == 0
    assert TOKENIZER.decode([]).note_num() == 0


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 0.8])
def test_whatever_the_grammar_allows_is_what_encode_writes(bias):
    """200 sequences in all, one half with many ends and beginnings at a time; none has a dead end."""
    rule = constraints.constraints(TOKENIZER)[0]
    for seed in range(100):
        draw = np.random.default_rng(seed)
        ids = [p.BOS]
        place = rule.after(rule.beginning(), p.BOS)
        while len(ids) < 120:
            legal = np.flatnonzero(rule.allowed(place))
            if draw.random() < bias and (legal < p.TIME_SHIFT).any():
                legal = legal[legal < p.TIME_SHIFT]
            ids.append(int(draw.choice(legal)))
            place = rule.after(place, ids[-1])
        cut = TOKENIZER.decode(ids)
        num_begun = sum(p.VELOCITY <= i < p.TIME_SHIFT for i in ids)
        assert cut.note_num() == num_begun
        while place.sounding or p.NOTE_ON <= ids[-1] < p.NOTE_OFF or ids[-1] >= p.TIME_SHIFT:
            legal = np.flatnonzero(rule.allowed(place))
            ends = legal[(legal >= p.NOTE_OFF) & (legal < p.TIME_SHIFT)]
            if not len(ends) and not place.sounding:  # a silence at the end: let one more note follow
                ends = legal[legal < p.NOTE_OFF]
            ids.append(int(ends[0] if len(ends) else legal[legal >= p.TIME_SHIFT][0]))
            place = rule.after(place, ids[-1])
        ids.append(p.EOS)
        again, left_out = TOKENIZER.encode(TOKENIZER.decode(ids))
        assert left_out == 0
        assert again.tolist() == ids


def test_no_note_begins_before_the_prompt_ends():
    ids, _ = TOKENIZER.encode(pressed([(0, 1, 60, 64)]))
    for end in (1.0, 1.37, 2.5, 2.503, 4.999):
        prompt = TOKENIZER.pad_with_silence(ids[:-1], end * 2)
        assert end - 1 - 1e-6 <= TOKENIZER.quarters(prompt) / 2 <= end + 1e-6
        rule = constraints.constraints(TOKENIZER, not_before=end * 2)[0]
        place = rule.beginning()
        for i in prompt:
            place = rule.after(place, int(i))
        draw = np.random.default_rng(0)
        for _ in range(30):
            prompt = np.append(prompt, int(draw.choice(np.flatnonzero(rule.allowed(place)))))
            place = rule.after(place, int(prompt[-1]))
            if p.NOTE_ON <= prompt[-1] < p.NOTE_OFF:
                assert TOKENIZER.quarters(prompt) / 2 >= end - 1e-9


def test_scores_can_be_moved_to_another_tempo_map():
    source = band()
    decoded = TOKENIZER.decode(TOKENIZER.encode(source)[0])
    moved = midi.retimed(decoded, source)
    was = {(n.time, n.pitch) for t in source.tracks if not t.is_drum for n in t.notes}
    found = {(n.time, n.pitch) for t in moved.tracks for n in t.notes}
    assert len(was) == len(found)
    for time, pitch in was:
        assert any(abs(time - other) <= 6 and pitch == key for other, key in found)


def test_it_has_no_options_but_the_version_of_its_features():
    with pytest.raises(TokenizerError, match="no option"):
        tokenizers.parse('performance:{"num_velocities": 8}')
    assert tokenizers.from_description(TOKENIZER.describe()).vocab_size == TOKENIZER.vocab_size


def miditoks():
    config = miditok.TokenizerConfig(
        pitch_range=(21, 108),
        beat_res={(0, 2): 50},
        special_tokens=["PAD", "BOS", "EOS"],
        use_programs=False,
        use_time_signatures=False,
        use_tempos=False,
        use_pitchdrum_tokens=False,
    )
    return miditok.MIDILike(config)


def vocabulary() -> list[str]:
    shifts = [f"TimeShift_{n // 50}.{n % 50}.50" for n in range(1, 101)]
    return [
        *("PAD_None", "BOS_None", "EOS_None"),
        *(f"NoteOn_{key}" for key in range(21, 109)),
        *(f"NoteOff_{key}" for key in range(21, 109)),
        *(f"Velocity_{v}" for v in p.VELOCITIES),
        *shifts,
    ]


def test_features_tell_what_sounds_how_loud_it_was_and_what_would_repeat():
    """Two chords half a second apart and a melody note, read by hand."""
    keys = [(0.0, 1.0, 48, 60), (0.0, 0.4, 60, 100), (0.5, 1.0, 52, 60), (0.5, 0.9, 64, 100), (0.75, 0.9, 62, 96)]
    ids, _ = TOKENIZER.encode(pressed(keys))
    found = dict(zip(NAMES, TOKENIZER.features(torch.from_numpy(ids)[None])[0][0].T, strict=True))
    events = ids.tolist()

    def at(event: int, number: int = 0) -> int:
        return [i for i, e in enumerate(events) if e == event][number]

    def on(pitch: int) -> int:
        return p.NOTE_ON + pitch - p.LOWEST

    def off(pitch: int) -> int:
        return p.NOTE_OFF + pitch - p.LOWEST

    struck = at(on(62))  # its velocity follows: 64 is the nearest of those before it
    assert found["nearest"][struck] == 2 - 4 + 25 - 0 and found["velocity_near"][struck] == ids[at(on(64)) + 1]
    assert found["velocity_near"][struck + 1] == 0  # nothing of a velocity behind it
    assert found["sounding"][struck] == 4  # 48, 52, 64 and itself; 60 has ended
    assert [found[name][struck].item() for name in ("ends", "then", "next")] == [off(48), 4 + 25, 16 + 25]
    assert found["key"][struck] == on(62)
    before = at(on(52)) - 1  # behind the shift that leads to the second chord
    assert found["since"][before] == found["apart"][at(on(52))] == _time(50)
    assert found["again"][at(on(64)) + 1] == p.TIME_SHIFT + 50 - 1  # a third chord would come half a second later
    assert found["ends"][at(off(60))] == off(48)  # none is younger: the oldest again
    ended = at(off(64))
    assert (
        events[ended + 1] == off(62) == found["ends"][ended]
    )  # at the time of an end the next oldest, not the very oldest
    assert found["sounding"][-1] == 0 and found["ends"][-1] == 0


NAMES = (
    "velocity", "velocity_before", "one_before", "two_before", "three_before", "nearest", "since_note", "since", "apart",
    "apart_before", "apart_first", "sounding", "age", "age_then", "then", "next", "last", "low", "high", "key", "ends",
    "velocity_near", "again",
)  # fmt: skip


def _time(steps: int) -> int:
    return int(np.searchsorted(performance_features.EDGES, steps, side="right"))


@quickly
@given(st.lists(st.integers(0, p.VOCAB_SIZE - 1), min_size=2, max_size=80), st.data())
def test_features_stream_and_stay_in_range(ids: list[int], data: st.DataObject):
    batch = torch.tensor([ids, ids[::-1]])
    cut = data.draw(st.integers(1, len(ids) - 1))
    whole, _ = TOKENIZER.features(batch)
    first, state = TOKENIZER.features(batch[:, :cut])
    second, _ = TOKENIZER.features(batch[:, cut:], state)
    again, _ = TOKENIZER.features(batch[:, cut:], state)  # a state may be gone on from twice
    assert torch.equal(torch.cat([first, second], 1), whole) and torch.equal(second, again)
    assert (whole >= 0).all() and all((whole[..., i] < size).all() for i, size in enumerate(TOKENIZER.feature_sizes))
    for first_id, last_id, feature in TOKENIZER.relative_pitch:
        told = whole[..., feature]
        assert (((told >= first_id) & (told <= last_id)) | (told == 0)).all()


@pytest.mark.slow
def test_windows_of_a_performance_have_the_features_of_their_place():
    """Made from 256 ids in front of a window, which only notes that have sounded for longer can tell from all of them."""
    (score,) = real_scores("maestro-v3.0.0-midi", 1)
    ids, _ = TOKENIZER.encode(score)
    made = crops.RandomCrops(
        [ids], TOKENIZER, length=64, batch_size=2, seed=1, transpose=range(1), faster=range(1), louder=range(1)
    )
    features, _ = TOKENIZER.features(torch.from_numpy(ids)[None])
    agree = []
    for number in range(20):
        batch = made(number)
        for row in range(2):
            window = batch.tokens[row]
            starts = [s for s in range(len(ids) - 64) if np.array_equal(ids[s : s + 64], window.numpy())]
            agree.append((features[0, starts[0] : starts[0] + 64] == batch.features[row]).float().mean().item())
    assert min(agree) > 0.7 and np.mean(agree) > 0.99
    varied = crops.RandomCrops([ids], TOKENIZER, length=64, batch_size=2, seed=1)(3)
    assert varied.features.shape == (2, 64, len(TOKENIZER.feature_sizes)) and varied.num_tokens == 128
