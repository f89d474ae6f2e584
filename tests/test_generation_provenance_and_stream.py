"""Files that tell how they were made, and music that is heard while it is drawn."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mido
import pretty_midi
import pytest
import torch
from musiclm.cli import _live
from symusic import Score

from musiclm import midi
from musiclm.devices import resolve_precision
from musiclm.errors import MidiError
from musiclm.generation import composer as composing
from musiclm.generation import provenance
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig, Length
from musiclm.generation.options import options as declared_options
from musiclm.generation.sampler import Sampler
from musiclm.generation.stream import Metre, Note, Tempo, to_json
from tests.test_cli import one_line
from tests.tokenizers_data import band


@pytest.fixture
def prompt_file(tmp_path) -> Path:
    midi.write(band(), tmp_path / "band.mid")
    return tmp_path / "band.mid"


def test_a_request_comes_back_from_what_a_file_tells_of_it():
    other = {
        "prompt_bars": 3, "prompt_seconds": None, "bars": None, "seconds": 2.5, "tokens": None, "n": 5, "keep": 2,
        "only_new": True, "finish": True, "loop_guard": False, "live": False, "temperature": 0.7, "top_k": 9,
        "top_p": 0.9, "min_p": 0.1, "precision": "bf16",
    }  # fmt: skip
    assert set(other) <= set(GenerationConfig.names())
    for request in (GenerationConfig(), GenerationConfig.from_options(**other)):
        request = request.resolved({})  # as it is stored
        assert GenerationConfig.from_record(json.loads(json.dumps(request.to_record()))) == request
    for damaged in ({"warp": 9}, {"bars": -1}, {"n": 2, "keep": 3}, [], None):
        with pytest.raises(MidiError):
            GenerationConfig.from_record(damaged)


def test_a_record_is_flat_and_an_option_that_it_lacks_is_off():
    """The default of loop_guard is True; a file without it was made before there was one."""
    old = GenerationConfig.from_record(
        {"n": 1, "precision": "fp32", "tokens": 40, "temperature": 0.9, "key": "C major"}
    )
    assert old.length == Length(tokens=40) and old.sampler.temperature == 0.9 and old.controls.key == "C major"
    assert GenerationConfig().loop_guard and not old.loop_guard
    everything = GenerationConfig.from_options(
        bars=3, n=2, keep=1, draw=1, only_new=True, finish=True, prompt_seconds=2.0, temperature=0.7, top_k=9, top_p=0.9,
        min_p=0.1, rhythm_temperature=0.8, precision="bf16", instruments="piano,drums", tempo=97.3, time_signature="6/8",
        style="hymn",
        key="am", key_strength=0.5, pitch_range="C3-C6", max_polyphony=3, voice_leading=2.5, strict=True, ending=True,
        repeat_strength=0.8,
    )  # fmt: skip
    record = everything.to_record()
    assert record == {
        "bars": 3, "n": 2, "keep": 1, "only_new": True, "finish": True, "prompt_seconds": 2.0, "temperature": 0.7,
        "top_k": 9, "top_p": 0.9, "min_p": 0.1, "rhythm_temperature": 0.8, "precision": "bf16",
        "instruments": "drums,0,1,2,3,4,5,6,7", "ensemble": "0+1+2+3+4+5+6+7,drums", "style": "hymn", "tempo": 97.3,
        "time_signature": "6/8",
        "key": "A minor", "key_strength": 0.5, "pitch_range": "48-84",
        "max_polyphony": 3, "loop_guard": True, "voice_leading": 2.5, "strict": True, "ending": True,
        "repeat_strength": 0.8,
    }  # fmt: skip
    assert set(record) <= set(GenerationConfig.names())
    assert GenerationConfig.from_record(json.loads(json.dumps(record))) == everything
    for name, (_, kind, default) in declared_options(GenerationConfig).items():  # what is not stored has to mean off
        assert default in (None, False) or name in ("loop_guard", "n", "precision"), (name, kind)
        assert (name in GenerationConfig().to_record()) == (name in ("loop_guard", "n", "precision"))


EARLIER = sorted((Path(__file__).parent / "earlier_records").glob("*.mid"))


@pytest.mark.parametrize("path", EARLIER, ids=lambda p: p.stem)
def test_records_of_earlier_versions_are_read(path: Path):
    """They were written before options were nested; their records come out as they were."""
    score = midi.read(path)
    (stored,) = [json.loads(m.text)["options"] for m in score.markers if m.text.startswith("{")]
    record = provenance.read(score, path.name)
    assert record.request.to_record() == stored
    assert record.request.loop_guard and record.request.precision == "int8"
    assert record.request.is_filling == any(name in stored for name in ("infill", "keep_tracks", "accompany"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--prompt-bars", 2, "--bars", 2, "-n", 3, "--only-new", "--temperature", 0.9],
        ["--tokens", 50, "--top-k", 20, "--finish"],
        ["--seconds", 6, "--stream", "--no-loop-guard", "--min-p", 0.001],
    ],
    ids=str,
)
@pytest.mark.parametrize("with_prompt", [True, False])
def test_repro_makes_the_same_bytes_again(run, untrained, prompt_file, options, with_prompt: bool):
    prompt = ["--prompt", prompt_file] if with_prompt else []
    if not with_prompt:
        options = [o for o in options if o != "--only-new"][2 * ("--prompt-bars" in options) :]
    code, _, err = run("generate", "--model", untrained("score"), *prompt, *options, "--seed", 5, "-o", "out.mid")
    assert code == 0, err
    for path in sorted(Path().glob("out*.mid")):
        code, out, err = run("repro", path, *prompt, "--model", untrained("score"), "--json", "-o", "made", "--force")
        assert code == 0, err
        assert json.loads(out)["same"] is True
        assert Path("made").read_bytes() == path.read_bytes()


def test_repro_says_what_differs(run, untrained, prompt_file, song_file):
    model = untrained("score")
    run("generate", "--model", model, "--prompt", prompt_file, "--tokens", 40, "--seed", 5, "-o", "out.mid")
    for options, word in (
        (["--prompt", prompt_file], "--model"),
        (["--model", model], "--prompt"),
        (["--model", model, "--prompt", song_file], "another prompt"),
        (["--model", untrained("grid"), "--prompt", prompt_file], "other weights"),
        (["--model", "nope", "--prompt", prompt_file], "no checkpoint"),
    ):
        code, out, err = run("repro", "out.mid", *options)
        assert code == 1
        assert one_line(err)
        assert word in err
        assert out == ""
    assert one_line(run("repro", song_file)[2])
    assert run("repro", "nowhere.mid")[0] == 1
    changed = midi.read("out.mid")
    changed.tracks[0].notes[0].pitch += 1
    midi.write(changed, "changed.mid")
    code, out, err = run("repro", "changed.mid", "--model", model, "--prompt", prompt_file, "--json")
    assert code == 1
    assert json.loads(out)["first_difference"] > 0
    assert "differ from byte" in err


def test_repro_tells_of_another_version_and_tries_all_the_same(run, untrained, monkeypatch):
    run("generate", "--model", untrained("grid"), "--tokens", 40, "--seed", 5, "-o", "out.mid")
    monkeypatch.setattr(provenance, "__version__", "99")
    code, _, err = run("repro", "out.mid", "--model", untrained("grid"))
    assert code == 0
    assert "this is 99" in err


def test_a_file_tells_of_no_path_and_no_date_and_of_every_option(run, untrained, prompt_file):
    options = ["--prompt-bars", 2, "--bars", 1, "--top-p", 0.9, "--finish"]
    run("generate", "--model", untrained("score"), "--prompt", prompt_file, *options, "--seed", 5, "-o", "out.mid")
    data = Path("out.mid").read_bytes()
    (text,) = [m.text for m in mido.MidiFile("out.mid").tracks[0] if m.type in ("marker", "text")]
    record = json.loads(text)
    keys = {"musiclm", "torch", "device", "model", "weights", "seed", "prompt", "prompt_quarters", "index", "options"}
    held = resolve_precision("auto", torch.device("cpu"))
    keys |= set() if held == "fp32" else {"engine"}
    assert record.keys() == keys and record["prompt_quarters"] == 6.0  # two bars of 3/4
    assert record["options"] == {
        "prompt_bars": 2, "bars": 1, "n": 1, "temperature": 1.0, "top_p": 0.9, "finish": True, "loop_guard": True,
        "precision": held, "ensemble": "auto", "repeat_strength": 0.9,
    }  # fmt: skip
    assert str(prompt_file.parent) not in text
    count = midi.parse(data, "out").note_num()
    assert sum(len(i.notes) for i in pretty_midi.PrettyMIDI(io.BytesIO(data)).instruments) == count


def test_the_best_are_kept_under_simple_numbers_and_why_is_said(run, untrained, monkeypatch):
    load = composing.load

    def with_figures(name):
        return dataclasses.replace(load(name), card={"figures": {"validation_nats_per_token": 4.0}})

    monkeypatch.setattr(composing, "load", with_figures)
    asked = ["generate", "--model", untrained("grid"), "--tokens", 40, "-n", 4, "--keep", 2, "--seed", 5]
    code, out, err = run(*asked, "-o", "ideas/", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [Path(o["path"]).name for o in document["outputs"]] == ["musiclm-001.mid", "musiclm-002.mid"]
    assert len(list(Path("ideas").iterdir())) == 2
    by_distance = sorted(document["weighed"], key=lambda w: w["distance"])
    assert [o["index"] for o in document["outputs"]] == [w["index"] for w in by_distance[:2]]
    assert [w["kept"] for w in by_distance] == [True, True, False, False]
    code, out, err = run(*asked, "-o", "again/")
    assert len(out.splitlines()) == 2
    assert "kept" in err and "of 4, by the distance from real pieces: the model has no critic" in err
    assert (Path("again") / "musiclm-001.mid").read_bytes() == (Path("ideas") / "musiclm-001.mid").read_bytes()


def played(score: Score) -> list[tuple]:
    tpq = score.ticks_per_quarter
    return sorted(
        (round(midi.seconds_at(score, n.time / tpq), 4), t.is_drum, t.program, n.pitch)
        for t in score.tracks
        for n in t.notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "grid", "performance", "TSD", "MIDILike"])
@pytest.mark.parametrize("how", ["alone", "prompt", "only_new"])
def test_a_stream_has_the_notes_of_the_composition_in_the_order_of_their_beginnings(untrained, name: str, how: str):
    writer = Composer.load(untrained(name))
    prompt = writer.prompt(None if how == "alone" else band(), bars=None if how == "alone" else 2)
    config = GenerationConfig(length=Length(seconds=5), loop_guard=False, only_new=how == "only_new", live=True)
    (whole,) = writer.generate(prompt, config, seed=3)
    notes = list(writer.stream(prompt, config, seed=3))
    assert [n.start for n in notes] == sorted(n.start for n in notes)
    found = sorted((round(n.start, 4), n.drum, n.program, n.pitch) for n in notes)
    assert found == [pytest.approx(each) for each in played(whole.score)]
    assert all(n.start < n.end for n in notes)
    if how != "alone":  # where no tempo to come moves the end
        assert max(n.end for n in notes) == pytest.approx(whole.seconds, abs=2e-3)


@pytest.mark.slow
def test_a_stream_tells_notes_before_all_is_drawn_and_tempo_and_metre_before_them(untrained):
    writer = Composer.load(untrained("score"))
    stream = writer.stream(band(), GenerationConfig(length=Length(bars=30), loop_guard=False), seed=1)
    events = stream.events()
    first = [next(events) for _ in range(3)]
    assert [type(e) for e in first] == [Metre, Tempo, Note]
    assert to_json(first[1]) == {"event": "tempo", "start": 0.0, "quarters_a_minute": 90.0}
    assert stream.continuation.reason is None and len(stream.continuation.ids) == 0
    for event in events:
        if event.event == "note" and event.start > 12:
            break
    assert len(stream.continuation.ids) > 0 and stream.continuation.reason is None
    for _ in events:
        pass
    assert stream.continuation.reason == "length"
    assert writer.streamed(stream).num_notes > 40


class Port:
    """A MIDI output that remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[mido.Message] = []

    def send(self, message: mido.Message) -> None:
        self.sent.append(message)


