"""Parts beside given music: what is given comes out as it was, and only what is asked for is written."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from symusic import Note, Score, Track

from musiclm import checkpoint, midi, models, tokenizers
from musiclm.errors import CheckpointError, MidiError, TokenizerError
from musiclm.generation import accompany, given, players, provenance, written_parts
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.constraints.given_bars import GivenBars
from musiclm.generation.files import generate_files
from musiclm.generation.sides import Sides
from musiclm.generation.written_parts import Writer, _Pass
from musiclm.midi.chords import pitch_classes
from musiclm.midi.parts import melody
from musiclm.tokenizers.vocabulary import Kind
from tests.conftest import tiny
from tests.songs import CHORDS, events, song

PAIRS = tokenizers.create("score-pairs")
FOUR, MIXED = [(4, 4)] * 10, [(4, 4), (3, 4), (6, 8), (3, 4)] * 3


@pytest.fixture(scope="module")
def composer(untrained) -> Composer:
    return Composer.load(untrained("score-pairs"))


def written(composer: Composer, score: Score, seed: int = 1, **options) -> list[Score]:
    config = GenerationConfig.from_options(**{"task": "accompany", "draw": 1} | options)
    return [made.score for made in accompany.best(composer, score, config, seed)]


def programs(score: Score) -> list[int]:
    return [-1 if track.is_drum else track.program for track in score.tracks]


def new_notes(score: Score, num_given: int) -> list[Note]:
    return [note for track in score.tracks[num_given:] for note in track.notes]


@pytest.mark.parametrize("signs", [FOUR, MIXED])
def test_the_given_notes_come_out_event_for_event_beside_exactly_the_programs_asked_for(composer, signs):
    score = song(signs, tracks="melody chords drums")
    (made,) = written(composer, score, instruments="piano,33,drums")
    assert events(made)[: len(events(score))] == events(score)
    assert [m.text for m in made.markers] == ["a marker"]
    assert programs(made)[3:] == [0, 33, -1]
    assert all(len(track.notes) for track in made.tracks)
    assert midi.num_bars(made) == midi.num_bars(score) == len(signs)


def test_a_song_is_not_changed_by_what_is_written_beside_it(composer):
    score = song(FOUR)
    before = events(score)
    written(composer, score, instruments="bass", infill="1-2")
    written(composer, score, task="restyle", style="hymn", infill="1-2")
    assert events(score) == before


def test_each_part_plays_in_each_eight_bars(composer):
    (made,) = written(composer, song([(4, 4)] * 16), instruments="piano,drums")
    for track in made.tracks[2:]:
        bars = {note.time // 1920 // 8 for note in track.notes}
        assert bars == {0, 1}


def test_in_two_bars_too_each_part_plays(composer):
    (made,) = written(composer, song(FOUR), instruments="piano,violin,bass,drums", infill="9-10")
    assert programs(made)[2:] == [0, 33, 40, -1]


def test_the_same_seed_gives_the_same_notes_and_another_seed_others(composer):
    score = song(FOUR[:4])
    one, again, other = (written(composer, score, seed, instruments="bass")[0] for seed in (1, 1, 2))
    assert events(one) == events(again) != events(other)


def test_a_variation_does_not_depend_on_the_others(composer):
    score = song(FOUR[:4])
    config = GenerationConfig.from_options(task="accompany", instruments="bass", n=3)
    several = accompany.arrange(composer, score, config, 5)
    (last,) = accompany.arrange(composer, score, config, 5, [2])
    assert last.index == 2 and events(last.score) == events(several[2].score)
    assert len({str(events(each.score)) for each in several}) == 3


def test_keep_gives_the_best_of_the_variations(composer):
    score = song(FOUR[:4])
    config = GenerationConfig.from_options(task="accompany", instruments="piano", n=3, keep=2)
    kept = accompany.best(composer, score, config, 5)
    made = {each.index: each for each in accompany.arrange(composer, score, config, 5)}
    assert len(kept) == 2 and len({each.index for each in kept}) == 2
    assert all(events(each.score) == events(made[each.index].score) for each in kept)


def test_new_notes_begin_in_the_bars_asked_for_alone(composer):
    (made,) = written(composer, song(MIXED), instruments="piano,bass", infill="3-6")
    starts = [bar.start for bar, _ in zip(midi.bars(made), range(7), strict=False)]
    times = [note.time / 480 for note in new_notes(made, 2)]
    assert times and starts[2] <= min(times) and max(times) < starts[6]


def test_without_parts_a_song_gets_what_the_style_has_and_it_lacks(composer):
    with_chords = song(FOUR[:2], tracks="melody chords drums")
    assert programs(written(composer, with_chords)[0])[3:] == [0, 33]  # a band
    assert programs(written(composer, with_chords, style="orchestra")[0])[3:] == [40, 42, 60, 71]
    assert programs(written(composer, song(FOUR[:2], tracks="melody"), style="lied")[0])[1:] == [0]
    whole = with_chords.copy()
    whole.tracks.extend([Track("p", 0, False, [Note(0, 9, 60, 9)]), Track("b", 33, False, [Note(0, 9, 40, 9)])])
    with pytest.raises(MidiError, match="has all that the style 'band' has"):
        written(composer, whole)


def test_a_melody_with_drums_gets_no_second_drums_unless_they_are_asked_for(composer):
    """Where all pitched notes are the melody, drums were overlooked: a band had two drum tracks, written at once."""
    score = song(FOUR[:4], tracks="melody drums")
    (made,) = written(composer, score)
    assert programs(made)[2:] == [0, 33]
    assert programs(written(composer, score, instruments="drums")[0])[2:] == [-1]
    with pytest.raises(MidiError, match="has all that the style 'drums' has"):
        written(composer, score, style="drums")
    config = accompany.completed(composer, GenerationConfig.from_options(task="accompany", draw=1), score)
    assert Writer(composer, score, config, (0, 4)).passes == [(0,), (33,)]
    alone = song(FOUR[:4], tracks="melody")
    config = accompany.completed(composer, GenerationConfig.from_options(task="accompany", draw=1), alone)
    assert Writer(composer, alone, config, (0, 4)).passes == [(0, 33, -1)]


def test_parts_are_written_in_turn_beside_more_than_a_melody():
    assert players.by_kind((-1, 33, 0, 48, 25, 73)) == [(0,), (25,), (48,), (73,), (33,), (-1,)]
    assert players.by_kind((0, 16)) == [(0, 16)]


def test_a_word_stands_for_one_usual_instrument():
    asked = GenerationConfig.from_options(task="accompany", instruments="bass,guitar,drums,7").controls
    assert players.programs_of(asked.ensemble) == (7, 25, 33, -1)


@pytest.mark.parametrize("chords", ["Am F/2 G/2", None])
def test_bars_say_the_chords_asked_for_or_those_of_the_song(composer, chords):
    score = song(FOUR[:6])
    config = GenerationConfig.from_options(task="accompany", instruments="piano", chords=chords, infill="2-5", draw=1)
    completed = accompany.completed(composer, config, score)
    halves = [(9, "min")] * 2 + [(5, "maj"), (7, "7" if chords is None else "maj")]
    if chords is None:  # Am F G C, the harmony of bars 2 to 5
        roots = [root for root, _ in completed.controls.chords]
        assert roots == [9, 9, 5, 5, 7, 7, 0, 0]
    else:
        assert list(completed.controls.chords) == halves
    writer = Writer(composer, score, completed, (1, 5))
    side = writer.sides.side(writer.given.source, writer.chords)
    said = [PAIRS.vocabulary[i].value for i in side.tolist() if PAIRS.vocabulary[i].kind == Kind.CHORD]
    wanted = completed.controls.chords
    assert said[2:10] == [wanted[i % len(wanted)] for i in range(8)]


def test_at_a_chord_strength_of_one_all_new_notes_are_in_the_chord_of_their_half_bar(composer):
    (made,) = written(composer, song(FOUR), instruments="piano", chords="Dm G7/2 Em/2", chord_strength=1.0)
    progression = [(2, "min")] * 2 + [(7, "7"), (4, "min")]
    notes = new_notes(made, 2)
    assert notes
    for note in notes:
        assert note.pitch % 12 in pitch_classes(progression[note.time // 960 % 4])


def test_the_harmony_of_a_song_holds_without_chords_at_its_strength(composer):
    (made,) = written(composer, song(FOUR), instruments="piano", chord_strength=1.0)
    for note in new_notes(made, 2):
        triad = {pitch % 12 for pitch in CHORDS[note.time // 1920 % 4]}
        assert note.pitch % 12 in triad | {11, 10, 9, 5, 4}  # a label may have a seventh


def test_an_automatic_key_is_that_of_the_song(composer):
    """It was estimated from the new notes alone, which the song had no part in."""
    score = song(FOUR[:4])
    for track in score.tracks:  # C major, a semitone up
        track.notes = type(track.notes)([Note(n.time, n.duration, n.pitch + 1, n.velocity) for n in track.notes])
    for asked, strength in (({}, 0.5), ({"key_strength": 0.9}, 0.9)):
        config = GenerationConfig.from_options(task="accompany", instruments="bass", key="auto", **asked)
        made = accompany.completed(composer, config, score).controls
        assert (made.key, made.key_strength) == ("C# major", strength)
    (made_score,) = written(composer, score, instruments="piano", key="auto", key_strength=1.0)
    assert {note.pitch % 12 for note in new_notes(made_score, 2)} <= {1, 3, 5, 6, 8, 10, 0}
    drums = song(FOUR[:4], tracks="drums")
    config = GenerationConfig.from_options(task="accompany", instruments="bass", key="auto")
    assert accompany.completed(composer, config, drums).controls.key == "auto"


def test_beside_a_melody_alone_the_model_finds_the_chords(composer):
    alone = song(FOUR[:3], tracks="melody drums")
    assert given.is_melody_alone(alone) and not given.is_melody_alone(song(FOUR[:3]))
    config = GenerationConfig.from_options(task="accompany", instruments="piano")
    assert accompany.completed(composer, config, alone).controls.chords is None
    assert new_notes(written(composer, alone, instruments="piano")[0], 2)


@pytest.mark.parametrize(("tracks", "chords"), [("melody", None), ("melody", "Am F"), ("melody chords", None)])
def test_a_chord_strength_without_known_chords_is_said_to_have_no_effect(composer, caplog, tracks: str, chords):
    """It was ignored without a word where the model finds the chords."""
    caplog.set_level("INFO")
    score = song(FOUR[:1], tracks=tracks)
    written(composer, score, instruments="piano", chord_strength=0.9, chords=chords)
    number = caplog.text.count("chord strength has no effect")
    assert number == (tracks == "melody" and chords is None)


def test_both_sides_have_all_bars_of_the_song_and_their_time_signatures():
    score = song(MIXED)
    sides = Sides(PAIRS, score, "band")
    chords = sides.chord_ids(sides.harmony(), 0, sides.num_bars)
    silent = score.copy()
    silent.tracks = type(silent.tracks)([])
    source, target = sides.side(score, chords), sides.side(silent, chords, (0, -1))
    for side in (source, target):
        lines = np.flatnonzero([PAIRS.vocabulary[i].kind == Kind.BAR for i in side])
        assert [PAIRS.vocabulary[i].value for i in side[lines + 1]] == MIXED
        assert side[0] == PAIRS.bos and side[-1] == PAIRS.eos
        assert PAIRS.vocabulary[side[1]].value == "band"
    header = [PAIRS.vocabulary[i].value for i in target[: PAIRS.bar_starts(target)[0]]]
    assert header[2:] == [12, (4, 4), header[4], 0, -1]


def test_a_note_that_is_rounded_to_a_bar_behind_the_end_is_no_bar_more(composer):
    score = song(FOUR[:3])
    for track in score.tracks:  # a short note just before the last bar line
        track.notes.append(Note(3 * 1920 - 5, 4, 60, 64))
    assert Sides(PAIRS, score, None).num_bars == midi.num_bars(score) == 3
    (made,) = written(composer, score, instruments="bass")
    assert events(made)[: len(events(score))] == events(score)


@pytest.mark.parametrize("arch", ["seq2seq_transformer", "gru", "transformer"])
def test_a_side_of_a_step_is_no_longer_than_the_model_takes(arch: str, tmp_path, monkeypatch):
    """In dense music sixteen bars are more ids than training crops have, and more than the model's context."""
    monkeypatch.setattr(written_parts, "MOST_IDS", 200)
    context = {"seq2seq_transformer": {"context": 200}, "transformer": {"context": 400}}.get(arch, {})
    model = models.create(arch, PAIRS.vocab_size, **models.preset(arch, "tiny") | context, **PAIRS.model_config)
    file = tmp_path / "small.safetensors"
    checkpoint.save(file, model, arch=arch, tokenizer=PAIRS, card={"data": "nothing", "figures": {}})
    score, read = song([(4, 4)] * 24, tracks="melody"), []
    monkeypatch.setattr(_Pass, "_read", lambda *args, real=_Pass._read: read.append(real(*args)) or read[-1])
    written(Composer.load(str(file)), score, instruments="bass")
    num_bars = [[len(PAIRS.bar_starts(side)) - 1 for side in sides] for sides in read]
    assert [source - target for source, target in num_bars] == [8, 8, 8]
    assert num_bars[0] == [8, 0] and all(0 <= target < 8 for _, target in num_bars)
    assert all(len(side) <= 200 for sides in read for side in sides)


