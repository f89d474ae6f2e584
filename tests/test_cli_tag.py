"""musiclm tag, as a newcomer types it: two folders, a tagger, labels for new files; and what can go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from musiclm.cli import _tag_training
from musiclm.cli import tag as command
from symusic import Score

from musiclm import checkpoint, midi, models, tokenizers
from musiclm.checkpoint import card as cards
from musiclm.checkpoint.model_file import TAGGER, bundled_models, read_model
from musiclm.tagging.model import Tagger
from tests.test_tagging import MINOR, counts_pitch, tune
from tests.test_tagging import tagger as small_tagger
from tests.test_tagging_labels import folders, table, write

TRAIN = ("--steps", 6, "--seed", 1)


@pytest.fixture
def tagger(tmp_path: Path, monkeypatch) -> str:
    """A tagger that says "high" where there is much of the pitch 84; its network is not one of a file."""
    made = counts_pitch(84)
    made.network.head.bias.data[0] = 1.5
    made.threshold = 0.5
    monkeypatch.setattr(Tagger, "load", classmethod(lambda cls, name=None: made))
    return "mine.safetensors"


def high(num: int = 48) -> Score:
    return tune((84,), num=num)


def low(num: int = 48) -> Score:
    return tune((40, 41, 42), num=num)


def test_two_folders_become_a_tagger_that_labels_a_file(run, tmp_path: Path):
    folders(tmp_path, 12, 12)
    code, out, err = run("tag", "train", "a", "b", "-o", "mine.safetensors", *TRAIN)
    assert code == 0 and out == "mine.safetensors\n"
    assert "training pieces: " in err and "Next: musiclm tag song.mid --model mine.safetensors" in err
    code, out, err = run("tag", "a/0.mid", "b", "--model", "mine.safetensors", "--json", "--top", 1)
    answers = json.loads(out)
    assert code == 0 and len(answers) == 13 and answers[0]["path"] == "a/0.mid"
    assert set(answers[0]) == {"path", "label", "probability", "unsure", "top", "num_notes", "seconds"}
    assert all(len(a["top"]) == 1 and a["label"] in ("a", "b") for a in answers)
    code, out, err = run("tag", "evaluate", "a", "b", "--model", "mine.safetensors", "--json")
    report = json.loads(out)
    assert code == 0 and 0 < report["num_pieces"] < 8 and report["num_pieces"] + report["left_out"] == 24
    assert f"left out: {report['left_out']} pieces of its training" in err
    options = ("--split", "all", "--json", "-o", "c.png")
    code, out, _ = run("tag", "evaluate", "a", "b", "--model", "mine.safetensors", *options)
    report = json.loads(out)
    assert code == 0 and report["split"] == "all" and report["num_pieces"] == 24 and report["left_out"] == 0
    assert sum(map(sum, report["confusion"])) == 24 and (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    card = Tagger.load(tmp_path / "mine.safetensors").card
    assert card["command"] == "musiclm tag train a b -o mine.safetensors --steps 6 --seed 1"
    assert set(card["labels"]) == {"a", "b"} and "validation_accuracy" in card["figures"]


def test_training_starts_from_a_language_model_and_can_leave_it_frozen(run, tmp_path: Path):
    folders(tmp_path, 3, 3)
    events = tokenizers.create("performance", features=1)
    model = models.create("gru", events.vocab_size, size=16, num_layers=1)
    checkpoint.save(tmp_path / "lm.safetensors", model, arch="gru", tokenizer=events, card={})
    code, out, _ = run(
        "tag", "train", "a", "b", "-o", "t.safetensors", "--from", "lm.safetensors", "--frozen", "--steps", 2, "--json",
        "--pooling", "attention", "--seed", 5,
    )  # fmt: skip
    document = json.loads(out)
    assert code == 0 and document["arch"] == "gru" and document["labels"] == ["a", "b"] and document["steps"] == 2
    made = Tagger.load(tmp_path / "t.safetensors")
    assert made.tokenizer.name == "performance" and made.network.pooling == "attention"


INTERRUPTED = ("tag", "train", "a", "b", "-o", "t.safetensors", "--minutes", 0.5, "--seed", 1)


def signalled(folder: Path, number: signal.Signals, behind: str) -> tuple[int, str, str]:
    """Train in a process of its own, send it a signal behind a line of its log, and return what `run` does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "musiclm", *map(str, INTERRUPTED)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, where tests run behind an "&"
    )
    assert process.stderr is not None
    before = ""
    for line in process.stderr:
        before += line
        if line.startswith(behind):
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=60)
    return process.returncode, out, before + err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda each: str(each))
