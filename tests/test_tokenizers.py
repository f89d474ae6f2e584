"""Scores come back from ids, and ids from scores."""

from __future__ import annotations

import mido
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi, tokenizers
from musiclm.data import SPLITS, bundled
from musiclm.errors import MidiError, TokenizerError
from musiclm.midi.theory import key_profiles
from musiclm.tokenizers import grid

GRID, SCORE = tokenizers.create("grid"), tokenizers.create("score")
WIDE = tokenizers.create("grid", features=2)
OURS = ("score", "grid")  # the others have tests of their own
SETS = ["free-game-midi", "pop909", "openscore-lieder-midi", "nottingham-midi", "groove-v1.0.0-midi", "openhymnal-midi"]

cells = st.lists(
    st.lists(
        st.one_of(st.just(grid.SILENCE), st.integers(grid.FIRST_PITCH, grid.FIRST_PITCH + 127)), min_size=4, max_size=4
    ),
    min_size=1,
    max_size=24,
).filter(lambda steps: any(c != grid.SILENCE for c in steps[-1]))


def onsets(score: Score) -> list[tuple[tuple[int, int], float]]:
    """Return program (-1: drums) and pitch, and the time in quarters, of each note, in this order."""
    return sorted(
        ((-1 if t.is_drum else t.program, n.pitch), n.time / score.ticks_per_quarter)
        for t in score.tracks
        for n in t.notes
    )


@settings(max_examples=200, deadline=None)
@given(cells)
def test_grid_ids_come_back_through_a_midi_file(steps: list[list[int]]):
    ids = [GRID.bos, *[c for step in steps for c in step], GRID.eos]
    again, left_out = GRID.encode(midi.parse(midi.to_bytes(GRID.decode(ids)), "a test"))
    assert again.tolist() == ids
    assert left_out == 0


def test_every_bundled_chorale_comes_back():
    chorales = bundled(GRID)
    assert [len(chorales.pieces(s)) for s in SPLITS] == [229, 76, 77]
    assert sum(int(GRID.eval_mask(p.tokens).sum()) for p in chorales.pieces("all")) == 370_144
    for piece in chorales.pieces("validation"):
        again, left_out = GRID.encode(GRID.decode(piece.tokens))
        assert np.array_equal(again, piece.tokens)
        assert left_out == 0


def test_held_cells_are_one_note_on_four_named_tracks():
    ids = [grid.FIRST_PITCH + p for p in (72, 67, 64, 48)] * 4
    score = GRID.decode(ids)
    assert [t.name for t in score.tracks] == list(grid.VOICES)
    assert [(n.time, n.duration, n.pitch) for t in score.tracks for n in t.notes] == [
        (0, 480, 72), (0, 480, 67), (0, 480, 64), (0, 480, 48)
    ]  # fmt: skip


def test_a_chord_track_becomes_four_voices_and_what_is_left_out_is_counted():
    score = Score(480)
    track = Track("Organ", 19)
    for pitch in (48, 52, 55, 60, 64, 67):
        track.notes.append(Note(0, 480, pitch, 80))
    for pitch in (50, 53, 57, 62):
        track.notes.append(Note(480, 480, pitch, 80))
    score.tracks.append(track)
    ids, left_out = GRID.encode(score)
    steps = (ids[1:-1] - grid.FIRST_PITCH).reshape(-1, 4)
    assert steps[0][[0, 3]].tolist() == [67, 48]
    assert steps[4].tolist() == [62, 57, 53, 50]
    assert left_out == 2


def test_drums_have_no_place_on_the_grid(song: Score):
    song.tracks = type(song.tracks)([t for t in song.tracks if t.is_drum])
    with pytest.raises(MidiError, match="drums"):
        GRID.encode(song)
    assert SCORE.encode(song)[1] == 0


