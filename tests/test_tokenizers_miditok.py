"""MidiTok's tokenizers by name: which there are, what they do with options, and what is known of their ids."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch

from musiclm import tokenizers
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from tests.tokenizers_data import band, real_scores

torch.set_num_threads(1)
SAME_IDS = ("score", "REMI", "TSD", "Structured", "MMM")
IN_TIME = [name for name in ("score", *tokenizers.MIDITOK) if name != "MMM"]
BEATS_ONLY = ("Structured", "PerTok")  # without metre


def known(score):
    return Counter(
        (n.time, n.end, n.pitch, n.velocity, -1 if t.is_drum else t.program) for t in score.tracks for n in t.notes
    )


@pytest.mark.parametrize("name", ["score", *tokenizers.MIDITOK])
def test_a_band_is_one_stream_and_comes_back(name):
    tokenizer = tokenizers.parse(name)
    assert tokenizer.name == name
    ids, left_out = tokenizer.encode(band())
    assert left_out == 0
    assert ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos
    decoded = tokenizer.decode(ids)
    assert decoded.ticks_per_quarter == 480
    onsets = Counter((n.time, n.pitch, t.is_drum, t.program) for t in decoded.tracks for n in t.notes)
    assert onsets == Counter((n.time, n.pitch, t.is_drum, t.program) for t in band().tracks for n in t.notes)
    again, _ = tokenizer.encode(decoded)
    assert name not in SAME_IDS or np.array_equal(again, ids)


@pytest.mark.parametrize("name", ["score", *tokenizers.MIDITOK])
def test_a_description_gives_the_same_tokenizer_as_json(name):
    made = tokenizers.create(name, config={"num_velocities": 8})
    again = tokenizers.from_description(json.loads(json.dumps(made.describe(), sort_keys=True)))
    assert again.describe() == made.describe()
    assert sum(kind == "Velocity" for kind in again.kinds) == 8
    assert np.array_equal(again.encode(band())[0], made.encode(band())[0])


@pytest.mark.parametrize("name", SAME_IDS)
@pytest.mark.parametrize("archive", ["free-game-midi", "openhymnal-midi"])
def test_real_files_come_back(name, archive):
    tokenizer = tokenizers.create(name)
    for score in real_scores(archive, 5):
        ids, left_out = tokenizer.encode(score)
        decoded = tokenizer.decode(ids)
        assert decoded.note_num() == score.note_num() - left_out
        again, _ = tokenizer.encode(decoded)
        assert np.array_equal(again, ids)
        assert known(tokenizer.decode(again)) == known(decoded)


@pytest.mark.parametrize("name", IN_TIME)
def test_musical_time_never_passes_a_note_to_come(name):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(band())
    onsets = sorted(n.time / 480 for t in tokenizer.decode(ids).tracks for n in t.notes)
    before, num_notes = 0.0, 0
    for length in range(1, len(ids)):
        reached = tokenizer.quarters(ids[:length])
        num_notes += tokenizer.kinds[ids[length - 1]] in ("Pitch", "PitchDrum", "NoteOn", "DrumOn")
        if num_notes < len(onsets) and name != "BEAT":  # which writes a beat of each instrument at a time
            assert before - 1e-6 <= reached <= onsets[num_notes] + 1e-6
        before = reached
    assert 12 <= tokenizer.quarters(ids) <= 14


def plain_quarters(tokenizer, ids):
    """Return the time that REMI, TSD and MIDILike have reached, an id after the other."""
    bar_start, beat, bar_length, within, begun = 0.0, 1.0, 4.0, 0.0, False
    for i in ids:
        kind, value = tokenizer.kinds[i], tokenizer.values[i]
        if kind == "Bar":
            bar_start, within, begun = bar_start + bar_length * begun, 0.0, True
        elif kind == "TimeSig":
            numerator, denominator = map(int, value.split("/"))
            beat, bar_length = 4 / denominator, 4 * numerator / denominator
        elif kind == "Position":
            within = int(value) * beat / 12
        elif kind == "TimeShift":
            beats, fraction, resolution = map(int, value.split("."))
            within += (beats + fraction / resolution) * beat
    return bar_start + within


@pytest.mark.parametrize("name", ["score", "TSD", "MIDILike"])
def test_musical_time_is_counted_as_one_would_by_hand(name):
    tokenizer = tokenizers.create(name)
    for score in [band(), *real_scores("free-game-midi", 5)]:
        ids, _ = tokenizer.encode(score)
        for length in np.linspace(0, len(ids), 23, dtype=int):
            assert tokenizer.quarters(ids[:length]) == pytest.approx(plain_quarters(tokenizer, ids[:length]))


@pytest.mark.parametrize("name", IN_TIME)
def test_silence_never_goes_too_far(name):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(band())
    for quarters in (14, 17, 30.5):
        longer = tokenizer.pad_with_silence(ids[:-1], quarters)
        assert np.array_equal(longer[: len(ids) - 1], ids[:-1])
        assert tokenizer.quarters(longer) <= quarters + 1e-6
        assert tokenizer.decode(longer).note_num() == tokenizer.decode(ids).note_num()
    if "Bar" in tokenizer.kinds:
        assert tokenizer.quarters(tokenizer.pad_with_silence(ids[:-1], 40)) > 35


@pytest.mark.parametrize("name", tokenizers.MIDITOK)
def test_what_the_type_graph_allows_can_be_decoded(name):
    tokenizer = tokenizers.create(name)
    rule = constraints.constraints(tokenizer)[0]
    for seed in range(5):
        draw = np.random.default_rng(seed)
        ids = [tokenizer.bos]
        place = rule.after(rule.beginning(), tokenizer.bos)
        for _ in range(150):
            ids.append(int(draw.choice(np.flatnonzero(rule.allowed(place)))))
            place = rule.after(place, ids[-1])
        assert tokenizer.eval_mask(np.array(ids[1:])).all()
        tokenizer.decode(ids)


def test_notes_that_still_sound_end_where_the_ids_do():
    tokenizer = tokenizers.create("MIDILike")
    ids, _ = tokenizer.encode(band())
    for length in range(10, len(ids), 17):
        begun = sum(tokenizer.kinds[i] in ("NoteOn", "DrumOn") for i in ids[: length - 1])
        decoded = tokenizer.decode(ids[:length])
        assert decoded.note_num() == begun
        shortest = 40  # ticks, for a note that begins there
        assert decoded.end() <= tokenizer.quarters(ids[:length]) * 480 + shortest


@pytest.mark.parametrize("name", ["score", "TSD", "MIDILike"])
def test_transposed_louder_and_faster(name):
    tokenizer = tokenizers.create(name)
    ids, _ = tokenizer.encode(band())
    was = known(tokenizer.decode(ids))
    moved = known(tokenizer.decode(tokenizer.varied(ids, semitones=2)))
    assert moved == Counter({(s, e, k + 2 * (g >= 0), v, g): n for (s, e, k, v, g), n in was.items()})
    louder = known(tokenizer.decode(tokenizer.varied(ids, louder=1)))
    assert louder == Counter({(s, e, k, v + 8, g): n for (s, e, k, v, g), n in was.items()})
    faster = tokenizer.decode(tokenizer.varied(ids, faster=2))
    places = sorted(tokenizer.tempi)
    for old, new in zip(tokenizer.decode(ids).tempos, faster.tempos, strict=True):
        assert min(places, key=lambda t: abs(t - new.qpm)) == places[places.index(nearest(places, old.qpm)) + 2]
    assert tokenizer.varied(ids, louder=99) is None
    assert tokenizer.varied(ids, faster=-48) is None
    assert np.array_equal(tokenizer.varied(ids), ids)


def nearest(values, value):
    return min(values, key=lambda v: abs(v - value))


@pytest.mark.parametrize("name", tokenizers.SEVERAL_VOCABULARIES)
def test_several_vocabularies_are_refused_with_a_word(name):
    with pytest.raises(TokenizerError, match="several vocabularies"):
        tokenizers.check_name(name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nope", "no tokenizer 'nope'"),
        ("TSD:{num_velocities: 8}", "not JSON"),
        ("TSD:8", "not a JSON object"),
        ("TSD:", "not JSON"),
        ('grid:{"steps": 8}', "no option 'steps'"),
        ('performance:{"steps": 8}', "no option 'steps'"),
        ("", "no tokenizer ''"),
    ],
)
def test_a_wrong_name_or_option_is_told_before_anything_is_loaded(text, said):
    with pytest.raises(TokenizerError, match=said):
        tokenizers.check_name(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('TSD:{"num_velocitys": 8}', "num_velocitys"),
        ('TSD:{"use_programs": false}', "several streams"),
        ('TSD:{"one_token_stream_for_programs": false}', "several streams"),
        ('REMI:{"beat_res": {"0-4": 8}}', "does not take"),
        ('REMI:{"beat_res": 7}', "does not take"),
        ('REMI:{"pitch_range": [100, 20]}', "does not take|no pitch"),
        ('REMI:{"special_tokens": ["PAD"]}', "BOS and EOS"),
        ('REMI:{"num_velocities": "many"}', "does not take"),
        ('MMM:{"base_tokenizer": "Octuple"}', "does not take"),
    ],
)
def test_options_that_miditok_does_not_take_are_told(text, said):
    tokenizers.check_name(text)
    with pytest.raises(TokenizerError, match=said):
        tokenizers.parse(text)


def test_music_one_instrument_behind_the_other_is_not_continued():
    tokenizer = tokenizers.create("MMM")
    with pytest.raises(TokenizerError, match="without a prompt"):
        tokenizer.quarters(tokenizer.encode(band())[0])


def test_names_are_known_without_miditok_and_torch():
    code = (
        "import sys; from musiclm import tokenizers; tokenizers.check_name('TSD:{\"num_velocities\": 8}'); "
        "assert not {'torch', 'miditok', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_note_without_an_end_is_not_of_no_length():
    """A MIDILike piece that stops behind a note's beginning decoded to a note of 0 ticks."""
    tokenizer = tokenizers.create("MIDILike")
    ids, _ = tokenizer.encode(band())
    begin = next(i for i, token in enumerate(ids) if tokenizer.kinds[token] == "NoteOn")
    (note,) = tokenizer.decode(ids[: begin + 2]).tracks[0].notes
    assert note.duration > 0