def test_bars_have_the_time_signature_given_and_no_tempo_of_their_own():
    table = PAIRS.vocabulary
    three, four = (
        next(i for i, t in enumerate(table) if t.kind == Kind.TIME_SIGNATURE and t.value == sign)
        for sign in ((3, 4), (4, 4))
    )
    bar = next(i for i, t in enumerate(table) if t.kind == Kind.BAR)
    tempo = next(i for i, t in enumerate(table) if t.kind == Kind.TEMPO)
    made = GivenBars(PAIRS, np.array([three, four]))
    state = made.start(1)
    assert made.allow(state)[0, three] == made.allow(state)[0, tempo] == 0
    allowed = []
    for token in (bar, tempo, bar, bar):
        state = made.step(state, torch.tensor([token]))
        allowed.append([bool(made.allow(state)[0, i] == 0) for i in (three, four, tempo)])
    assert allowed == [[True, False, True], [True, False, False], [False, True, False], [True, True, False]]


@pytest.mark.parametrize("signs", [[(1, 4), *FOUR[:3]], [(1, 8), *FOUR[:2]], [*FOUR[:2], (1, 4), (4, 4)]])
@pytest.mark.parametrize("options", [{"instruments": "bass"}, {"task": "restyle", "style": "hymn"}])
def test_pickups_and_short_bars_of_a_song_are_kept(composer, signs, options):
    """The rule of unconditional music against bars below 1.5 quarters left no time signature: sampling crashed."""
    score = song(signs, tracks="melody chords drums")
    (made,) = written(composer, score, **options)
    assert [(bar.numerator, bar.denominator) for bar, _ in zip(midi.bars(made), signs, strict=False)] == signs
    assert midi.num_bars(made) == len(signs) and made.tracks[-1].note_num()