def some_notes(count: int) -> list[Note]:
    return [
        Note(start=i * 0.01, end=i * 0.01 + 0.015, pitch=60 + i, velocity=80, program=i % 2, drum=i % 5 == 0)
        for i in range(count)
    ]


def test_each_note_that_is_played_to_a_port_is_ended():
    port = Port()
    _live.play(iter(some_notes(20)), port)
    on = [(m.channel, m.note) for m in port.sent if m.type == "note_on"]
    off = [(m.channel, m.note) for m in port.sent if m.type == "note_off"]
    assert len(on) == 20
    assert sorted(on) == sorted(off)
    assert {c for c, n in on if (n - 60) % 5 == 0} == {_live.DRUMS}
    assert [m.program for m in port.sent if m.type == "program_change"] == [1, 0]


def test_an_error_while_drawing_reaches_the_caller_and_silences_the_port():
    def failing():
        yield from some_notes(2)
        raise MidiError("broken")

    port = Port()
    with pytest.raises(MidiError, match="broken"):
        _live.play(failing(), port)
    assert sum(m.type == "control_change" and m.control == 123 for m in port.sent) == 16


def test_a_stream_is_json_lines_with_a_last_one_and_writes_a_file_only_when_asked(run, untrained):
    code, out, err = run("generate", "--model", untrained("score"), "--seconds", 2, "--seed", 1, "--stream")
    assert code == 0, err
    *events, end = map(json.loads, out.splitlines())
    assert {e["event"] for e in events} <= {"note", "tempo", "metre"}
    assert end["event"] == "end"
    assert end["num_notes"] == sum(e["event"] == "note" for e in events)
    assert end["seed"] == 1
    assert not list(Path().glob("*.mid"))


