"""Options of generation: each declared once, shown in a grouped help, and added as one file and one line."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from musiclm.cli import _options, app

from musiclm import midi
from musiclm.errors import MidiError
from musiclm.generation import provenance
from musiclm.generation.config import GenerationConfig
from musiclm.generation.options import Option, OptionError, option, options

ROOT = Path(__file__).parents[1]


def test_each_option_of_the_config_is_one_of_the_command_line_with_its_type_and_default():
    command = app.group.get_command(None, "generate")
    parameters = {p.name: p for p in command.params}
    declared = options(GenerationConfig)
    assert len(declared) >= 24 and set(declared) == set(GenerationConfig.names()) - {"live", "ending", "task"}
    for name, (shown, kind, default) in declared.items():
        parameter = parameters[name]
        assert parameter.help == shown.help and parameter.default == default
        assert parameter.is_flag == (kind is bool)
    assert parameters["loop_guard"].secondary_opts == ["--no-loop-guard"]
    assert parameters["n"].opts == ["-n"] and parameters["prompt_bars"].opts == ["--prompt-bars"]
    assert GenerationConfig.from_options(**{name: default for name, (_, _, default) in declared.items()}) == (
        GenerationConfig()
    )


def test_help_shows_every_option_once_under_its_heading_in_eighty_columns():
    command = app.group.get_command(None, "generate")
    text = CliRunner().invoke(command, ["--help"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    headings = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Prompt", "Length", "What to write", "Controls", "Sampling", "Output", "Other options"]
    shown = text[text.index("Prompt:\n") : text.index("Examples:")].splitlines()
    for parameter in command.params:
        begins = tuple(parameter.opts[0] + end for end in (" ", ","))
        assert sum(line.strip().startswith(begins) for line in shown) == 1, parameter.opts
    controls = text[text.index("Controls:\n") : text.index("Sampling:\n")]
    assert all(f"--{word}" in controls for word in ("instruments", "tempo", "key-strength", "max-polyphony"))


def test_a_heading_with_an_option_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no option 'wrong'"):
        click.command("toy", cls=_options.GroupedCommand, groups={"Data": ["wrong"]})(lambda: None)


def test_options_are_made_from_the_fields_of_any_dataclass():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config:
        num_notes: int = option(3, min=1, max=9, help="How many.")
        share: float | None = option(None, min=0, min_open=True, max=1, help="A share.")
        name: str = option("a", choices=("a", "b"), help="A name.")
        is_loud: bool = option(False, help="Loud.")
        is_long: bool = option(True, help="Long.")
        private: int = 0

    assert options(Config)["num_notes"] == (Option(help="How many.", min=1, max=9), int, 3)

    @click.command()
    @_options.from_fields(Config)
    def toy(**given):
        click.echo(json.dumps(given, sort_keys=True))

    def run(*arguments: str):
        return CliRunner().invoke(toy, arguments)

    defaults = {"num_notes": 3, "share": None, "name": "a", "is_loud": False, "is_long": True}
    assert json.loads(run().output) == defaults
    given = run("--num-notes", "9", "--share", "0.5", "--name", "b", "--is-loud", "--no-is-long").output
    assert json.loads(given) == {"num_notes": 9, "share": 0.5, "name": "b", "is_loud": True, "is_long": False}
    for wrong in (["--num-notes", "10"], ["--share", "0"], ["--share", "nan"], ["--name", "c"], ["--private", "1"]):
        assert run(*wrong).exit_code == 2


def test_errors_name_fields_and_the_command_line_names_options():
    with pytest.raises(OptionError, match="at most one of prompt_bars and prompt_seconds") as raised:
        GenerationConfig(prompt_bars=1, prompt_seconds=2)
    assert _options.usage_error(raised.value).message == "at most one of --prompt-bars and --prompt-seconds"
    with pytest.raises(OptionError) as raised:
        GenerationConfig(infill="{keep_tracks}")  # braces and underscores of a value stay
    assert _options.usage_error(raised.value).message.endswith("'{keep_tracks}'")
    assert _options.usage_error(ValueError("a_b")).message == "a_b"


CONTROL = """
from .base import Control