def test_a_restyled_song_has_the_melody_on_the_lead_of_the_style_and_its_parts(composer):
    score = song(FOUR, tracks="melody chords drums")
    (made,) = written(composer, score, task="restyle", style="band")
    tune, *others = made.tracks
    assert programs(made) == [65, 0, 33, -1]
    assert events(made)[2][3] == events(score)[2][3]  # note for note
    assert events(made)[:2] == events(score)[:2]
    assert [m.text for m in made.markers] == ["style: band", "a marker"]
    assert all(len(track.notes) for track in others) and midi.num_bars(made) == 10
    found = melody(made)
    assert found is not None and found.found_by == "name" and len(found.notes) == len(tune.notes)


def test_restyling_some_bars_leaves_the_others_as_they_are(composer):
    score = song(FOUR, tracks="melody chords drums")
    (made,) = written(composer, score, task="restyle", style="hymn", infill="3-5")
    first, last = 2 * 1920, 5 * 1920

    def outside(music: Score) -> list:
        found = [
            (t.program, t.is_drum, n.time, n.duration, n.pitch, n.velocity)
            for t in music.tracks
            for n in t.notes
            if not first <= n.time < last
        ]
        return sorted(found)

    assert outside(made) == outside(score)
    within = {p for p, t in zip(programs(made), made.tracks, strict=True) for n in t.notes if first <= n.time < last}
    assert within == {52}
    tune = [(n.time, n.pitch) for n in score.tracks[0].notes if first <= n.time < last]
    assert [(n.time, n.pitch) for n in made.tracks[0].notes] == tune


