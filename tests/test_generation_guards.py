"""What the loop guard does about standing harmony and about drums that stay alone."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from symusic import Note, Score, TimeSignature, Track

from musiclm import midi, tokenizers
from musiclm.evaluation import harmony
from musiclm.evaluation.music_metrics import notes_of
from musiclm.generation import drums_alone, loop_guard, loops, standing
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig
from musiclm.generation.prompt import Prompt

SCORE = tokenizers.create("score", features=2)  # without a plan, drums are more often alone
C, F, G, A = (0, 4, 7), (5, 9, 0), (7, 11, 2), (9, 0, 4)
MOVES = [C, F, G, A, F, G, C, G] * 6
STANDS = [C] * 48
DRUMS = [()] * 48


def piece(bars: list[tuple[int, ...]], *, drums: bool = False) -> Score:
    """Return bars of 4/4 in quavers, each of one chord in an order and octaves of its own; bars of no chord are rests.

    With drums one is struck on each quarter, first at 0.
    """
    score = Score(480)
    score.tracks.append(Track("Piano", 0))
    for i, chord in enumerate(bars):
        for j in range(8 if chord else 0):
            pitch = 48 + chord[(i + j) % 3 if j < 6 else j - 6] + 12 * ((i * i + i * j + j * j) % 4)
            score.tracks[0].notes.append(Note((8 * i + j) * 240, 240, pitch, 60))
    if drums:
        score.tracks.append(Track("Drums", 0, True))
        for i in range(4 * len(bars)):
            score.tracks[1].notes.append(Note(i * 480, 120, 36 + i % 3 + i * i % 5, 60))
    return score


class Takes(torch.nn.Module):
    """A model that writes a script whenever it starts: the first, the next at the second start, and so on, the last for ever.

    It starts whenever the session does: at first, and after each rewind and each stretch. The token at a place of a script
    has all the probability; where it is not allowed, all that are allowed are equally likely.
    """

    def __init__(self, scripts: list[np.ndarray], num_prompt: int) -> None:
        super().__init__()
        self.scripts, self.num_prompt, self.num_starts, self.num_parameters = scripts, num_prompt, 0, 0
        self.device = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, state=None, features=None):
        self.num_starts += state is None
        read = (state[0] if state else torch.zeros(tokens.shape[0], dtype=torch.int64)) + tokens.shape[1]
        script = self.scripts[min(self.num_starts, len(self.scripts)) - 1]
        logits = torch.zeros(*tokens.shape, SCORE.vocab_size)
        for element, number in enumerate((read - self.num_prompt).tolist()):
            logits[element, -1, script[min(number, len(script) - 1)]] = 500.0
        return logits, (read,)

    def for_generation(self, precision: str) -> Takes:
        return self


def takes(*scores: Score, prompt: Score | None = None) -> tuple[Composer, Prompt]:
    """Return the composer of a model that writes scores, which begin with a prompt, and the prompt."""
    start = Prompt.of(SCORE, prompt)
    whole = [SCORE.encode(score)[0][:-1] for score in scores]
    assert all(ids[: len(start.ids)].tolist() == start.ids.tolist() for ids in whole)
    model = Takes([ids[len(start.ids) :] for ids in whole], len(start.ids))
    return Composer(SimpleNamespace(name="takes", tokenizer=lambda: SCORE, model=lambda _: model, sampling={})), start


def generate(writer: Composer, start: Prompt, **options):
    return writer.generate(start, GenerationConfig.from_options(**{"bars": 8, "temperature": 1.0} | options), seed=3)[0]


def bars_of(score: Score, *, drums: bool = False) -> list[set[int]]:
    """Return the pitch classes, or the drums, that begin in each bar of 4/4."""
    found: list[set[int]] = [set() for _ in range(64)]
    for track in score.tracks:
        for note in track.notes if track.is_drum == drums else ():
            found[note.time // (4 * score.ticks_per_quarter)].add(note.pitch if drums else note.pitch % 12)
    return found


def test_harmony_stands_from_the_second_of_four_bars_on():
    score = piece([F, G, C, C, C, C, A])
    assert standing.standing_start(score, 0.0, 28.0) == 12.0
    assert standing.standing_start(score, 0.0, 24.0) == 12.0
    assert standing.standing_start(score, 0.0, 23.9) is None, "the fourth bar has not ended"
    assert standing.standing_start(score, 9.0, 28.0) is None, "a bar that began earlier does not count"
    assert standing.standing_start(piece([C, C, C, F, C, C, C]), 0.0, 28.0) is None
    assert standing.standing_start(piece([C, C, (), C, C, ()]), 0.0, 24.0) is None, "a rest ends it"
    assert standing.standing_start(piece(DRUMS, drums=True), 0.0, 64.0) is None
    assert standing.standing_start(Score(480), 0.0, 64.0) is None


def test_bars_of_other_lengths_are_bars():
    score = piece(STANDS[:6])
    score.time_signatures.append(TimeSignature(0, 4, 2))
    assert standing.standing_start(score, 0.0, 24.0) is None, "three bars of eight quarters"
    assert standing.standing_start(piece(STANDS[:8] + DRUMS), 0.0, 64.0) == 4.0


@pytest.mark.parametrize("bars", [[C, C, C, C, C, F], [F, C, C, A, A, A, A, A], MOVES[:8], STANDS[:9]], ids=len)
def test_the_guard_and_the_yardstick_measure_the_same(bars):
    score = piece(bars, drums=True)
    assert standing.longest_run(score, 0.0, 4.0 * len(bars)) == harmony.stuck_bars(notes_of(score))


def test_standing_harmony_rewinds_to_its_second_bar():
    stands, moves = [F, G, *STANDS], [F, G, C, A, G, F, *MOVES]
    writer, start = takes(piece(stands), piece(moves))
    made = generate(writer, start)
    assert made.resampled == {"harmony": 1} and made.num_resampled == 1
    assert notes_of(made.score).pitch.tolist() == notes_of(midi.cut(piece(moves), 0.0, 32.0)).pitch.tolist()
    assert generate(*takes(piece(stands)), loop_guard=False).resampled == {}


def test_standing_harmony_that_stays_is_let_go_and_ends():
    made = generate(*takes(piece([F, *STANDS])), bars=6)
    assert made.resampled == {"harmony": loop_guard.TRIES} and midi.end(made.score) == 24.0


def test_it_is_hotter_from_the_rewind_to_where_harmony_was_found_to_stand(monkeypatch):
    from musiclm.generation.sampler import Sampler

    temperatures = []
    probabilities = Sampler.probabilities

    def noting(self, *arguments):
        temperatures.append(self.temperature)
        return probabilities(self, *arguments)

    monkeypatch.setattr(Sampler, "probabilities", noting)
    generate(*takes(piece([F, *STANDS]), piece(MOVES)))
    changes = [a for a, b in zip(temperatures, [*temperatures[1:], None], strict=True) if a != b]
    assert changes == [1.0, pytest.approx(1.1), 1.0]


@pytest.mark.parametrize(
    ("given", "stands"), [([C] * 3, False), ([C] * 8, False), ([F, G, A, F], True), ([F, G, C, C], True)], ids=str
)
def test_a_prompt_whose_harmony_stands_may_continue_so(given, stands):
    prompt = piece(given)
    assert loops.loop_start(prompt, 0.0, 4.0 * len(given)) is None
    made = generate(*takes(piece([*given, *STANDS]), prompt=prompt))
    assert (made.num_resampled > 0) == stands


@pytest.mark.parametrize("num_drums", [1, 3])
def test_drums_that_stay_alone_begin_anew_until_a_pitch_comes(num_drums: int):
    band = piece(MOVES, drums=True)
    made = generate(*takes(*[piece(DRUMS, drums=True)] * num_drums, band))
    assert made.resampled == {"drums": num_drums}
    assert (
        notes_of(made.score).pitch.tolist()
        == notes_of(midi.cut(SCORE.decode(SCORE.encode(band)[0]), 0, 32)).pitch.tolist()
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"bars": 2}, {"bars": 6, "finish": True}, {"instruments": "drums,bass", "ensemble": "none"}],
    ids=str,
)
def test_a_model_that_writes_drums_alone_is_made_to_write_a_pitch(options):
    """As many beginnings as are allowed are drums; then no drum may come before a pitched note."""
    made = generate(*takes(piece(DRUMS, drums=True)), **options)
    assert made.resampled["drums"] == loop_guard.DRUM_TRIES + 1
    assert any(bars_of(made.score))


@pytest.mark.parametrize("guarded", [{"instruments": "drums"}, {"loop_guard": False}], ids=str)
def test_drums_may_stay_alone_where_they_were_asked_for(guarded):
    made = generate(*takes(piece(DRUMS, drums=True)), **guarded)
    assert not made.resampled and not any(bars_of(made.score)) and all(bars_of(made.score, drums=True)[:8])


def test_an_intro_of_three_bars_of_drums_is_kept():
    made = generate(*takes(piece([(), (), (), *MOVES], drums=True)))
    assert not made.resampled and not any(bars_of(made.score)[:3]) and all(bars_of(made.score)[3:8])


@pytest.mark.parametrize(("given", "is_resampled"), [([C, F, G, A], True), ([(), (), (), ()], False)], ids=str)
def test_behind_a_prompt_drums_stay_alone_only_if_they_did_in_it(given, is_resampled: bool):
    made = generate(*takes(piece([*given, *DRUMS], drums=True), prompt=piece(given, drums=True)))
    assert (made.resampled.get("drums", 0) > 0) == is_resampled
    assert any(bars_of(made.score)[4:]) == is_resampled


def test_only_instruments_that_may_play_are_to_play_beside_drums():
    from musiclm.generation.controls import Controls

    band = Prompt.of(SCORE, piece([C, F], drums=True))
    assert drums_alone.pitched_programs(band, Controls()) == (0,)
    assert drums_alone.pitched_programs(band, Controls(instruments="drums,violin")) == (40,)
    assert drums_alone.pitched_programs(Prompt.of(SCORE, piece([C, F])), Controls()) is None, "no drums can come"
    assert drums_alone.pitched_programs(Prompt.of(SCORE, None), Controls(instruments="piano")) is None
    assert drums_alone.pitched_programs(Prompt.of(SCORE, None), Controls()) == tuple(range(128))
    assert drums_alone.pitched_programs(Prompt.of(tokenizers.create("grid"), None), Controls()) is None


def test_a_stream_does_not_rewind_but_leaves_drums_out_until_a_pitch_comes():
    writer, start = takes(piece(DRUMS, drums=True))
    made = generate(writer, start, live=True)
    assert made.resampled == {"drums": 1}
    assert all(bars_of(made.score, drums=True)[:4]) and not any(bars_of(made.score)[:4]), "these are played already"
    assert any(bars_of(made.score)[4:])
    stands = generate(*takes(piece([F, *STANDS])), live=True)
    assert stands.resampled == {"harmony": 1} and bars_of(stands.score)[1:8] == [set(C)] * 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "score-infill", "performance", "grid"])
def test_music_in_which_nothing_is_found_has_the_same_ids_without_the_guard(untrained, monkeypatch, name: str):
    writer = Composer.load(untrained(name))
    config = GenerationConfig.from_options(bars=6, n=3)
    free = writer.generate(None, dataclasses.replace(config, loop_guard=False), seed=4)
    for found, same in zip(writer.generate(None, config, seed=4), free, strict=True):
        if not found.num_resampled:
            assert found.ids.tolist() == same.ids.tolist()
    monkeypatch.setattr(loop_guard, "standing_start", lambda *_: 0.0)
    for found in writer.generate(None, dataclasses.replace(config, n=1), seed=4):
        assert found.resampled["harmony"] > 0


@pytest.mark.slow
def test_what_was_resampled_is_said_and_made_again(run, untrained):
    """Untrained, each bar has all pitch classes: harmony stands."""
    model = untrained("score 2")
    asked = ("generate", "--model", model, "--bars", 12, "--seed", 1, "--precision", "fp32")
    code, out, err = run(*asked, "-o", "out.mid", "--json")
    assert code == 0, err
    (output,) = json.loads(out)["outputs"]
    assert output["redrawn"] == sum(output["redrawn_for"].values()) > 0 and output["redrawn_for"]["harmony"]
    code, out, err = run("repro", "out.mid", "--model", model, "--json")
    assert code == 0 and json.loads(out)["same"] is True
    code, _, err = run(*asked, "-o", "again.mid")
    assert f"standing harmony ({output['redrawn_for']['harmony']})" in err