def test_an_interrupted_training_saves_the_best_tagger_so_far(tmp_path: Path, number: signal.Signals, code: int):
    """Nothing of it was saved, however long it had trained."""
    folders(tmp_path, 12, 12)
    found, out, err = signalled(tmp_path, number, "step ")
    assert (found, out) == (code, "") and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("Stopped and saved: the best tagger so far, of step ") and "'t.safetensors'" in last
    made = Tagger.load(tmp_path / "t.safetensors")
    assert made.labels == ("a", "b") and made.card["figures"] == {} and made.card["interrupted_at_step"] > 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_training_that_is_interrupted_before_its_first_validation_says_that_nothing_was_saved(tmp_path: Path):
    folders(tmp_path, 12, 12)
    code, out, err = signalled(tmp_path, signal.SIGTERM, "training pieces: ")
    assert (code, out) == (143, "") and err.splitlines()[-1] == "Stopped. Nothing was saved."
    assert not (tmp_path / "t.safetensors").exists()


@pytest.mark.parametrize("when", ["_say_check", "measured"])
def test_ctrl_c_after_a_validation_and_while_the_tagger_is_measured_loses_nothing(
    run, tmp_path, monkeypatch, when: str
):
    def pressed(*_arguments, **_options):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)
        signal.getsignal(signal.SIGINT)  # a moment for the handler to run in

    folders(tmp_path, 12, 12)
    monkeypatch.setattr(_tag_training, when, pressed)
    code, out, err = run("tag", "train", "a", "b", "-o", "t.safetensors", *TRAIN, "--json")
    document = json.loads(out)
    assert code == 130 and document["interrupted"] and document["figures"] == {} and "Stopped and saved" in err
    assert document["steps"] == (1 if when == "_say_check" else 6)
    assert Tagger.load("t.safetensors").card["interrupted_at_step"] == document["steps"]


def saved(path: Path, licence: str = "MIT") -> Path:
    made = small_tagger(card={"data": "tunes", "licence": licence, "labels": {"a": 1200, "b": 7}, "figures": {}})
    made.save(path)
    return path