def test_a_song_of_one_piano_is_restyled_by_its_highest_notes(composer):
    score = song(FOUR[:4])
    piano = Track("", 0, False, sorted([n for t in score.tracks for n in t.notes], key=lambda n: n.time))
    score.tracks = type(score.tracks)([piano])
    (made,) = written(composer, score, task="restyle", style="piano")
    assert [n.pitch for n in made.tracks[0].notes] == [n.pitch for n in song(FOUR[:4]).tracks[0].notes]


@pytest.mark.parametrize(
    ("options", "score", "said"),
    [
        ({"infill": "3-12"}, song(FOUR), "no bars 3 to 12: the piece has 10"),
        ({}, Score(480), "no notes"),
        ({}, song([(4, 4), (17, 16)]), "bar 2, in 17/16, has a time signature that it lacks"),
        ({"task": "restyle", "style": "band"}, song(FOUR, tracks="drums"), "no melody"),
        ({"task": "restyle", "style": "drums"}, song(FOUR), "'drums' has no melody"),
    ],
)
def test_a_song_beside_which_nothing_can_be_written_is_refused(composer, options, score, said: str):
    with pytest.raises(MidiError, match=said):
        written(composer, score, **options)


def test_an_instrument_that_the_model_lacks_is_refused():
    few = SimpleNamespace(vocabulary=[token for token in PAIRS.vocabulary if token != (Kind.PROGRAM, 33)])
    players.check(few, (0, -1), "few")
    with pytest.raises(TokenizerError, match=r"'few' was made without electric bass \(finger\)"):
        players.check(few, (0, 33), "few")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "restyle"}, "to a style"),
        ({"task": "dance"}, "no task 'dance'"),
        ({"task": "accompany", "keep_tracks": "1"}, "not with a task"),
        ({"task": "accompany", "bars": 4}, "bars is for music behind a prompt"),
        ({"task": "accompany", "form": "AB"}, "form is for music from a bar on"),
        ({"task": "accompany", "time_signature": "3/4"}, "time_signature is the song's own"),
        ({"task": "restyle", "style": "band", "tempo": 90}, "tempo is the song's own"),
        ({"task": "accompany", "instruments": "piano,bass", "ensemble": "none"}, "not with ensemble"),
        ({"task": "accompany", "instruments": "piano,bass", "ensemble": "bass"}, "not with ensemble"),
        ({"task": "accompany", "ensemble": "bass"}, "not with ensemble"),
        ({"accompany": True, "keep": 1}, "keep is for music behind a prompt"),
    ],
)
def test_options_without_a_meaning_in_a_task_are_refused(options, said: str):
    with pytest.raises(ValueError, match=said):
        GenerationConfig.from_options(**options)


