"""Building a store: copies, splits, the same bytes whatever happens, and what damaged files cost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from musiclm.cli import main

import musiclm
from musiclm import data, midi, tokenizers
from musiclm.data import SPLITS, Options, build_corpus, bundled, files, open_source, open_store
from musiclm.data import build as building
from musiclm.data.crops import RandomCrops
from musiclm.data.fingerprint import are_copies, fingerprint
from musiclm.errors import CorpusError, Reason, TokenizerError
from tests.data_files import benchmark, built, contents, folder_of, midi_bytes, piece

MUSIC = {f"{i:02d}.mid": midi_bytes(i) for i in range(30)}
CHORALES = Path(musiclm.__file__).parent / "chorales.zip"


def test_a_store_gives_the_pieces_back(tmp_path: Path):
    folder = folder_of(tmp_path / "music", MUSIC)
    document = built(tmp_path / "corpus", folder)
    assert (document["found"], document["kept"], document["dropped"]) == (30, 30, {})
    opened = open_store(tmp_path / "corpus")
    pieces = {p.name.split("/")[1]: p for p in opened.pieces("all")}
    assert sorted(pieces) == sorted(MUSIC)
    for name, content in MUSIC.items():
        score = midi.parse(content, name)
        ids, _ = opened.tokenizer.encode(score)
        assert np.array_equal(pieces[name].tokens, ids)
        assert pieces[name].num_notes == score.note_num()
        assert pieces[name].seconds == pytest.approx(midi.seconds(score), abs=0.01)
        sung = [n.pitch for t in score.tracks if not t.is_drum for n in t.notes]
        assert pieces[name].pitches == (min(sung), max(sung))
    for split in SPLITS:
        assert document["splits"][split]["pieces"] == len(opened.pieces(split)) > 0
        assert document["splits"][split]["tokens"] == sum(len(p.tokens) for p in opened.pieces(split))
    assert document["num_notes"] == sum(p.num_notes for p in opened.pieces("all"))


def test_all_transposed_and_stretched_copies_are_found(tmp_path: Path):
    draw = random.Random(0)
    planted = {}
    for i in range(30):
        planted[f"z{i}-transposed.mid"] = midi_bytes(i, semitones=draw.choice([-7, -3, 2, 5, 11]))
        planted[f"z{i}-stretched.mid"] = midi_bytes(i, stretch=draw.choice([0.5, 0.73, 1.1, 1.37, 2.0, 3.14]))
        how = {
            "semitones": draw.choice([-4, 4]),
            "stretch": draw.uniform(0.5, 2),
            "tpq": draw.choice([96, 220, 384, 960]),
        }
        planted[f"z{i}-both.mid"] = midi_bytes(i, **how)
    document = built(tmp_path / "corpus", folder_of(tmp_path / "music", {**MUSIC, **planted}))
    assert document["kept"] == 30
    assert sum(document["dropped"].values()) == 90 == sum(document["doctor"]["copies"].values())
    for file in files(tmp_path / "corpus"):
        name = file["name"].removeprefix("music/")
        if "-" in name:
            assert file["copy_of"] == f"music/{int(name[1:].split('-')[0]):02d}.mid"
        else:
            assert file["kept"]


def test_other_notes_and_other_rhythms_are_no_copies():
    original = fingerprint(piece(1))
    assert are_copies(original, fingerprint(piece(1, semitones=3, stretch=1.3)))
    assert not are_copies(original, fingerprint(piece(2)))
    moved = piece(1)
    notes = list(moved.tracks[0].notes)
    notes[5].time += 120
    moved.tracks[0].notes = type(moved.tracks[0].notes)(notes)
    assert not are_copies(original, fingerprint(moved))


def test_adding_files_moves_nothing_and_copies_fall_together(tmp_path: Path):
    def splits(name: str) -> dict[str, str]:
        return {f["name"].split("/")[1]: f["split"] for f in files(tmp_path / name) if f["kept"]}

    more = {f"{i:02d}.mid": midi_bytes(i) for i in range(60)}
    built(tmp_path / "few", folder_of(tmp_path / "a", MUSIC))
    built(tmp_path / "more", folder_of(tmp_path / "b", more))
    few, many = splits("few"), splits("more")
    assert {name: many[name] for name in few} == few
    copies = {f"{i:02d}-copy.mid": midi_bytes(i, semitones=4, stretch=1.1) for i in range(30)}
    kept = built(tmp_path / "kept", folder_of(tmp_path / "c", {**MUSIC, **copies}), keep_duplicates=True)
    together = splits("kept")
    assert kept["kept"] == 60 and kept["doctor"]["copies"]["near"] == 30
    assert all(together[name] == few[name] == together[name.replace(".mid", "-copy.mid")] for name in few)


def test_an_official_split_is_used_as_it_is_and_twins_across_it_are_reported(tmp_path: Path):
    rows = [
        ("train", "year/a.midi"),
        ("train", "b.midi"),
        ("validation", "c.midi"),
        ("test", "d.midi"),
        ("test", "e.midi"),
    ]
    table = "title,split,midi_filename\n" + "".join(f'"x, y",{split},{name}\n' for split, name in rows)
    files = {f"set/{name}": midi_bytes(i) for i, (_, name) in enumerate(rows)}
    files["set/d.midi"] = midi_bytes(0, semitones=2)  # the twin of a.midi
    files |= {"set/info.csv": table.encode(), "set/other.mid": midi_bytes(1, semitones=5)}
    document = built(tmp_path / "corpus", folder_of(tmp_path / "music", files))
    sizes = {name: split["pieces"] for name, split in document["splits"].items()}
    assert sizes == {"train": 2, "validation": 1, "test": 2}
    assert document["dropped"] == {Reason.NEAR_COPY.text: 1}  # other.mid is in no official split
    twins = document["twins_across_splits"]
    assert (twins["groups"], twins["pieces"], twins["held_out"]) == (1, 2, 1)


@pytest.mark.slow
def test_the_chorales_keep_their_folders_as_splits_and_their_twins_are_counted(tmp_path: Path):
    """No chorale is another one transposed; 28 of the 77 test ones are known to share a tune with one of training."""
    document = built(tmp_path / "corpus", CHORALES, tokenizer="grid")
    assert [document["splits"][s]["pieces"] for s in SPLITS] == [229, 76, 77]
    twins = document["twins_across_splits"]
    assert twins["groups"] == 0 and twins["share_a_tune"] == {"validation": 26, "test": 32}
    opened, whole = open_store(tmp_path / "corpus"), bundled(tokenizers.create("grid"))
    for split in SPLITS:
        for a, b in zip(opened.pieces(split), whole.pieces(split), strict=True):
            assert np.array_equal(a.tokens, b.tokens)


def test_fewer_than_ten_pieces_are_split_by_bars(tmp_path: Path):
    document = built(tmp_path / "corpus", folder_of(tmp_path / "music", {"a.mid": midi_bytes(1, num_bars=20)}))
    assert "bars within pieces" in document["notes"][0]
    opened = open_store(tmp_path / "corpus")
    whole, original = opened.pieces("all")[0], midi.parse(midi_bytes(1, num_bars=20), "a")
    assert len(opened.pieces("all")) == 1
    assert np.array_equal(whole.tokens, opened.tokenizer.encode(original)[0])
    at = 0
    for split, num_bars in zip(SPLITS, (16, 2, 2), strict=True):
        (part,) = opened.pieces(split)
        wanted = midi.cut(original, 4 * at, 4 * (at + num_bars))
        assert np.array_equal(part.tokens, opened.tokenizer.encode(wanted)[0])
        at += num_bars


def test_one_bar_is_trained_and_validated_on(tmp_path: Path):
    source = open_source(folder_of(tmp_path / "music", {"a.mid": midi_bytes(1, num_bars=1)}))
    assert len(source.pieces("train")) == len(source.pieces("validation")) == len(source.pieces("all")) == 1
    assert not source.is_split and "validation is on the training music" in source.notes[-1]


@pytest.mark.slow
def test_workers_and_this_process_build_the_same_bytes_from_a_folder_and_twice(tmp_path: Path):
    folder = folder_of(tmp_path / "music", {**MUSIC, "bad.mid": b"MThd", "deep/x.kar": midi_bytes(70)})
    built(tmp_path / "1" / "corpus", folder)
    built(tmp_path / "2" / "another", folder, workers=2)  # the name of its folder was once in its corpus.json
    assert contents(tmp_path / "1" / "corpus") == contents(tmp_path / "2" / "another")
    before = contents(tmp_path / "1")
    built(tmp_path / "1" / "corpus", folder, force=True)
    assert contents(tmp_path / "1") == before


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path: Path):
    folder = folder_of(tmp_path / "music", {f"{i:03d}.mid": midi_bytes(i, num_bars=60) for i in range(150)})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    command = [sys.executable, "-m", "musiclm", "corpus", "build", str(folder), "--workers", "1", "-q", "-o"]
    killed = subprocess.Popen([*command, str(tmp_path / "a" / "corpus")], stderr=subprocess.DEVNULL)
    work = building.work_folder(tmp_path / "a" / "corpus") / "work.tokens"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and killed.poll() is None:
        if work.exists() and work.stat().st_size > 100_000:
            break
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (tmp_path / "a" / "corpus").exists() and work.exists()
    options = Options(workers=0)
    *_, last = build_corpus([folder], tmp_path / "a" / "corpus", tokenizers.create("score"), options)
    assert 0 < last.resumed < 150
    built(tmp_path / "b" / "corpus", folder)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_build_that_is_stopped_goes_on_and_sees_what_has_changed(tmp_path: Path):
    folder = folder_of(tmp_path / "music", MUSIC)
    progress = build_corpus([folder], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0))
    for now in progress:
        if now.found == 20:
            break
    progress.close()
    (folder / "00.mid").unlink()
    (folder / "01.mid").write_bytes(midi_bytes(99))
    *_, last = build_corpus([folder], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0))
    assert 17 <= last.resumed <= 18
    built(tmp_path / "again" / "corpus", folder)
    assert contents(tmp_path / "corpus") == contents(tmp_path / "again" / "corpus")


@pytest.mark.slow
def test_a_hanging_and_a_dying_reader_cost_one_file_each(tmp_path: Path):
    """The hooks are in the environment, because readers are other processes."""
    folder = folder_of(tmp_path / "music", {**MUSIC, "05-hang.mid": midi_bytes(40), "07-die.mid": midi_bytes(41)})
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import musiclm.data.parse as reading\n"
        "whole = reading.read_piece\n"
        "def read_piece(data, name, *rest):\n"
        "    while 'hang' in name: pass\n"
        "    if 'die' in name: os._exit(11)\n"
        "    return whole(data, name, *rest)\n"
        "reading.read_piece = read_piece\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "musiclm", "corpus", "build", str(folder), "-o", str(tmp_path / "corpus")]
    done = subprocess.run(
        [*command, "--workers", "1", "--time-limit", "2", "--json"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kept"] == 30
    assert document["dropped"] == {"killed its reader": 1, "took longer than 2 s": 1}


@pytest.mark.slow
def test_damaged_files_are_dropped_each_with_its_reason(tmp_path: Path):
    mutations = benchmark("mutations")
    folder = tmp_path / "damaged"
    folder.mkdir()
    written = mutations.write(folder, mutations.seeds(None), 210, seed=1, bombs=False)
    (folder / "good.mid").write_bytes(midi_bytes(1))
    document = built(tmp_path / "corpus", folder, workers=1, time_limit=10)
    assert document["found"] == sum(written.values()) + 1
    reasons = {f.get("reason") for f in files(tmp_path / "corpus")}
    assert not any(str(reason).startswith(("took longer", "cannot be tokenised")) for reason in reasons)
    assert {f["name"].split("/")[-1] for f in files(tmp_path / "corpus") if f["kept"]} >= {"good.mid"}
    assert len(document["problems"]) >= 4


def test_nothing_kept_says_why_and_leaves_nothing(tmp_path: Path):
    folder = folder_of(tmp_path / "music", {"a.mid": b"x", "b.mid": b""})
    with pytest.raises(CorpusError, match=r"1 file: is empty.*; 1 file: is not a MIDI file"):
        built(tmp_path / "corpus", folder)
    with pytest.raises(CorpusError, match="no file with a music suffix"):
        built(tmp_path / "corpus", folder_of(tmp_path / "none", {"a.txt": b"x"}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["music", "none"]


def test_what_is_there_already_is_not_replaced_unasked(tmp_path: Path):
    folder = folder_of(tmp_path / "music", MUSIC)
    built(tmp_path / "corpus", folder)
    with pytest.raises(CorpusError, match="--force"):
        built(tmp_path / "corpus", folder)
    with pytest.raises(CorpusError, match="is not a corpus"):
        built(folder, folder, force=True)
    with pytest.raises(CorpusError, match="is a corpus already"):
        built(tmp_path / "other", tmp_path / "corpus")


def test_a_store_of_another_tokenizer_or_damaged_is_refused(tmp_path: Path):
    built(tmp_path / "corpus", folder_of(tmp_path / "music", MUSIC))
    assert open_source(tmp_path / "corpus").tokenizer.name == "score"
    with pytest.raises(CorpusError, match="tokens of 'score', not of 'grid'"):
        open_source(tmp_path / "corpus", tokenizers.create("grid"))
    whole = (tmp_path / "corpus" / "tokens.bin").read_bytes()
    (tmp_path / "corpus" / "tokens.bin").write_bytes(whole[:-100])
    with pytest.raises(CorpusError, match="damaged"):
        open_source(tmp_path / "corpus")


def test_grid_cannot_learn_bpe_and_says_so_at_once(tmp_path: Path):
    with pytest.raises(TokenizerError, match="BPE"):
        built(tmp_path / "corpus", CHORALES, tokenizer="grid", bpe=10)


def test_raw_sources_in_memory_and_in_the_cache_are_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache" / "corpora")
    folder = folder_of(tmp_path / "music", MUSIC)
    small = open_source(folder)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(data, "SMALL_FILES", 1)
    monkeypatch.setattr(data, "Options", lambda: building.Options(workers=0))
    large = open_source(folder)
    again = open_source(folder)
    assert len(list((tmp_path / "cache" / "corpora").iterdir())) == 1
    for each in (large, again):
        assert each.name == small.name == "music" and not each.is_split
        for split in SPLITS:
            for a, b in zip(small.pieces(split), each.pieces(split), strict=True):
                assert np.array_equal(a.tokens, b.tokens) and a.name == b.name
    (folder / "new.mid").write_bytes(midi_bytes(50))
    assert len(open_source(folder).pieces("all")) == 31


def test_windows_of_a_store_stay_within_the_pitches_of_the_corpus(tmp_path: Path):
    built(tmp_path / "corpus", folder_of(tmp_path / "music", MUSIC))
    opened = open_store(tmp_path / "corpus")
    pieces = list(opened.pieces("train"))
    ids = [p.tokens for p in pieces]
    low = min(p.pitches[0] for p in pieces if p.pitches)
    high = max(p.pitches[1] for p in pieces if p.pitches)
    windows = RandomCrops(ids, opened.tokenizer, length=64, batch_size=16, seed=0, pitches=[p.pitches for p in pieces])
    pitch_of = {
        i: int(value)
        for i, (kind, value) in enumerate(zip(opened.tokenizer.kinds, opened.tokenizer.values, strict=True))
        if kind == "Pitch"
    }
    seen = [pitch_of[i] for n in range(20) for i in windows(n).tokens.flatten().tolist() if i in pitch_of]
    assert low <= min(seen) and max(seen) <= high
    assert bool((windows(3).tokens == windows(3).tokens).all())
    plain = RandomCrops(
        ids, opened.tokenizer, length=64, batch_size=16, seed=0, transpose=range(1), faster=range(1), louder=range(1)
    )
    known = [opened.tokenizer.plan.without(p) for p in ids]  # the plan of a crop may be unknown
    whole = {tuple(p[i : i + 8].tolist()) for p in known for i in range(len(p))}
    assert all(tuple(opened.tokenizer.plan.without(row.numpy())[:8].tolist()) in whole for row in plain(0).tokens)


def test_the_command_line_builds_inspects_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["corpus", *arguments])
        return (ended.value.code, *capsys.readouterr())  # type: ignore[return-value]

    folder_of(tmp_path / "music", {**MUSIC, "bad.mid": b"x"})
    code, out, err = run("build", "music", "-o", "mine", "--workers", "1", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert set(told) >= {"corpus", "found", "kept", "dropped", "num_notes", "num_tokens", "splits", "seconds_elapsed"}
    assert told["found"] == 31 and told["kept"] == 30 and told["dropped"] == {"is not a MIDI file": 1}
    assert "dropped: 1 × is not a MIDI file" in err
    code, out, _ = run("inspect", "mine")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert "Flute (73)" in out
    assert json.loads(run("inspect", "mine", "--json")[1])["doctor"]["notes_read"] > 0
    assert "music/bad.mid\tdropped: is not a MIDI file" in run("inspect", "mine", "--files")[1]
    for arguments, wanted in (
        (["build", "music", "-o", "mine"], 1),
        (["build", "no", "-o", "x"], 1),
        (["build", "music", "-o", "x", "--tokenizer", "no"], 1),
        (["build", "music", "-o", "x", "--program", "x"], 2),
        (["inspect", "music"], 1),
        (["build", "music"], 2),
    ):
        code, out, err = run(*arguments)
        assert code == wanted and not out and len(err.strip().splitlines()) <= 4, arguments


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="signals")
def test_ctrl_c_stops_with_130_and_says_how_to_go_on(tmp_path: Path):
    folder_of(tmp_path / "music", {f"{i:03d}.mid": midi_bytes(i, num_bars=60) for i in range(150)})
    command = [sys.executable, "-m", "musiclm", "corpus", "build", "music", "-o", "mine", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, where tests run behind an "&"
    )  # fmt: skip
    work = tmp_path / ".mine.building" / "work.tokens"
    with contextlib.suppress(subprocess.TimeoutExpired):
        for _ in range(30_000):
            if process.poll() is not None or (work.exists() and work.stat().st_size > 100_000):
                break
            time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "To continue: musiclm corpus build music -o mine" in told and "Traceback" not in told


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_workers_import_the_package_that_runs_and_none_in_the_current_folder(tmp_path: Path):
    """In a clone, after a plain `pip install .`, a folder named musiclm that lacks `cli` was imported by the workers."""
    (tmp_path / "musiclm").mkdir()
    (tmp_path / "musiclm" / "__init__.py").write_text("")
    folder = tmp_path / "music"
    folder.mkdir()
    for path in sorted((Path(__file__).parents[1] / "examples").glob("*.mid"))[:3]:
        shutil.copy(path, folder)
    script = tmp_path / "bin" / "musiclm"  # as pip writes it
    script.parent.mkdir()
    script.write_text("from musiclm.cli import main\nif __name__ == '__main__':\n    main()\n")
    arguments = ["corpus", "build", folder, "-o", "corpus", "--workers", "2"]
    done = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