class LowestNote(Control):
    metavar, help = "PITCH", "No note of the grid below this MIDI pitch."

    def parse(self, given):
        if not 0 <= given <= 127:
            raise ValueError(f"a pitch is 0 to 127, not {given}")
        return given

    def apply(self, value, tokenizer, permitted):
        from ...tokenizers import grid

        permitted[grid.FIRST_PITCH : grid.FIRST_PITCH + value] = False


CONTROL = LowestNote()
"""
PROCESSOR = """
from . import LogitsProcessor


class Only(LogitsProcessor):
    metavar, help, min = "ID", "Only this id, where it may come.", 0

    def process(self, logits, value):
        is_open = logits[:, value : value + 1].isfinite()
        only = logits.new_full(logits.shape, float("-inf"))
        only[:, value] = 0.0
        return only.where(is_open, logits)


PROCESSOR = Only()
"""
RUN = """
import contextlib, io, sys
from musiclm.cli import main

def run(*arguments):
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main([*arguments])
        except SystemExit as stopped:
            return stopped.code, out.getvalue() + err.getvalue()

model = sys.argv[1]
usual = ["generate", "--model", model, "--bars", "2", "--seed", "1"]
assert run(*usual, "-o", "plain.mid")[0] == 0
code, said = run(*usual, "--lowest-note", "70", "--only-id", "90", "-o", "new.mid")
assert code == 0, said
assert run("repro", "new.mid", "--model", model)[0] == 0
assert run(*usual, "--lowest-note", "200")[0] == 2
assert run(*usual, "--only-id", "-1")[0] == 2
code, said = run("generate", "--model", model, "--infill", "1", "--lowest-note", "70")
assert code == 2 and "--infill needs a --prompt" in said
code, said = run("generate", "--help")
controls, sampling = said.index("Controls:"), said.index("Sampling:")
assert controls < said.index("--lowest-note PITCH") < sampling < said.index("--only-id ID")
"""


def insert(path: Path, before: str, line: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, f"{line}\n{before}"))


def pitches(path: Path) -> list[int]:
    return [n.pitch for track in midi.read(path).tracks for n in track.notes]


def test_a_control_and_a_sampling_option_are_one_file_and_one_line_each(tmp_path: Path, untrained):
    """In a copy of the package: they come to the command line, the music, the record and `repro`."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "musiclm", tmp_path / "musiclm", ignore=ignored)
    shutil.copytree(ROOT / "cli", tmp_path / "musiclm" / "cli", ignore=ignored)
    shutil.copytree(ROOT / "checkpoints", tmp_path / "musiclm" / "checkpoints", ignore=ignored)
    generation = tmp_path / "musiclm" / "generation"
    (generation / "controls" / "lowest_note.py").write_text(CONTROL)
    line = '    lowest_note: int | None = control("lowest_note")'
    insert(generation / "controls" / "__init__.py", "    max_polyphony: int | None = control(", line)
    (generation / "logits_processors" / "only.py").write_text(PROCESSOR)
    line = '    only_id: int | None = logits_processor("only")\n'
    insert(generation / "config.py", "    def resolved(self, own: Mapping[str, Any]) -> SamplerConfig", line)

    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, untrained("grid")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert found.returncode == 0, found.stderr
    plain, new = pitches(tmp_path / "plain.mid"), pitches(tmp_path / "new.mid")
    assert min(plain) < 70 <= min(new)
    # id 90 is pitch 87; a sustained note is exempt, so that behind each of these the model chooses freely
    assert plain.count(87) / len(plain) < 0.1 < 0.3 < new.count(87) / len(new)
    (text,) = (m.text for m in midi.read(tmp_path / "new.mid").markers)
    record = json.loads(text)["options"]
    assert (record["lowest_note"], record["only_id"]) == (70, 90)
    with pytest.raises(MidiError, match="an option that this version does not have: 'lowest_note'"):
        provenance.read(midi.read(tmp_path / "new.mid"), "new.mid")