@pytest.mark.parametrize(
    "options",
    [
        ["--stream", "-o", "-"],
        ["--stream", "-n", 2],
        ["--stream", "--json"],
        ["--keep", 3, "-n", 2],
        ["--keep", 0],
        ["-o", "-", "-n", 2, "--keep", 1],
    ],
    ids=str,
)
def test_what_cannot_go_together_exits_with_2(run, options):
    code, out, err = run("generate", *options)
    assert code == 2
    assert out == ""
    assert "Error" in err


def test_a_port_that_is_not_there_is_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mido", SimpleNamespace(get_output_names=lambda: ["Synth"]))
    code, _, err = run("generate", "--port", "Piano")
    assert code == 1
    assert one_line(err)
    assert "'Synth'" in err


def test_ctrl_c_while_drawing_exits_with_130_and_leaves_no_file(run, untrained, monkeypatch):
    probabilities, steps = Sampler.probabilities, []

    def interrupted(self, *arguments):
        steps.append(1)
        if len(steps) == 40:
            raise KeyboardInterrupt
        return probabilities(self, *arguments)

    monkeypatch.setattr(Sampler, "probabilities", interrupted)
    for more in ([], ["--stream"], ["-n", 2]):
        steps.clear()
        code, _, err = run("generate", "--model", untrained("grid"), "--bars", 8, *more, "-o", "out.mid")
        assert code == 130
        assert "Stopped" in err
        assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_a_stream_quietly(untrained):
    command = [sys.executable, "-m", "musiclm", "generate", "--model", untrained("grid"), "--bars", "200", "--stream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["event"] == "tempo"
        process.stdout.close()
        assert process.wait(timeout=600) == 1
        assert process.stderr.read() == b""
