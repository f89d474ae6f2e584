"""Reasons why files are dropped: codes on disk, the same texts for people, and the texts of old corpora are read."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musiclm import tokenizers
from musiclm.data import Options, build_corpus, describe, files
from musiclm.data import build as building
from musiclm.errors import Drop, Reason
from tests.data_files import built, contents, folder_of, midi_bytes

MUSIC = {
    **{f"{i:02d}.mid": midi_bytes(i) for i in range(12)},
    "copy.mid": midi_bytes(3, semitones=1),
    "bad.mid": b"x",
    "cut.mid": midi_bytes(1)[:100],
    "smpte.mid": midi_bytes(1)[:12] + b"\xe7\x28" + midi_bytes(1)[14:],
    "no.abc": b"hm",
}
TEXTS = {
    "has the same notes as another file, transposed or at another speed": 2,
    "is damaged MIDI: it ends within a track": 1,
    "is not a MIDI file": 1,
    "is not abc: no field X:": 1,
}
OLD_TEXTS = {  # as builds before there were codes stored them, and whether such a file was tried again
    "took longer than 60 s": (Drop(Reason.TIME_LIMIT, "60"), True),
    "took longer than 0.5 s": (Drop(Reason.TIME_LIMIT, "0.5"), True),
    "killed its reader": (Drop(Reason.READER_KILLED), True),
    "needed more than 3 GB of memory": (Drop(Reason.MEMORY, "3"), True),
    "cannot be read: Input/output error": (Drop(Reason.UNREADABLE, "Input/output error"), True),
    "is damaged MIDI: the parser gave up": (Drop(Reason.PARSER), False),
    "has more than 500,000 notes": (Drop(Reason.TOO_MANY_NOTES, "500,000"), False),
    "is longer than 65,536 quarters": (Drop(Reason.TOO_LONG, "65,536"), False),
    "cannot be tokenised (KeyError)": (Drop(Reason.TOKENIZER_FAILED, "KeyError"), False),
    "is damaged in its archive: Bad CRC-32": (Drop(Reason.ARCHIVE_DAMAGED, "Bad CRC-32"), False),
    "longer than 24 hours": (Drop(Reason.OTHER, "longer than 24 hours"), False),
}


def with_old_texts(folder: Path) -> None:
    """Rewrite a corpus to what it was before there were codes."""
    path = folder / "corpus.json"
    document = json.loads(path.read_text("utf-8"))
    document["dropped"] = {Drop.parse(stored).text: count for stored, count in document["dropped"].items()}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [json.loads(line) for line in (folder / "files.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        if "reason" in line:
            line["reason"] = Drop.parse(line["reason"]).text
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "files.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("text", OLD_TEXTS)
def test_old_texts_are_read_as_codes(text: str):
    drop, is_transient = OLD_TEXTS[text]
    assert Drop.parse(text) == drop
    assert (drop.text, drop.reason.is_transient) == (text, is_transient)


@pytest.mark.slow
@given(st.sampled_from(Reason), st.text(max_size=20))
def test_what_is_stored_is_read_back_whatever_the_detail(reason: Reason, detail: str):
    drop = Drop(reason, detail if "{detail}" in reason.text else "")
    assert Drop.parse(drop.stored) == drop
    assert Drop.parse(Drop.parse(drop.text).stored).text == drop.text


def test_codes_and_texts_are_unique():
    assert len({reason.code for reason in Reason}) == len({reason.text for reason in Reason}) == len(Reason)
    assert all(reason.code.replace("_", "").isalnum() and reason.code.islower() for reason in Reason)


def test_a_corpus_holds_codes_and_shows_texts(tmp_path: Path):
    document = built(tmp_path / "corpus", folder_of(tmp_path / "music", MUSIC))
    assert document["dropped"] == TEXTS
    assert list(document["dropped"]) == sorted(TEXTS)  # of the same count by text
    stored = json.loads((tmp_path / "corpus" / "corpus.json").read_text("utf-8"))["dropped"]
    assert set(stored) == {"near_copy", "track_cut", "not_midi", "not_abc"}
    shown = {f["name"].split("/")[1]: f.get("reason") for f in files(tmp_path / "corpus")}
    assert shown["bad.mid"] == "is not a MIDI file" and shown["00.mid"] is None


def test_a_corpus_of_before_there_were_codes_reads_the_same(tmp_path: Path):
    built(tmp_path / "corpus", folder_of(tmp_path / "music", MUSIC))
    document, became = describe(tmp_path / "corpus"), list(files(tmp_path / "corpus"))
    before = contents(tmp_path / "corpus")
    with_old_texts(tmp_path / "corpus")
    assert contents(tmp_path / "corpus") != before
    assert describe(tmp_path / "corpus") == document
    assert list(files(tmp_path / "corpus")) == became


def test_a_half_built_folder_of_before_there_were_codes_is_resumed(tmp_path: Path):
    """Its transient reasons are tried again, the others are kept, and the corpus has the bytes of a new one."""
    folder = folder_of(tmp_path / "music", MUSIC)
    build = build_corpus([folder], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0))
    for now in build:
        if now.found == 15:
            break
    build.close()
    database = sqlite3.connect(building.work_folder(tmp_path / "corpus") / "work.sqlite")
    stored = list(database.execute("SELECT name, reason FROM files WHERE reason IS NOT NULL"))
    assert ("bad.mid", "not_midi") in stored
    changes = [(Drop.parse(reason).text, name) for name, reason in stored]
    transient = [text for text, (_, is_transient) in OLD_TEXTS.items() if is_transient]
    changes += [(text, f"{i:02d}.mid") for i, text in enumerate(transient)]
    database.executemany("UPDATE files SET reason = ?, key = NULL, facts = NULL WHERE name = ?", changes)
    database.commit()
    database.close()
    *_, last = build_corpus([folder], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0))
    assert last.resumed == 15 - len(transient)
    built(tmp_path / "again" / "corpus", folder)
    assert contents(tmp_path / "corpus") == contents(tmp_path / "again" / "corpus")