def test_grid_features_are_what_counting_by_hand_gives():
    piece = bundled(GRID).pieces("train")[0].tokens

    def interval(lower: int, upper: int, widest: int) -> int:
        if lower < grid.FIRST_PITCH or upper < grid.FIRST_PITCH:
            return 0
        return max(-widest, min(widest, upper - lower)) + widest + 1

    position, last, held, before, wanted = 0, [0] * 4, [0] * 4, [0] * 4, []
    for i in piece:
        if i >= grid.SILENCE:
            voice = position % 4
            if last[voice] == i:
                held[voice] = min(held[voice] + 1, grid.MAX_HELD)
            else:
                held[voice], before[voice], last[voice] = 1, last[voice], i
            position += 1
        voice = position % 4
        order = [(voice - back) % 4 for back in range(4)]
        moves = [interval(before[v], last[v], grid.MAX_LEAP) for v in order]
        above = [interval(last[voice], last[v], grid.MAX_INTERVAL) for v in order[1:]]
        wanted.append([voice, position // 4 % 4, *[held[v] for v in order], *moves, *above, last[voice]])
    features, _ = WIDE.features(torch.from_numpy(piece)[None])
    assert features[0].tolist() == wanted
    assert all((features[0, :, i] < size).all() for i, size in enumerate(WIDE.feature_sizes))


def test_a_chorale_in_any_order_of_voices_or_backwards_is_the_same_music():
    piece = bundled(GRID).pieces("train")[3].tokens
    score = midi.to_bytes(GRID.decode(piece))
    written = [GRID.rearranged(piece, number) for number in range(GRID.num_rearrangements)]
    assert len({ids.tobytes() for ids in written}) == 48 and written[0] is piece
    for number, ids in enumerate(written):
        assert midi.to_bytes(GRID.decode(ids)) == score
        assert GRID.eval_mask(ids).sum() == GRID.eval_mask(piece).sum() and ids[-1] == GRID.eos
        features, _ = GRID.features(torch.from_numpy(ids)[None])
        voices, numbers, last = features[0, :-1, 0], features[0, :, 13], features[0, :-2, GRID.last_cell_feature]
        assert voices[:4].tolist() == list(grid.ORDERS[number % 24]) and (numbers == number).all()
        assert torch.equal(last[4:], torch.from_numpy(ids[1:-5]))  # whoever sings, its last pitch is its own


@pytest.mark.slow
def test_the_last_feature_is_the_degree_that_the_voice_sang_last():
    """By a loop over the cells; a scale and its triad are enough to tell C major and A minor."""
    for tonic, minor, notes in ((0, False, [60, 64, 67, 72]), (9, True, [57, 60, 64, 69])):
        cells = [p + grid.FIRST_PITCH for p in notes] * 6
        features, _ = GRID.features(torch.tensor([[GRID.bos, *cells]]))
        expected = [1 + 12 * minor + (notes[i % 4] - tonic) % 12 for i in range(len(cells) + 1)]
        assert features[0, 4:, -1].tolist() == expected[4:] and features[0, 0, -1] == 0
    piece = bundled(GRID).pieces("test")[5].tokens
    features, _ = GRID.features(torch.from_numpy(piece)[None])
    counts = np.zeros(12)
    for t, i in enumerate(piece[:-1].tolist()):
        if i >= grid.FIRST_PITCH:
            counts[(i - grid.FIRST_PITCH) % 12] += 1
        last = int(features[0, t, GRID.last_cell_feature])
        fits = [np.corrcoef(counts, p)[0, 1] for p in key_profiles()] if t else [0.0]
        key = int(np.argmax(fits))
        wanted = 1 + 12 * (key // 12) + (last - grid.FIRST_PITCH - key) % 12 if last >= grid.FIRST_PITCH else 0
        if len(fits) > 1 and np.sort(fits)[-1] - np.sort(fits)[-2] > 1e-4:
            assert int(features[0, t, -1]) == wanted


def test_the_first_features_are_the_second_without_intervals():
    """Checkpoints from before the intervals say no version: they must go on to get the seven features they know."""
    old = tokenizers.from_description({"name": "grid"})
    assert old.describe() == {"name": "grid"} and not old.relative_pitch and old.vocab_size == 131
    assert tokenizers.from_description(GRID.describe()).feature_sizes == GRID.feature_sizes != WIDE.feature_sizes
    piece = torch.from_numpy(bundled(GRID).pieces("train")[0].tokens)[None]
    features, wide = old.features(piece)[0], WIDE.features(piece)[0]
    assert features.shape[-1] == len(old.feature_sizes) == 7
    assert torch.equal(features, torch.cat([wide[..., :6], wide[..., -1:]], 2))
    assert WIDE.relative_pitch[0][2] == WIDE.last_cell_feature == len(WIDE.feature_sizes) - 1
    again = tokenizers.from_description(tokenizers.parse('grid:{"features": 2, "reference": false}').describe())
    assert not again.relative_pitch and again.feature_sizes == WIDE.feature_sizes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, GRID.vocab_size - 1), min_size=2, max_size=40), st.data())
