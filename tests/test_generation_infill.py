"""Writing within a score: what is kept comes out as it was, and models learn from holes what they are asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from symusic import Note, Score, Track

from musiclm import checkpoint, evaluation, midi, tokenizers
from musiclm.data import Corpus, bundled, open_source
from musiclm.data.crops import IGNORE, RandomCrops
from musiclm.errors import CheckpointError, MidiError, RunError
from musiclm.generation import infill
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, SamplerConfig
from musiclm.generation.masked_span import MaskedSpan, masked_span
from musiclm.plotting import piano_roll
from musiclm.tokenizers import grid_infill
from musiclm.tokenizers.grid import SILENCE, is_cell
from musiclm.training.config import TrainConfig
from musiclm.training.setup import prepare
from tests.conftest import tiny

GRID, SCORE = tokenizers.create("grid-infill"), tokenizers.create("score-infill", features=2)  # without a plan
PLAIN, PLAIN_GRID = tokenizers.create("score"), tokenizers.create("grid")
CHORALES = bundled(GRID)


@pytest.fixture(scope="module")
def chorales() -> Corpus:
    return CHORALES


@pytest.fixture(scope="module")
def composer(untrained):
    made: dict[str, Composer] = {}
    return lambda name: made.setdefault(name, Composer.load(untrained(name)))


def notes(score: Score) -> Counter:
    return Counter(
        (-1 if t.is_drum else t.program, n.time, n.duration, n.pitch, n.velocity) for t in score.tracks for n in t.notes
    )


def events(score: Score, hole: MaskedSpan | None = None) -> list[list[tuple]]:
    """Return the notes of each track, those within a hole left out, and all else that a file has."""
    first, stop = (round(at * score.ticks_per_quarter) for at in (hole.start, hole.stop)) if hole else (0, 0)
    found = []
    for i, track in enumerate(score.tracks):
        missing = hole is not None and i in hole.tracks
        kept = [n for n in track.notes if not (missing and first <= n.time < stop)]
        found.append(sorted((n.time, n.duration, n.pitch, n.velocity) for n in kept))
        found.append([(c.time, c.number, c.value) for c in track.controls])
    found.append([(t.time, t.mspq) for t in score.tempos])
    found.append([(t.time, t.numerator, t.denominator) for t in score.time_signatures])
    return found


@settings(max_examples=50)
@given(st.integers(1, 1 << 24), st.integers(0, 30))
def test_a_chorale_with_a_hole_tells_all_but_the_hole_and_then_all_of_it(number: int, index: int):
    piece = CHORALES.pieces("validation")[index].tokens
    ids = GRID.rearranged(piece, number)
    assert len(ids) <= grid_infill.LENGTH
    ahead, write = (int(np.flatnonzero(ids == mark)[0]) for mark in (grid_infill.AHEAD, grid_infill.WRITE))
    kept = ids[ahead + 1 : write]
    written = ids[write + 1 :][is_cell(ids[write + 1 :])]
    told, is_hole = kept[: len(written)], kept[: len(written)] == grid_infill.HOLE
    assert is_hole.any() and np.array_equal(told[~is_hole], written[~is_hole])
    assert GRID.eval_mask(ids).sum() == is_hole.sum()
    whole = piece[is_cell(piece)]
    stretch = np.concatenate([ids[:ahead][is_cell(ids[:ahead])], written])
    assert any(np.array_equal(whole[at : at + len(stretch)], stretch) for at in range(0, len(whole), 4))


@settings(max_examples=50)
@given(st.integers(1, 1 << 24), st.integers(1, 400))
def test_features_of_a_hole_stream_and_tell_what_is_kept(number: int, cut: int):
    ids = GRID.rearranged(CHORALES.pieces("validation")[number % 30].tokens, number)
    cut = min(cut, len(ids) - 1)
    whole, _ = GRID.features(torch.from_numpy(ids)[None])
    first, state = GRID.features(torch.from_numpy(ids[:cut])[None])
    second, _ = GRID.features(torch.from_numpy(ids[cut:])[None], state)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all((whole[0, :, i] < size).all() for i, size in enumerate(GRID.feature_sizes))
    write = int(np.flatnonzero(ids == grid_infill.WRITE)[0])
    ahead = int(np.flatnonzero(ids == grid_infill.AHEAD)[0])
    kept = ids[ahead + 1 : write]
    first = len(PLAIN_GRID.feature_sizes) + 1

    def told(cell: int) -> int:
        return int(kept[cell]) if cell < len(kept) and kept[cell] != grid_infill.HOLE else 0

    for place in range(write, len(ids) - 1):
        known = whole[0, place, first:].reshape(5, 4)
        last = int(whole[0, place, GRID.last_cell_feature])
        for k in range(4):
            cell = place - write + k  # the next one to be written, and the others'
            now, step = told(cell), cell // 4
            assert known[0, k] == (now + 1 if now else 0)
            assert known[1, k] == semitones(last, now)
            assert known[2, k] == semitones(last, told(cell % 4 + 16 * (step // 4 + 1)))
            waits = (j for j in range(1, grid_infill.MAX_WAIT + 1) if told(cell + 4 * j) not in (0, now))
            wait = next(waits, None)
            assert known[3, k] == (0 if wait is None else semitones(last, told(cell + 4 * wait)))
            assert known[4, k] == (grid_infill.MAX_WAIT + 1 if wait is None else wait)


def semitones(lower: int, upper: int) -> int:
    """Return what an interval of ids is as a feature."""
    return 0 if min(lower, upper) <= SILENCE else max(-24, min(24, upper - lower)) + 25


@settings(max_examples=50)
@given(st.integers(grid_infill.IN_ORDER, (1 << 30) - 1), st.integers(0, 30))
def test_training_has_holes_with_the_voices_in_any_order_and_their_features_say_so(number: int, index: int):
    piece = CHORALES.pieces("validation")[index].tokens
    ids = GRID.rearranged(piece, number)
    features = GRID.features(torch.from_numpy(ids)[None])[0][0]
    (order,) = set(features[:, PLAIN_GRID.last_cell_feature - 1].tolist())
    whole = PLAIN_GRID.rearranged(piece, order)
    if not (ids == grid_infill.WRITE).any():
        assert np.array_equal(ids, whole)
        return
    plain = grid_infill._without_ahead(ids)
    cells, all_cells = plain[is_cell(plain)], whole[is_cell(whole)]
    assert any(np.array_equal(all_cells[at : at + len(cells)], cells) for at in range(0, len(all_cells), 4))
    learnt = GRID.loss_mask(ids)
    assert not learnt[ids == grid_infill.HOLE].any() and learnt[ids == grid_infill.HOLE].size


@pytest.mark.slow
def test_a_model_of_the_plain_grid_goes_on_to_learn_holes(tmp_path: Path):
    started = checkpoint.load("bach-transformer")
    prepared = prepare(TrainConfig(arch="transformer", start_from="bach-transformer", tokenizer="grid-infill", steps=1))
    before, after = started.model().state_dict(), prepared.model.state_dict()
    assert len(after) == len(before) + len(GRID.feature_sizes) - len(started.tokenizer().feature_sizes)
    assert all(torch.equal(after[name][: len(tensor)], tensor) for name, tensor in before.items())
    first = tokenizers.create("grid", features=1)
    model = tiny("gru", first.vocab_size, **first.model_config)
    old = tmp_path / "old.safetensors"
    checkpoint.save(old, model, arch="gru", tokenizer=first, card={"data": "nothing", "figures": {}})
    with pytest.raises(RunError, match="other features"):
        prepare(TrainConfig(arch="gru", start_from=str(old), tokenizer="grid-infill", steps=1))


@pytest.mark.slow
def test_a_score_with_a_hole_tells_each_note_once(real_midi):
    pieces = [SCORE.encode(midi.parse(data, name))[0] for name, data in real_midi("openscore-lieder-midi", 6)]
    pieces += [SCORE.encode(midi.parse(data, name))[0] for name, data in real_midi("free-game-midi", 6)]
    kinds = Counter()
    for number in range(1, 120):
        piece = pieces[number % len(pieces)]
        ids = SCORE.rearranged(piece, number)
        ahead, write, begin = SCORE.parts(ids)
        kept, new = ids[ahead + 1 : write], ids[begin:]
        size = int(SCORE.values[ids[write]])
        assert len(SCORE.bar_starts(new)) - 1 == size
        kept = kept[: SCORE.bar_starts(np.append(kept, SCORE.eos))[size]]
        said = ids[write + 1 : begin]
        found = notes(PLAIN.decode(np.append(PLAIN.bos, kept)))
        written = notes(PLAIN.decode(np.concatenate([[PLAIN.bos], said, new])))
        starts = SCORE.bar_starts(piece)
        parts = [
            np.concatenate([[PLAIN.bos], _said(piece, starts[b]), piece[starts[b] : starts[b + size]]])
            for b in range(len(starts) - size)
        ]
        assert any(notes(PLAIN.decode(part)) == found + written for part in parts), number
        kinds["all" if not found else "some"] += 1
        assert SCORE.eval_mask(ids).sum() == len(new)
    assert min(kinds.values()) > 20


def _said(ids: np.ndarray, place: int) -> list[int]:
    program = SCORE._reader.program_before(ids, int(place))
    return [program] if program >= 0 else []


def test_training_guesses_what_was_before_and_what_is_missing(chorales):
    pieces = chorales.pieces("train")[:20]
    made = RandomCrops([p.tokens for p in pieces], GRID, length=grid_infill.LENGTH, batch_size=4, seed=0)
    holes = 0
    for number in range(6):
        batch = made(number)
        for row, targets in zip(batch.tokens.numpy(), batch.targets.numpy(), strict=True):
            if not (row == grid_infill.WRITE).any():
                continue
            holes += 1
            ahead, write = (int(np.flatnonzero(row == mark)[0]) for mark in (grid_infill.AHEAD, grid_infill.WRITE))
            assert (targets[: ahead - 1] != IGNORE).all() and (targets[ahead - 1 : write] == IGNORE).all()
            missing = row[ahead + 1 : write] == grid_infill.HOLE
            written = targets[write : write + 8]
            assert ((written != IGNORE) == missing[:8]).all()
    assert holes > 15


def test_holes_are_the_same_each_time_and_their_own_measure(chorales, composer):
    pieces = chorales.pieces("validation")[:3]
    made, again = evaluation.masked_pieces(GRID, pieces), evaluation.masked_pieces(GRID, pieces)
    assert [p.tokens.tolist() for p in made] == [p.tokens.tolist() for p in again] and len(made) == 12
    found = evaluation.measure_loss(composer("grid-infill").model, GRID, made)
    assert found.num_tokens == sum(int(GRID.eval_mask(p.tokens).sum()) for p in made)
    assert 3 < found.nats_per_token < 7  # it knows nothing


@pytest.mark.slow
def test_what_is_kept_of_chorales_comes_out_unchanged(chorales, composer):
    for i, piece in enumerate(chorales.pieces("test")[:12]):
        score = midi.parse(midi.to_bytes(GRID.decode(piece.tokens)), "a chorale")
        last = midi.num_bars(score)
        first = 1 + i % (last - 1)
        request = GenerationConfig(
            infill=None if i % 3 == 0 else f"{first}-{min(last, first + 1)}",
            keep_tracks=[None, "soprano", "Alto,4"][i % 3] if i % 3 else "soprano",
            sampler=SamplerConfig(temperature=1.5),
        )
        hole = masked_span(score, bars=request.infill_bars, keep=request.keep_tracks)
        (made,) = infill.fill(composer("grid-infill"), score, request, seed=i)
        assert events(made.score, hole) == events(score, hole)
        again = midi.parse(midi.to_bytes(made.score), "again")
        assert events(again, hole) == events(score, hole)
        assert made.num_new_tokens > 0


@pytest.mark.parametrize(
    "name", ["openscore-lieder-midi", "free-game-midi", "pop909", "nottingham-midi", "openhymnal-midi"]
)
@pytest.mark.slow
def test_what_is_kept_of_real_files_comes_out_unchanged(name: str, real_midi, composer):
    """40 files of each of five sets, 200 in all: whole ones, of very long ones the first bars."""
    num_filled = 0
    files = real_midi(name, 60)
    for i, (file, data) in enumerate(files):
        score = midi.parse(data, file)
        if score.note_num() > 1500:
            score = midi.cut(score, 0.0, midi.bar_line(score, 0.0, 12))
        score = midi.parse(midi.to_bytes(score), file)  # what a file can hold: no two overlapping notes of a pitch
        if midi.num_bars(score) < 4 or score.note_num() < 8:
            continue
        num_filled += 1
        if num_filled > 40:
            break
        playing = [t + 1 for t, track in enumerate(score.tracks) if len(track.notes)]
        keep = str(playing[0]) if i % 2 and len(playing) > 1 else None
        first = 1 + 7 * i % (midi.num_bars(score) - 1)
        request = GenerationConfig(infill=f"{first}" if keep is None else f"{first}-{first + 1}", keep_tracks=keep)
        hole = masked_span(score, bars=request.infill_bars, keep=keep)
        (made,) = infill.fill(composer("score-infill"), score, request, seed=i)
        shown = events(made.score, hole)
        assert shown[: 2 * len(score.tracks)] == events(score, hole)[:-2], file
        assert shown[-2:] == events(score)[-2:], file
        tpq = score.ticks_per_quarter
        for track in made.score.tracks[len(score.tracks) :]:  # whoever joins plays within the hole alone
            assert all(hole.start * tpq <= n.time and n.end <= hole.stop * tpq for n in track.notes), file
    assert num_filled >= min(40, len(files))


def test_accompanying_keeps_every_note_and_adds(song: Score, composer):
    (made,) = infill.fill(
        composer("score-infill"), song, GenerationConfig.from_options(accompany=True, instruments="bass"), seed=1
    )
    assert not notes(song) - notes(made.score)
    new = notes(made.score) - notes(song)
    assert new and {program for program, *_ in new} <= set(range(32, 40))


def test_a_melody_alone_gets_three_voices(composer):
    score = Score(480)
    tune = Track("Tune", 73)
    for at, pitch in enumerate((72, 74, 76, 77, 79, 77, 76, 74)):
        tune.notes.append(Note(480 * at, 480, pitch, 90))
    score.tracks.append(tune)
    (made,) = infill.fill(composer("grid-infill"), score, GenerationConfig(accompany=True), seed=0)
    assert [t.name for t in made.score.tracks] == ["Tune", "Alto", "Tenor", "Bass"]
    assert events(made.score)[0] == events(score)[0]
    assert midi.end(made.score) <= 8


def test_a_note_that_would_cut_another_is_left_out():
    score = Score(480)
    track = Track("Piano", 0)
    track.notes.append(Note(0, 960, 60, 80))
    track.notes.append(Note(1920, 480, 62, 80))
    score.tracks.append(track)
    new = [(480.0, 960.0, 60, 80), (960.0, 4000.0, 62, 80), (960.0, 1000.0, 64, 80), (1900.0, 2400.0, 62, 80)]
    assert infill.put(score, 0, new, 1.0, 4.0) == 2
    assert [(n.time, n.end, n.pitch) for n in score.tracks[0].notes] == [
        (0, 960, 60), (960, 1920, 62), (960, 1000, 64), (1920, 2400, 62)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"bars": (7, 9)}, "no bars 7 to 9: the piece has 8"),
        ({"keep": "oboe"}, "no track 'oboe': there are 1 Tune, 2 Chords, 3 Drums"),
        ({"keep": "1,2,drums"}, "nothing is left to write"),
        ({"bars": (1, 8)}, "nothing of the piece would be kept"),
        ({"keep": "4"}, "has no notes"),
    ],
)
def test_a_hole_that_cannot_be_is_refused(song: Score, asked, said: str):
    song.tracks.append(Track("Empty", 40))
    with pytest.raises(MidiError, match=said):
        masked_span(song, **asked)


def test_tracks_are_kept_by_name_number_instrument_and_drums(song: Score):
    assert masked_span(song, keep="tune").tracks == (1, 2)
    assert masked_span(song, keep="flute, drums").tracks == (1,)
    assert masked_span(song, keep="2").tracks == (0, 2)
    found = masked_span(song, bars=(3, 4))
    assert (found.start, found.stop, found.tracks) == (6.0, 12.0, (0, 1, 2))


def test_the_command_fills_and_makes_it_again(run, song_file: Path, untrained):
    model = untrained("score-infill")
    code, out, _ = run("generate", "--model", model, "--prompt", song_file, "--infill", "3-4", "-o", "a.mid", "--json")
    told = json.loads(out)
    assert code == 0 and told["outputs"][0]["bars"] == 8
    assert run("repro", "a.mid", "--model", model, "--prompt", song_file)[0] == 0
    code, _, err = run("generate", "--model", untrained("score"), "--prompt", song_file, "--infill", "3")
    assert code == 1 and "was not trained on infilling" in err
    assert run("generate", "--model", model, "--prompt", song_file, "--infill", "3-x")[0] == 2
    assert run("generate", "--model", model, "--prompt", song_file, "--accompany", "--bars", "4")[0] == 2
    assert run("generate", "--model", model, "--infill", "3-4")[0] == 2


def test_the_grid_refuses_what_it_cannot_sing(song: Score, composer):
    with pytest.raises(MidiError, match="one note at a time"):
        infill.fill(composer("grid-infill"), song, GenerationConfig(infill="3-4"), seed=0)
    with pytest.raises(CheckpointError, match="was not trained"):
        infill.fill(composer("grid"), song, GenerationConfig(infill="3-4"), seed=0)


def test_silence_in_a_voice_that_is_kept_stays_silence(composer, chorales):
    score = GRID.decode(chorales.pieces("test")[0].tokens)
    for track in score.tracks[:1]:
        track.notes = type(track.notes)([n for n in track.notes if n.time >= 8 * 480])
    (made,) = infill.fill(composer("grid-infill"), score, GenerationConfig(keep_tracks="soprano", infill="1-2"), seed=0)
    assert min(n.time for n in made.score.tracks[0].notes) >= 8 * 480
    assert SILENCE == 2


def test_what_was_there_before_is_drawn_paler(song: Score, composer):
    (made,) = infill.fill(composer("score-infill"), song, GenerationConfig(infill="3-4"), seed=0)
    pale, usual = piano_roll.notes(made.score, kept=song), piano_roll.notes(made.score)
    is_new = [n.colour == u.colour for n, u in zip(pale, usual, strict=True)]
    inside = [6 <= n.start < 12 for n in pale]
    assert any(is_new) and not any(new and not within for new, within in zip(is_new, inside, strict=True))


def test_a_model_says_how_its_music_is_drawn_and_what_is_asked_wins(untrained, tmp_path: Path):
    plain = checkpoint.load(untrained("grid"))
    file = tmp_path / "own.safetensors"
    card = {**plain.card, "sampling": {"temperature": 0.5, "top_p": 0.9, "nonsense": 1}}
    checkpoint.save(file, plain.model(), arch=plain.arch, tokenizer=plain.tokenizer(), card=card)
    own = Composer.load(str(file))
    for asked, expected in (
        ({}, {"temperature": 0.5, "top_p": 0.9}),
        ({"top_k": 3}, {"temperature": 0.5, "top_k": 3}),
        ({"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}),
    ):
        assert own.completed(GenerationConfig.from_options(**asked)).sampler == SamplerConfig(
            rhythm_temperature=1.0, **expected
        )
        sampler = own.sampler([], SamplerConfig(**asked))
        assert {name: getattr(sampler, name) for name in expected} == expected
    assert Composer(plain).completed(GenerationConfig()).sampler == SamplerConfig(
        temperature=1.0, rhythm_temperature=1.0
    )


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "filling"), [("score", "score-infill"), ("grid", "grid-infill")])
def test_a_corpus_is_read_by_the_tokenizer_with_holes_and_by_the_one_without(run, tmp_path: Path, plain, filling):
    """One that was built for holes was refused, as tokens "not of another" tokenizer of the same name."""
    source = bundled(tokenizers.create("grid"))
    (tmp_path / "data").mkdir()
    for i, piece in enumerate(source.pieces("train")[:12]):
        midi.write(tokenizers.create("grid").decode(piece.tokens), tmp_path / "data" / f"{i}.mid")
    for built in (plain, filling):
        store = tmp_path / built
        assert (
            run("corpus", "build", tmp_path / "data", "-o", store, "--tokenizer", built, "-q", "--workers", 1)[0] == 0
        )
        found = [open_source(str(store), tokenizers.create(name)) for name in (plain, filling)]
        assert [p.tokens.tolist() for p in found[0].pieces("train")] == [
            p.tokens.tolist() for p in found[1].pieces("train")
        ]
    assert (
        run("train", tmp_path / "data", "--tokenizer", filling, "--arch", "gru", "--steps", 1, "-q", "-o", "a")[0] == 0
    )


@pytest.mark.slow
def test_a_hole_that_is_written_in_parts_is_said(run):
    hymn = Path(__file__).parents[1] / "examples" / "hymn.mid"
    told = "filled in 8 parts"  # of two bars, 16 bars in all
    asked = ["generate", "--model", "bach-infill", "--prompt", hymn, "--keep-tracks", 1, "--seed", 1]
    code, _, err = run(*asked, "-o", "a.mid")
    assert code == 0 and told in err
    assert told not in run(*asked, "-o", "b.mid", "-q")[2]
    assert "parts" not in run(*asked, "--infill", "3-4", "-o", "c.mid")[2]


def test_new_notes_of_one_program_are_split_between_its_tracks(composer):
    song = Score(480)
    for low in (0, 48, 72):  # an empty track of the program is first
        track = Track(program=0)
        for beat in range(32 if low else 0):
            track.notes.append(Note(beat * 480, 480, low + beat % 5, 80))
        song.tracks.append(track)
    request = GenerationConfig(infill="3-4", n=1)
    new = infill.fill(composer("score-infill"), song, request, seed=1)[0].score
    inside = [[n for n in t.notes if 8 * 480 <= n.time < 16 * 480] for t in new.tracks]
    assert not inside[0]
    assert sum(map(len, inside)) > 0
    for at in {n.time for part in inside for n in part}:
        low, high = ([n.pitch for n in part if n.time == at] for part in inside[1:])
        assert not low or not high or max(low) <= min(high)