def test_models_of_pairs_and_others_are_not_mixed_up(composer, untrained):
    with pytest.raises(CheckpointError, match="musiclm accompany and musiclm restyle"):
        generate_files(GenerationConfig(), seed=1, model=untrained("score-pairs"), device="cpu")
    config = GenerationConfig.from_options(task="accompany", instruments="bass")
    with pytest.raises(CheckpointError, match="neither on pairs of parts"):
        accompany.best(Composer.load(untrained("score 2")), song(FOUR), config, 1)


def test_a_composer_refuses_to_continue_with_a_model_of_pairs(composer):
    with pytest.raises(TokenizerError, match=r"accompany\.arrange"):
        composer.generate(None, GenerationConfig(), 1)
    with pytest.raises(ValueError, match=r"accompany\.arrange"):
        composer.generate(None, GenerationConfig.from_options(task="accompany"), 1)


def test_a_language_model_of_pairs_reads_source_and_target_behind_each_other(tmp_path):
    model = tiny("gru", PAIRS.vocab_size, **PAIRS.model_config)
    file = tmp_path / "joined.safetensors"
    checkpoint.save(file, model, arch="gru", tokenizer=PAIRS, card={"data": "nothing", "figures": {}})
    score = song(FOUR[:3])
    (made,) = written(Composer.load(str(file)), score, instruments="bass", draw=2)
    assert events(made)[: len(events(score))] == events(score) and programs(made)[2:] == [33]