def test_grid_features_stream(ids: list[int], data: st.DataObject):
    batch = torch.tensor([ids, ids[::-1]])
    cut = data.draw(st.integers(1, len(ids) - 1))
    for tokenizer in (WIDE, GRID):
        whole, _ = tokenizer.features(batch)
        first, state = tokenizer.features(batch[:, :cut])
        second, _ = tokenizer.features(batch[:, cut:], state)
        assert torch.equal(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize("name", SETS)
def test_real_scores_and_their_ids_come_back(real_midi, name: str):
    for file, data in real_midi(name, 4):
        score = midi.parse(data, file)
        ids, left_out = SCORE.encode(score)
        decoded = SCORE.decode(ids)
        assert np.array_equal(SCORE.encode(decoded)[0], ids), file
        assert decoded.note_num() == score.note_num() - left_out
        if not left_out:
            for (pitch, at), (pitch_again, at_again) in zip(onsets(score), onsets(decoded), strict=True):
                assert pitch == pitch_again, file
                assert abs(at - at_again) <= 1 / 24 + 1 / 480, file
        cell_ids, _ = GRID.encode(score) if not all(t.is_drum for t in score.tracks) else (None, 0)
        if cell_ids is not None:
            assert np.array_equal(GRID.encode(GRID.decode(cell_ids))[0], cell_ids), file


@pytest.mark.parametrize("metre", [(2, 2), (3, 2), (4, 2), (7, 8), (9, 8), (5, 4), (12, 8)])
def test_time_signatures_are_kept(song: Score, metre: tuple[int, int]):
    song.time_signatures = type(song.time_signatures)([TimeSignature(0, *metre)])
    decoded = SCORE.decode(SCORE.encode(song)[0])
    assert [(t.numerator, t.denominator) for t in decoded.time_signatures] == [metre]


def test_triplets_and_sixteenths_stay_where_they_are():
    score = Score(480)
    track = Track("Piano", 0)
    for at in (0, 160, 320, 480, 600, 720, 840, 960):
        track.notes.append(Note(at, 120, 60, 80))
    score.tracks.append(track)
    assert [n.time for n in SCORE.decode(SCORE.encode(score)[0]).tracks[0].notes] == [
        0,
        160,
        320,
        480,
        600,
        720,
        840,
        960,
    ]


@pytest.mark.parametrize("name", tokenizers.NAMES)
def test_a_description_makes_the_same_tokenizer(name: str, song: Score):
    import json

    tokenizer = tokenizers.create(name)
    again = tokenizers.from_description(json.loads(json.dumps(tokenizer.describe())))
    assert np.array_equal(again.encode(song)[0], tokenizer.encode(song)[0])


@pytest.mark.parametrize("name", OURS)
def test_transposition_moves_every_pitch_and_nothing_else(name: str, song: Score):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(song)
    moved = tokenizer.decode(tokenizer.transposed(5)[ids])
    pitches = [(t.is_drum, n.pitch, n.time) for t in tokenizer.decode(ids).tracks for n in t.notes]
    wanted = sorted((drum, pitch + (0 if drum else 5), at) for drum, pitch, at in pitches)
    assert sorted((t.is_drum, n.pitch, n.time) for t in moved.tracks for n in t.notes) == wanted
    assert (tokenizer.transposed(127) == -1).any()


@pytest.mark.parametrize("name", OURS)
def test_time_goes_on_with_the_ids(name: str, song: Score):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(song)
    times = [tokenizer.quarters(ids[:n]) for n in range(1, len(ids))]
    assert times == sorted(times)
    longer = tokenizer.pad_with_silence(ids[:-1], 30.0)
    assert times[-1] <= tokenizer.quarters(longer) <= 30.0
    assert tokenizer.decode(longer).note_num() == tokenizer.decode(ids).note_num()


def test_written_files_are_type_1_at_480_ticks_with_names_programs_tempo_and_metre(song: Score, tmp_path):
    path = tmp_path / "out.mid"
    midi.write(SCORE.decode(SCORE.encode(song)[0]), path)
    written = mido.MidiFile(path)
    assert (written.type, written.ticks_per_beat) == (1, 480)
    messages = [m for track in written.tracks for m in track]
    assert {m.program for m in messages if m.type == "program_change"} == {0, 73}
    assert [(m.numerator, m.denominator) for m in messages if m.type == "time_signature"] == [(3, 4)]
    assert len([m for m in messages if m.type == "set_tempo"]) == 1
    assert all(track.name for track in written.tracks if any(m.type == "note_on" for m in track))


def test_an_unknown_tokenizer_names_those_there_are():
    with pytest.raises(TokenizerError, match="score"):
        tokenizers.create("morse")


def test_another_vocabulary_than_the_one_trained_with_is_refused():
    description = SCORE.describe()
    description["vocabulary"] = description["vocabulary"][::-1]
    with pytest.raises(TokenizerError, match="constraints"):
        tokenizers.from_description(description)


def scored(ids: list[str], name: str = "score") -> list[dict[str, str | int]]:
    """Return the features behind each id, ids among them by what they say."""
    tokenizer = tokenizers.create(name, features=2)
    words = {
        f"{kind}_{value}": i for i, (kind, value) in enumerate(zip(tokenizer.kinds, tokenizer.values, strict=True))
    }
    features, _ = tokenizer.features(torch.tensor([[words[word] for word in ids]]))
    by_id = {i: word for word, i in words.items()}
    told = []
    for row in features[0].tolist():
        named = dict(zip(SCORED, row, strict=True))
        told.append({k: by_id[v] if k in IDS and v else v for k, v in named.items()})
    return told


SCORED = (
    "program", "position", "before", "last", "lowest", "degree", "velocity", "duration", "here", "own", "echo", "echo_2",
    "echo_4", "own_echo", "pitch",
)  # fmt: skip
IDS = {"position", "velocity", "duration", "echo", "echo_2", "echo_4", "own_echo", "pitch"}


def note(pitch: int, duration: str = "1.0.12") -> list[str]:
    return [f"Pitch_{pitch}", "Velocity_87", f"Duration_{duration}"]


def test_features_of_a_score_tell_what_followed_bars_ago_and_what_the_program_played():
    first = ["Bar_None", "TimeSig_4/4", "Position_0", "Program_0", *note(60), *note(64), "Position_12", *note(67)]
    second = ["Bar_None", "TimeSig_4/4", "Position_0", *note(60), "Position_24", "Program_40", *note(72)]
    told = scored(["BOS_None", *first, *second])
    words = [None, *first, *second]
    again = [i for i, word in enumerate(words) if word == "Bar_None"][1]
    assert told[again]["echo"] == "TimeSig_4/4" and told[again + 1]["echo"] == "Position_0"
    assert told[again + 2]["echo"] == "Program_0"  # ids at a position are counted: the program was said there
    assert told[again + 2]["own_echo"] == "Pitch_60" and told[again + 5]["own_echo"] == "Pitch_64"
    assert told[again + 5]["here"] == 1 and told[again + 5]["own"] == 1 and told[again + 5]["pitch"] == "Pitch_60"
    assert told[again + 6]["position"] == "Position_24" and told[again + 6]["echo"] == "Bar_None"  # nothing so late
    assert told[again + 7]["program"] == 42 and told[again + 7]["pitch"] == 0  # the violin has not played yet
    assert told[again + 7]["last"] == 0 and told[again + 8]["last"] == 25
    assert (
        told[again + 2]["last"] == 25 and told[again + 3]["lowest"] == 25 and told[again + 3]["before"] == 25 + 67 - 60
    )
    assert told[again - 1]["degree"] == 1 + 7  # the dominant of C major
    assert told[again - 1]["velocity"] == "Velocity_87" and told[again - 1]["duration"] == "Duration_1.0.12"
    assert all(row["echo_2"] == 0 for row in told[:again]) and told[0]["echo"] == 0


def test_features_behind_a_hole_go_on_from_in_front_of_it():
    before = ["Bar_None", "TimeSig_4/4", "Position_0", "Program_0", *note(60)]
    kept = ["Ahead_None", "Bar_None", "TimeSig_4/4", "Position_0", "Program_40", *note(72), "Write_1"]
    told = scored(["BOS_None", *before, *kept, "Bar_None"], "score-infill")
    plain = scored(["BOS_None", *before, "Bar_None"])
    assert told[-1] == plain[-1] and told[-2] == plain[-2] and told[-1]["echo"] == "TimeSig_4/4"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 717), min_size=2, max_size=60), st.data())
def test_features_of_scores_stream_and_stay_in_range(ids: list[int], data: st.DataObject):
    tokenizer = tokenizers.create("score-infill")
    batch = torch.tensor([ids, ids[::-1]])
    cut = data.draw(st.integers(1, len(ids) - 1))
    whole, _ = tokenizer.features(batch)
    first, state = tokenizer.features(batch[:, :cut])
    second, _ = tokenizer.features(batch[:, cut:], state)
    again, _ = tokenizer.features(batch[:, cut:], state)
    assert torch.equal(torch.cat([first, second], 1), whole) and torch.equal(second, again)
    assert (whole >= 0).all() and all((whole[..., i] < size).all() for i, size in enumerate(tokenizer.feature_sizes))


def test_checkpoints_from_before_features_of_scores_get_none():
    described = SCORE.describe()
    assert described.pop("features") == 5
    old = tokenizers.from_description(described)
    assert old.feature_sizes == () and old.describe() == described
    assert tokenizers.from_description(SCORE.describe()).feature_sizes == SCORE.feature_sizes
