"""What docs/contributing promises: a new part is one file and one line. Nothing else of the package is touched here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from musiclm import checkpoint, midi, models, tokenizers
from musiclm.data.crops import RandomCrops
from musiclm.errors import TokenizerError
from musiclm.generation import constraints
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length, SamplerConfig
from musiclm.generation.controls import Controls
from musiclm.plotting import embedding, notes
from musiclm.tokenizers.vocabulary import Kind, Token, ids_of
from musiclm.training.language_model import train
from musiclm.training.optim import Recipe

ROOT = Path(__file__).parents[1]

ONSETS = '''
    """Onsets alone: program, pitch and the time to the next onset; every note lasts a sixteenth."""

    from fractions import Fraction

    import numpy as np
    from symusic import Note, Score, Track

    from musiclm.errors import MidiError
    from musiclm.tokenizers.base import TICKS, Tokenizer
    from musiclm.tokenizers.vocabulary import Kind, Token

    STEPS = range(1, 17)  # sixteenths


    class Onsets(Tokenizer):
        name = "onsets"
        bos, eos = 0, 1
        vocabulary = (
            Token(Kind.BOS),
            Token(Kind.EOS),
            *(Token(Kind.PROGRAM, program) for program in (0, 40, 73)),
            *(Token(Kind.NOTE_ON, pitch) for pitch in range(36, 96)),
            *(Token(Kind.TIME_SHIFT, Fraction(steps, 4)) for steps in STEPS),
        )
        vocab_size = len(vocabulary)
        ids = {token: i for i, token in enumerate(vocabulary)}

        def encode(self, score):
            step = score.ticks_per_quarter / 4
            found = sorted(
                (round(n.time / step), track.program, n.pitch)
                for track in score.tracks
                for n in track.notes
                if Token(Kind.PROGRAM, track.program) in self.ids and Token(Kind.NOTE_ON, n.pitch) in self.ids
            )
            if not found:
                raise MidiError("not one note")
            made, now, last = [self.bos], 0, None
            for at, program, pitch in found:
                while now < at:
                    shift = min(at - now, STEPS[-1])
                    made.append(self.ids[Token(Kind.TIME_SHIFT, Fraction(shift, 4))])
                    now += shift
                if program != last:
                    made.append(self.ids[Token(Kind.PROGRAM, program)])
                made.append(self.ids[Token(Kind.NOTE_ON, pitch)])
                last = program
            return np.array([*made, self.eos]), score.note_num() - len(found)

        def decode(self, ids):
            tracks, now, program = {}, Fraction(0), 0
            for i in ids:
                kind, value = self.vocabulary[i]
                if kind == Kind.TIME_SHIFT:
                    now += value
                elif kind == Kind.PROGRAM:
                    program = value
                elif kind == Kind.NOTE_ON:
                    track = tracks.setdefault(program, Track("", program))
                    track.notes.append(Note(int(now * TICKS), TICKS // 4, value, 80))
            score = Score(TICKS)
            for _, track in sorted(tracks.items()):
                score.tracks.append(track)
            return score

        def quarters(self, ids):
            return float(sum(t.value for t in map(self.vocabulary.__getitem__, ids) if t.kind == Kind.TIME_SHIFT))

        def pad_with_silence(self, ids, quarters):
            missing = int((quarters - self.quarters(ids)) * 4 + 1e-6)
            shift = self.ids[Token(Kind.TIME_SHIFT, Fraction(1, 4))]
            return np.concatenate([ids, np.full(max(0, missing), shift)])

        def transposed(self, semitones):
            moved = [t._replace(value=t.value + semitones) if t.kind == Kind.NOTE_ON else t for t in self.vocabulary]
            return np.array([self.ids.get(token, -1) for token in moved])

        def describe(self):
            return {"name": self.name}
'''


@pytest.fixture
def onsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A tokenizer of one file and one line."""
    (tmp_path / "toy_onsets.py").write_text(textwrap.dedent(ONSETS), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tokenizers.REGISTRY, "onsets", tokenizers.Registered(module="toy_onsets", name="Onsets"))
    yield tokenizers.create("onsets")
    sys.modules.pop("toy_onsets", None)


def test_a_new_tokenizer_encodes_decodes_and_is_known_by_name(onsets, song):
    ids, left_out = onsets.encode(song)
    assert left_out == 0  # drums are read as program 0 here
    assert onsets.encode(onsets.decode(ids))[0].tolist() == ids.tolist()
    assert tokenizers.from_description(onsets.describe()).encode(song)[0].tolist() == ids.tolist()
    assert onsets.eval_mask(ids).tolist() == [False, *[True] * (len(ids) - 2), False]
    new = [onsets.vocabulary[i] for i in onsets.new_to_prompt(ids)]
    assert new == [Token(Kind.PROGRAM, 40)]  # the one program that the song does not have
    tokenizers.check_name("onsets")
    with pytest.raises(TokenizerError, match="no option 'steps'"):
        tokenizers.check_name('onsets:{"steps": 8}')
    with pytest.raises(TokenizerError, match="onsets"):
        tokenizers.check_name("nope")


@pytest.fixture
def composer(onsets, song, tmp_path: Path) -> Composer:
    """A model of the new tokenizer that was trained for two steps, saved, and loaded again."""
    batches = RandomCrops([onsets.encode(song)[0]], onsets, length=32, batch_size=2, seed=1)
    config = models.preset("gru", "tiny") | onsets.model_config
    model, average = (models.create("gru", onsets.vocab_size, **config) for _ in range(2))
    before = [p.detach().clone() for p in model.parameters()]
    steps = list(train(model, batches, Recipe(steps=2, learning_rate=0.01, warmup_steps=1), average=average))
    assert len(steps) == 2 and all(np.isfinite(step.nats) for step in steps)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    path = tmp_path / "onsets.safetensors"
    checkpoint.save(path, model, arch="gru", tokenizer=onsets, card={"data": "a song", "figures": {}})
    return Composer.load(str(path))