def test_the_record_stores_what_was_left_open_and_gives_the_same_bytes(composer, untrained):
    data = midi.to_bytes(song(FOUR[:3]))
    for options in ({"task": "accompany"}, {"task": "restyle", "style": "lied", "n": 2, "keep": 1}):
        config = GenerationConfig.from_options(**options)
        model = untrained("score-pairs")
        made = generate_files(config, seed=7, model=model, device="cpu", prompt=data, prompt_name="a")
        record = provenance.read(midi.parse(made.files[0].data, "out"), "out")
        stored = record.request.to_record()
        assert stored["task"] == options["task"] and stored["chords"] and stored["instruments"] and stored["style"]
        assert record.request.draw == (8 if record.request.n == 1 else 1)
        assert provenance.reproduce(record, composer, midi.parse(data, "a")) == made.files[0].data


def test_generate_accompany_takes_this_way_with_a_model_of_pairs(untrained):
    data = midi.to_bytes(song(FOUR[:3]))
    asked = GenerationConfig.from_options(accompany=True, instruments="bass", draw=2)
    alias, direct = (
        generate_files(config, seed=7, model=untrained("score-pairs"), device="cpu", prompt=data, prompt_name="a")
        for config in (asked, GenerationConfig.from_options(task="accompany", instruments="bass", draw=2))
    )
    assert alias.files[0].data == direct.files[0].data


@pytest.fixture(scope="module")
def infilling(untrained) -> Composer:
    return Composer.load(untrained("score-infill"))


def test_an_infilling_model_writes_parts_beside_a_song_that_stays(infilling):
    score = song(FOUR, tracks="melody chords drums")
    made = written(infilling, score, instruments="bass,violin", infill="1-4")[0]
    assert events(made)[: len(events(score))] == events(score)
    assert set(programs(made)[3:]) == {33, 40} and new_notes(made, 3)


def test_an_infilling_model_keeps_the_melody_of_a_restyled_song(infilling):
    score = song(FOUR, tracks="melody chords")
    made = written(infilling, score, task="restyle", style="chorale")[0]
    tune = sorted((n.time, n.pitch) for n in melody_notes(score))
    assert sorted((n.time, n.pitch) for n in made.tracks[0].notes) == tune
    assert set(programs(made)) == {52} and new_notes(made, 1)


def melody_notes(score: Score) -> list[Note]:
    return [score.tracks[i].notes[j] for i, j in melody(score).notes.tolist()]


def test_variations_of_an_infilling_model_are_ranked_and_made_again(infilling):
    score = song(FOUR, tracks="melody chords drums")
    config = GenerationConfig.from_options(task="accompany", instruments="bass", infill="1-2", n=3, keep=2)
    kept = accompany.best(infilling, score, config, 5)
    again = accompany.arrange(infilling, score, config, 5, [made.index for made in kept])
    assert [m.score.dumps_midi() for m in kept] == [m.score.dumps_midi() for m in again]
    assert len({m.index for m in kept}) == 2


def test_the_default_supports_infilling_unless_a_model_of_pairs_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path))
    assert checkpoint.default(paired=True) in checkpoint.infilling()
    name = "accompany-seq2seq_gru"
    shutil.copy(checkpoint.bundled_path("bach-gru"), tmp_path / f"{name}.safetensors")
    assert checkpoint.default(paired=True) == name


@pytest.mark.parametrize("model", ["score-pairs", "score-infill"])
def test_instruments_play_in_their_ranges_unless_another_is_asked_for(untrained, model: str):
    """A bass was written above the melody now and then."""
    writer, score = Composer.load(untrained(model)), song(FOUR, tracks="melody chords")
    usual = written(writer, score, instruments="bass", infill="1-4")[0]
    high = written(writer, score, instruments="bass", infill="1-4", pitch_range="72-84")[0]
    assert all(28 <= note.pitch <= 60 for note in new_notes(usual, 2)) and new_notes(usual, 2)
    assert all(72 <= note.pitch <= 84 for note in new_notes(high, 2)) and new_notes(high, 2)


def test_players_that_play_at_once_have_the_range_of_all_of_them():
    assert players.pitch_range([40, 42]) == (36, 100)
    assert players.pitch_range([33, -1]) == (28, 60)
    assert players.pitch_range([-1]) is None and players.pitch_range([0, 33]) is None