def test_an_installed_tagger_is_found_by_its_name_listed_and_removed(run, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    file = saved(tmp_path / "composers.safetensors", "CC BY-NC-SA 4.0")
    write(high(), tmp_path / "s.mid")
    code, out, err = run("models", "install", file)
    assert code == 0 and Path(out.strip()) == tmp_path / "mine" / "composers-tagger.safetensors"
    assert "not for commercial use" in err and "Next: musiclm tag song.mid --model composers-tagger" in err
    listed = {each["name"]: each for each in json.loads(run("models", "--json")[1])}
    entry = listed["composers-tagger"]
    assert (
        entry["installed"] and entry["arch"] == "gru" and entry["tokenizer"] == "score" and entry["num_parameters"] > 0
    )
    assert "composers-tagger" in run("models")[1]
    for name in ("composers", "composers-tagger"):
        assert run("tag", "s.mid", "--model", name)[0] == 0
    code, _, err = run("models", "install", file)
    assert code == 1 and "--force" in err
    code, _, err = run("tag", "s.mid", "--model", "other")
    assert code == 1 and "nor one of style-tagger, composers-tagger ('musiclm tag train' makes one)" in err
    assert run("models", "remove", "composers-tagger")[0] == 0 and not list((tmp_path / "mine").iterdir())


def test_the_bundled_style_tagger_needs_no_name_and_stays(run, tmp_path: Path, monkeypatch):
    write(high(), tmp_path / "s.mid")
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    assert bundled_models(TAGGER) == ["style-tagger"]
    assert {"name": "style-tagger", "installed": False}.items() <= next(
        each.items() for each in json.loads(run("models", "--json")[1]) if each["name"] == "style-tagger"
    )
    assert run("tag", "s.mid", "--json")[1] == run("tag", "s.mid", "--model", "style", "--json")[1]
    code, _, err = run("models", "install", saved(tmp_path / "mine.safetensors"), "--name", "style")
    assert code == 1 and "'style-tagger' comes with musiclm" in err
    code, _, err = run("models", "remove", "style-tagger")
    assert code == 1 and "comes with musiclm" in err


def test_a_damaged_tagger_or_a_performers_name_is_not_installed(run, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    file = saved(tmp_path / "t.safetensors")
    assert run("models", "install", file, "--name", "../t")[0] == 1
    data = bytearray(file.read_bytes())
    data[-5] ^= 255
    (tmp_path / "bad.safetensors").write_bytes(data)
    code, _, err = run("models", "install", "bad.safetensors")
    assert code == 1 and "the tagger 'bad.safetensors' is damaged" in err
    performer = Path(checkpoint.bundled_path("performer-drums"))
    code, _, err = run("models", "install", performer, "--name", "drums-tagger")
    assert code == 1 and "cannot be the name of a performer" in err
    assert not list((tmp_path / "mine").glob("*.safetensors"))


def test_the_card_of_a_tagger_says_what_it_was_trained_on(tmp_path: Path):
    page = cards.model_page(read_model(saved(tmp_path / "mine-tagger.safetensors")), "mine-tagger")
    assert page.startswith("# mine-tagger\n\nA tagger of 3 labels: gru, mean pooling, ")
    assert "- **licence**: MIT\n" in page and "- **training pieces**: a 1,200, b 7\n" in page


def test_a_table_with_splits_is_evaluated_on_test(run, tmp_path: Path):
    folders(tmp_path, 4, 4)
    splits = ("train", "train", "validation", "test")
    lines = [f"{f}/{i}.mid,{f},{split}" for f in "ab" for i, split in enumerate(splits)]
    table(tmp_path / "l.csv", "file,label,split", *lines, "gone.mid,a,train")
    code, _, err = run("tag", "train", "l.csv", "-o", "t.safetensors", *TRAIN)
    assert code == 0 and "not there: 1 file of the table: gone.mid" in err
    code, out, _ = run("tag", "evaluate", "l.csv", "--model", "t.safetensors", "--json")
    report = json.loads(out)
    assert code == 0 and report["split"] == "test" and report["num_pieces"] == 2 and report["missing"] == ["gone.mid"]


def test_a_table_of_predictions_has_question_marks_where_the_tagger_is_unsure(run, tagger: str, tmp_path: Path):
    write(high(), tmp_path / "m" / "high.mid")
    write(high(10), tmp_path / "m" / "short.mid")
    write(low(), tmp_path / "m" / "low.mid")
    code, out, err = run("tag", "m", "--model", tagger)
    lines = {line.split()[0]: line.split() for line in out.splitlines()[1:]}
    assert code == 0 and "? unsure" in err
    assert lines["m/high.mid"][2] == "high" and lines["m/short.mid"][2] == "high?" and lines["m/low.mid"][2] == "low"


def test_a_folder_of_rubbish_is_counted_and_named_files_are_errors(run, tagger: str, tmp_path: Path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.mid").write_bytes(b"hello")
    (tmp_path / "m" / "b.mid").write_bytes(b"")
    (tmp_path / "m" / "c.txt").write_text("no music")
    code, out, err = run("tag", "m", "--model", tagger)
    assert code == 1 and out == "" and err.count("left out: 1 file: ") == 2
    write(high(), tmp_path / "m" / "d.mid")
    code, out, err = run("tag", "m", "--model", tagger, "--json")
    assert code == 0 and [("error" in a) for a in json.loads(out)] == [True, True, False]
    code, _, err = run("tag", "m/b.mid", "m/d.mid", "--model", tagger)
    assert code == 1 and "Error: m/b.mid: is empty" in err
    code, _, err = run("tag", "nowhere.mid", "--model", tagger)
    assert code == 1 and "cannot be read" in err
    (tmp_path / "none").mkdir()
    code, _, err = run("tag", "none", "--model", tagger)
    assert code == 1 and "Error: none: no music in it" in err


def test_the_picture_shows_which_bars_speak_for_the_label(run, tagger: str, tmp_path: Path):
    score = low()
    for note in score.tracks[0].notes[24:32]:
        note.pitch = 84
    write(score, tmp_path / "s.mid")
    code, out, err = run("tag", "s.mid", "--model", tagger, "--label", "high", "-o", "why.png", "--json")
    assert code == 0 and json.loads(out)[0]["picture"] == "why.png"
    assert "bar 4 speaks most for high" in err and (tmp_path / "why.png").read_bytes()[:4] == b"\x89PNG"
    code, _, err = run("tag", "s.mid", "--model", tagger, "-o", "why.png")
    assert code == 1 and "is there already" in err
    assert run("tag", "s.mid", "--model", tagger, "-o", "w.svg", "--label", "x")[0] == 2
    assert run("tag", "s.zip", "--model", tagger, "-o", "w.svg")[0] == 2
    assert run("tag", "s.mid", "s.mid", "--model", tagger, "-o", "w.svg")[0] == 2
    assert run("tag", "s.mid", "--model", tagger, "--label", "high")[0] == 2
    assert run("tag", "s.mid", "--model", tagger, "-o", "why.pdf")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tag", "train", "a", "-o", "t.safetensors"), 1, "at least two labels"),
        (("tag", "train", "a", "c", "-o", "t.safetensors"), 1, "'a' alone"),
        (("tag", "train", "a", "nowhere", "-o", "t.safetensors"), 1, "neither a folder"),
        (("tag", "train", "a", "b", "-o", "no/t.safetensors"), 1, "no folder 'no'"),
        (("tag", "train", "a", "b", "-o", "t.safetensors", "--frozen"), 2, "--from"),
        (("tag", "train", "a", "b", "-o", "t.safetensors", "--arch", "seq2seq_gru"), 2, "no architecture"),
        (("tag", "train", "a", "b", "-o", "t.safetensors", "--from", "bach", "--arch", "gru"), 2, "leave out"),
        (("tag", "train", "a", "b", "-o", "t.safetensors", "--tokenizer", "nothing"), 1, "no tokenizer"),
        (("tag", "train", "a", "b", "-o", "t.safetensors", "--tokenizer", "score-pairs"), 1, "makes pairs"),
        (("tag", "a/0.mid", "--model", "a/0.mid"), 1, "no checkpoint of musiclm"),
        (("tag", "a/0.mid", "--model", "bach-gru"), 1, "no tagger 'bach-gru': neither a file nor"),
        (("tag", "evaluate", "a", "b"), 1, "no pieces with the tagger's labels"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str):
    folders(tmp_path, 2, 2, 1)
    found, out, err = run(*arguments)
    assert found == code and message in err and out == "" and "Traceback" not in err
    if code == 1:
        assert err.splitlines()[-1].startswith("Error: ")


def test_labels_that_the_tagger_does_not_have_are_left_out(run, tagger: str, tmp_path: Path):
    for name in ("high", "low", "other"):
        write(high() if name == "high" else low(), tmp_path / "m" / name / f"{name}.mid")
    code, out, err = run("tag", "evaluate", "m", "--model", tagger, "--json")
    assert code == 0 and json.loads(out)["num_pieces"] == 2
    assert "labels that the tagger does not have are left out: other" in err
    folders(tmp_path / "n", 2, 2)
    code, _, err = run("tag", "evaluate", "n", "--model", tagger)
    assert code == 1 and "no pieces with the tagger's labels (high, low)" in err


def test_files_may_be_left_out_before_options_too_and_a_command_is_a_command(run, tagger: str, tmp_path: Path):
    write(high(), tmp_path / "s.mid")
    assert json.loads(run("tag", "--json", "s.mid")[1])[0]["label"] == "high"
    assert json.loads(run("tag", "files", "s.mid", "--json")[1])[0]["label"] == "high"
    assert sorted(command.command.commands) == ["evaluate", "files", "train"]
    code, out, _ = run("tag", "--help")
    assert code == 0 and "train" in out
    code, _, err = run("tag")
    assert code == 2 and "Missing argument 'FILE|FOLDER…'" in err
    midi.write(tune(MINOR), tmp_path / "train.mid")
    assert run("tag", "train.mid", "--model", tagger)[0] == 0
