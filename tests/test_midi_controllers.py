"""Controllers that are in force at a time: a part of a piece begins with them, and a channel is then in the same state."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from symusic import ControlChange, Note, PitchBend, Score, TextMeta, Track

from musiclm import midi

RESET = {1: 0, 11: 127, 64: 0, 65: 0, 66: 0, 67: 0}  # by controller 121, of those that are drawn here


def state(track: Any, until: int) -> dict[Any, int]:
    """Play controllers and bends up to a tick as a channel does: what then differs from a channel that was just reset."""
    values: dict[Any, int] = {}
    none = {101: 127, 100: 127}
    selected = none
    events = [(c.time, 0, c.number, c.value) for c in track.controls]
    events += [(b.time, 1, "bend", b.value) for b in track.pitch_bends]
    for time, _, number, value in sorted(events, key=lambda e: e[:2]):
        if time > until:
            break
        if number in (98, 99, 100, 101):
            selected = selected if number in selected else dict.fromkeys((98, 99) if number < 100 else (100, 101), 127)
            selected = selected | {number: value}
        elif number in (6, 38) and set(selected.values()) != {127}:  # 127, 127 selects nothing, of either kind
            values[number, tuple(sorted(selected.items()))] = value
            if number == 6:
                values.pop((38, tuple(sorted(selected.items()))), None)
        elif number == 121:
            values = {k: v for k, v in values.items() if k not in RESET and k != "bend"}
            selected = none
        elif number not in (6, 38) and (number == "bend" or number < 120):
            values[number] = value
    return {k: v for k, v in values.items() if v != RESET.get(k, -1) and (k, v) != ("bend", 0)} | selected


NUMBERS = [1, 7, 10, 11, 64, 66, 6, 38, 98, 99, 100, 101, 120, 121, 123]
CONTROLS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(NUMBERS), st.integers(0, 127)), max_size=25
)  # fmt: skip
BENDS = st.lists(st.tuples(st.integers(0, 40), st.integers(-8192, 8191)), max_size=4, unique_by=lambda b: b[0])


def channel(controls: list[tuple[int, int, int]], bends: list[tuple[int, int]]) -> Score:
    score = Score(4)
    track = Track("Lead", 80, False)
    track.controls.extend([ControlChange(*c) for c in sorted(controls, key=lambda c: c[0])])
    track.pitch_bends.extend([PitchBend(*b) for b in sorted(bends)])
    track.notes.append(Note(0, 60, 60, 90))
    score.tracks.append(track)
    return score


@given(CONTROLS, BENDS, st.integers(0, 9), st.integers(1, 5))
def test_a_channel_is_in_the_same_state_within_a_part_as_within_the_whole(controls, bends, start: int, length: int):
    """Pedal, volume and bend range that were set before a part were lost; bends were lost altogether."""
    bends = [
        b for b in bends if all(number != 121 or b[0] != time for time, number, _ in controls)
    ]  # whichever is first
    score = channel(controls, bends)
    (part,) = midi.cut(score, start, start + length).tracks
    (whole,) = score.tracks
    for tick in range(4 * length):
        assert state(part, tick) == state(whole, 4 * start + tick)


@given(CONTROLS, BENDS)
def test_after_a_release_no_pedal_modulation_or_bend_is_left_and_all_else_is_as_it_was(controls, bends):
    (track,) = channel(controls, bends).tracks
    before = state(track, 50)
    midi.release(track, 50)
    after = state(track, 50)
    assert not {1, 64, 66, 67, "bend"} & {k for k, v in after.items() if v}
    for key in before.keys() | after.keys():
        assert key in (1, 64, 66, 67, "bend") or before.get(key) == after.get(key)
    count = len(track.controls), len(track.pitch_bends)
    midi.release(track, 50)
    assert (len(track.controls), len(track.pitch_bends)) == count


def test_a_bend_range_is_set_before_the_volume_of_a_part_can_be_taken_for_it():
    """Registered parameter 0, an octave, then closed: with the last value of each number, the octave would go nowhere."""
    sent = [(0, 101, 0), (0, 100, 0), (0, 6, 12), (0, 101, 127), (0, 100, 127), (1, 7, 90)]
    (part,) = midi.cut(channel(sent, [(2, 4000)]), 1.0, 2.0).tracks
    assert [(c.time, c.number, c.value) for c in part.controls] == [
        (0, 7, 90), (0, 101, 0), (0, 100, 0), (0, 6, 12), (0, 101, 127), (0, 100, 127),
    ]  # fmt: skip
    assert [(b.time, b.value) for b in part.pitch_bends] == [(0, 4000)]


def test_a_part_has_the_words_and_markers_of_its_span():
    score = channel([], [])
    score.tracks[0].lyrics.extend([TextMeta(t, str(t)) for t in (3, 4, 7, 8)])
    score.markers.extend([TextMeta(t, str(t)) for t in (3, 4, 7, 8)])
    part = midi.cut(score, 1.0, 2.0)
    assert [(m.time, m.text) for m in part.markers] == [(0, "4"), (3, "7")]
    assert [(m.time, m.text) for m in part.tracks[0].lyrics] == [(0, "4"), (3, "7")]
    assert part.tracks[0].name == "Lead" and part.tracks[0].program == 80