def test_a_new_tokenizer_trains_and_generates_within_limits(composer, song):
    config = GenerationConfig(
        length=Length(tokens=60),
        sampler=SamplerConfig(temperature=1.5),
        controls=Controls(pitch_range="C4-C5", instruments="violin"),
    )
    for prompt in (None, song):
        heard = composer.prompt(prompt, bars=2 if prompt else None)
        (composed,) = composer.generate(heard, config, seed=3)
        new = midi.without_before(composed.score, heard.quarters)
        assert new.note_num() > 5
        assert {t.program for t in new.tracks if len(t.notes)} == {40}
        assert all(60 <= n.pitch <= 72 for t in new.tracks for n in t.notes)


def test_what_the_table_of_a_new_tokenizer_cannot_express_is_refused(onsets):
    for asked, said in (
        ({"time_signature": "3/4"}, "no time signatures"),
        ({"max_polyphony": 2}, "counts the notes"),
        ({"instruments": "trumpet"}, "without the instruments"),
        ({"pitch_range": "0-20"}, "none of those asked for"),
    ):
        with pytest.raises(TokenizerError, match=said):
            constraints.constraints(onsets, controls=Controls(**asked))
    assert constraints.constraints(onsets, controls=Controls(tempo=90))  # of the score


def test_special_tokens_of_a_new_tokenizer_are_banned(onsets):
    rule = constraints.grammar(onsets)
    place = rule.after(rule.beginning(), onsets.bos)
    assert np.flatnonzero(~rule.allowed(place)).tolist() == [onsets.bos, onsets.eos]


def test_notes_and_pitches_of_a_new_tokenizer_are_plotted(onsets, composer, song):
    aligned = notes.align(onsets, song)
    assert len(aligned.notes) == song.note_num()
    assert (aligned.by_note(np.ones(len(aligned.ids))) >= 1).all()
    assert onsets.vocabulary[embedding.pitch_ids(onsets)[60]] == Token(Kind.NOTE_ON, 60)
    found = embedding.arrange(composer.model, onsets)
    assert found.pitches.tolist() == list(range(40, 80))


def test_a_new_tokenizer_can_bring_a_grammar(onsets):
    """Registered by its class, from outside of the package: first the note, then the time to the next."""

    class Alternating(constraints.Grammar):
        counts_notes = False

        def __init__(self, tokenizer, not_before=0.0, limits=None):
            super().__init__(tokenizer.vocab_size)
            self._turns = [ids_of(tokenizer.vocabulary, kind) for kind in (Kind.NOTE_ON, Kind.TIME_SHIFT)]

        def beginning(self):
            return 1

        def following(self, place):
            return [self._turns[place]]

        def after(self, place, token):
            return 1 - place

    constraints.grammar_class.register(type(onsets), lambda tokenizer: Alternating)
    rule = constraints.grammar(onsets)
    place = rule.after(rule.beginning(), onsets.bos)
    kinds = []
    for _ in range(4):
        kinds.append(onsets.vocabulary[np.flatnonzero(rule.allowed(place))[0]].kind)
        place = rule.after(place, int(np.flatnonzero(rule.allowed(place))[0]))
    assert kinds == [Kind.NOTE_ON, Kind.TIME_SHIFT] * 2


COMMAND = '''
"""musiclm hello."""

import click


@click.command("hello", epilog="Example: musiclm hello --name Bach")
@click.option("--name", default="world", help="Who is greeted.")
def command(name: str) -> None:
    """Greet somebody."""
    click.echo(f"hello {name}")
'''
DATASET = '''
"""Two tunes."""

from .base import Dataset

DATASET = Dataset(
    name="two_tunes",
    title="Two tunes",
    licence="CC0",
    address="https://example.org/two-tunes",
    citation="nobody",
    tokenizer="performance",
)
'''
USE = """
import contextlib, io, json, sys
from musiclm.cli import main

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*arguments])
    return out.getvalue()

assert "Greet somebody first." in run("--help")
assert run("hello", "--name", "Bach") == "hello Bach\\n"
(known,) = [each for each in json.loads(run("corpus", "datasets", "--json")) if each["name"] == "two_tunes"]
assert known["licence"] == "CC0"
built = json.loads(run("corpus", "build", sys.argv[1], "-o", "corpus", "--dataset", "two_tunes", "--json"))
assert built["kept"] == 1, built
assert json.loads(run("corpus", "inspect", "corpus", "--json"))["tokenizer"] == "performance"
"""


def test_a_command_is_one_file_and_one_line_and_a_data_set_is_one_file(tmp_path: Path, song_file: Path):
    """In a copy of the package: both are listed, shown in the help, and work."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "musiclm", tmp_path / "musiclm", ignore=ignored)
    shutil.copytree(ROOT / "cli", tmp_path / "musiclm" / "cli", ignore=ignored)
    shutil.copytree(ROOT / "checkpoints", tmp_path / "musiclm" / "checkpoints", ignore=ignored)
    (tmp_path / "musiclm" / "cli" / "hello.py").write_text(COMMAND)
    app = tmp_path / "musiclm" / "cli" / "app.py"
    text = app.read_text()
    assert text.count("COMMANDS = {\n") == 1
    app.write_text(text.replace("COMMANDS = {\n", 'COMMANDS = {\n    "hello": "Greet somebody first.",\n'))
    (tmp_path / "musiclm" / "data" / "datasets" / "two_tunes.py").write_text(DATASET)
    found = subprocess.run(
        [sys.executable, "-c", USE, str(song_file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert found.returncode == 0, found.stderr
