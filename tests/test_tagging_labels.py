"""Labels of files: from folders, tables and corpora; copies, splits, and what is missing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from symusic import Score

from musiclm import midi, tokenizers
from musiclm.data import Options, build_corpus, datasets, open_store
from musiclm.data.fingerprint import are_copies
from musiclm.data.labels import LabelSources, read_labels
from musiclm.data.split import by_key
from musiclm.errors import CorpusError
from musiclm.tagging.dataset import TOKENIZER, TagPiece, Unusable, read_pieces, split_pieces
from musiclm.tagging.labels import LabelledFile, find_labelled
from tests.test_tagging import MAJOR, MINOR, tune

TOKENS = tokenizers.parse(TOKENIZER)


def write(score: Score, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.write(score, path)
    return path


def folders(root: Path, *counts: int) -> list[Path]:
    """Folders a, b, ... with so many different tunes each."""
    made = []
    for k, count in enumerate(counts):
        folder = root / "abcdef"[k]
        folder.mkdir(parents=True)
        for i in range(count):
            write(tune(MAJOR if k % 2 else MINOR, 100 * k + i), folder / f"{i}.mid")
        made.append(folder)
    return made


def pieces(*sources: Path | str, **options: object) -> list[TagPiece]:
    return [p for p in read_pieces(find_labelled(sources, **options).files, TOKENS) if isinstance(p, TagPiece)]


def test_folders_are_labels_and_one_folder_stands_for_those_in_it(tmp_path: Path):
    a, b = folders(tmp_path / "music", 3, 2)
    both = find_labelled([a, b])
    assert [(f.label, f.split) for f in both.files] == [("a", None)] * 3 + [("b", None)] * 2
    inner = find_labelled([tmp_path / "music"])
    assert [f.name for f in inner.files] == [f.name for f in both.files] and not inner.is_split
    write(tune(MAJOR), tmp_path / "other" / "a" / "1.mid")
    with pytest.raises(CorpusError, match="would both be the label 'a'"):
        find_labelled([a, tmp_path / "other" / "a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no music in the folder"):
        find_labelled([a, tmp_path / "empty"])
    with pytest.raises(CorpusError, match="neither a folder"):
        find_labelled([tmp_path / "nowhere"])


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_has_labels_and_splits_and_names_that_are_no_files_are_listed(tmp_path: Path):
    folders(tmp_path, 3, 2)
    csv = table(
        tmp_path / "labels.csv", "file,label,split", "a/0.mid,x,train", "a/1.mid,x,validation", "b/0.mid,y,test",
        "b/9.mid,y,train", "a/2.mid,,train",
    )  # fmt: skip
    found = find_labelled([csv])
    assert [(f.name, f.label, f.split) for f in found.files] == [
        ("a/0.mid", "x", "train"), ("a/1.mid", "x", "validation"), ("b/0.mid", "y", "test"),
    ]  # fmt: skip
    assert found.missing == ["b/9.mid"] and found.is_split
    moved = table(tmp_path / "else.csv", "midi_filename,composer", "0.mid,Bach")
    assert find_labelled([moved], column="composer", data=tmp_path / "a").files[0].label == "Bach"
    with pytest.raises(CorpusError, match=r"none of the files of the table is there: 0\.mid"):
        find_labelled([moved], column="composer")
    with pytest.raises(CorpusError, match="needs the columns 'file' and 'label'"):
        find_labelled([moved])
    with pytest.raises(CorpusError, match="has the split 'later'"):
        find_labelled([table(tmp_path / "bad.csv", "file,label,split", "a/0.mid,x,later")])
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match="not a table that can be read"):
        find_labelled([tmp_path / "bytes.csv"])


def test_files_that_cannot_be_used_say_why(tmp_path: Path):
    (a,) = folders(tmp_path, 1)
    (a / "rubbish.mid").write_bytes(b"hello")
    (a / "empty.mid").write_bytes(b"")
    found = {each.name: each for each in read_pieces(find_labelled([tmp_path]).files, TOKENS)}
    assert isinstance(found["a/0.mid"], TagPiece)
    for name in ("a/rubbish.mid", "a/empty.mid"):
        assert isinstance(found[name], Unusable) and found[name].reason


def test_copies_are_in_one_split_and_one_of_them_is_taken(tmp_path: Path):
    a, _ = folders(tmp_path, 14, 14)
    louder = tune(MINOR, 3)
    for note in louder.tracks[0].notes:
        note.velocity, note.pitch = 99, note.pitch + 2  # transposed: still a copy
    write(louder, a / "copy.mid")
    found = split_pieces(pieces(tmp_path))
    names = [p.name for p in found.pieces("all")]
    assert ("a/3.mid" in names) != ("a/copy.mid" in names) and len(names) == 28
    assert any("1 copy of other files" in note for note in found.notes)


def test_a_copy_at_another_tempo_is_found(tmp_path: Path):
    score = tune(MINOR, 3)
    slower = score.copy()
    for note in slower.tracks[0].notes:
        note.time, note.duration = round(1.1 * note.time), round(1.1 * note.duration)
    given = [
        LabelledFile(name=name, label="a", split=None, read=lambda s=s: s) for name, s in (("1", score), ("2", slower))
    ]
    one, other = (each.form for each in read_pieces(given, TOKENS))
    assert are_copies(one, other)


def test_a_copy_with_two_labels_is_not_taken_where_no_split_is_given(tmp_path: Path):
    a, b = folders(tmp_path, 4, 4)
    write(tune(MINOR, 1), b / "clash.mid")
    found = split_pieces(pieces(a, b))
    assert {p.name for p in found.pieces("all")} == {f"{n}/{i}.mid" for n in "ab" for i in range(4)} - {"a/1.mid"}


def test_files_with_few_notes_are_not_for_training(tmp_path: Path):
    write(tune(MAJOR, num=15), tmp_path / "a" / "short.mid")
    write(tune(MAJOR, num=16), tmp_path / "a" / "long.mid")
    files = find_labelled([tmp_path / "a"]).files
    long, short = read_pieces(files, TOKENS)
    assert isinstance(long, TagPiece) and isinstance(short, Unusable) and "has 15 notes" in short.reason
    assert all(isinstance(each, TagPiece) for each in read_pieces(files, TOKENS, min_notes=1))


def test_pieces_of_one_hash_stay_together(tmp_path: Path):
    read = pieces(*folders(tmp_path, 4, 4))
    train = next(p.form.key for p in read if by_key(p.form.key) == "train")
    other = b"\xff" * 16

    def label(name: str, keys: list[bytes]) -> list[TagPiece]:
        of_label = [p for p in read if p.label == name]
        forms = [dataclasses.replace(p.form, key=key) for p, key in zip(of_label, keys, strict=True)]
        return [dataclasses.replace(p, form=form) for p, form in zip(of_label, forms, strict=True)]

    lowest = min(train, other)
    found = split_pieces([*label("a", [train, train, other, other]), *label("b", [b"\xee" * 16] * 4)])
    of_a = [p for p in found.pieces("validation") if p.label == "a"]
    assert len(of_a) == 2 and {p.form.key for p in of_a} == {lowest}
    assert [p.split for p in found.pieces("all") if p.label == "b"] == ["train"] * 4


def test_a_damaged_archive_in_a_folder_is_said(tmp_path: Path):
    (a,) = folders(tmp_path, 2)
    (a / "bad.zip").write_bytes(b"PK no archive")
    found = find_labelled([a])
    assert len(found.files) == 2 and len(found.problems) == 1 and "bad.zip" in found.problems[0]


def test_a_copy_of_a_held_out_piece_is_not_for_training(tmp_path: Path):
    a, b = folders(tmp_path, 3, 3)
    write(tune(MINOR, 0), a / "again.mid")
    write(tune(MINOR, 1), b / "clash.mid")
    lines = [
        f"{f.parent.name}/{f.name},{f.parent.name},{'test' if f.name == '0.mid' else ''}"
        for f in tmp_path.rglob("*.mid")
    ]
    found = split_pieces(pieces(table(tmp_path / "t.csv", "file,label,split", *sorted(lines))))
    assert "a/again.mid" not in [p.name for p in found.pieces("all")]
    assert {p.name for p in found.pieces("test")} == {"a/0.mid", "b/0.mid"}
    assert any("copies with two labels" in note and "clash.mid" in note for note in found.notes)


def test_each_label_has_validation_pieces_and_few_pieces_have_no_test(tmp_path: Path):
    found = split_pieces(pieces(*folders(tmp_path, 2, 5, 40)))
    for label in "abc":
        assert any(p.label == label for p in found.pieces("validation"))
        assert any(p.label == label for p in found.pieces("train"))
    assert {p.label for p in found.pieces("test")} == {"c"}
    again = split_pieces(pieces(*reversed([tmp_path / n for n in "abc"])))
    for split in ("train", "validation", "test"):
        assert {p.name for p in found.pieces(split)} == {p.name for p in again.pieces(split)}


def test_one_label_is_refused_and_a_label_of_one_piece_is_left_out(tmp_path: Path):
    found = folders(tmp_path, 3, 3, 1)
    made = split_pieces(pieces(*found))
    assert made.labels == ["a", "b"] and any("c (1)" in note for note in made.notes)
    with pytest.raises(CorpusError, match=r"at least two labels.*'a' alone"):
        split_pieces(pieces(found[0], found[2]))
    with pytest.raises(CorpusError, match="there is none"):
        split_pieces(pieces(*found), min_pieces=9)


# --- labels in a corpus


def built(source: Path, output: Path, **labels: object) -> Path:
    for _ in build_corpus([source], output, TOKENS, Options(workers=0, labels=LabelSources(**labels))):
        pass
    return output


def test_labels_of_a_table_are_in_the_corpus_and_train_a_tagger(tmp_path: Path):
    folders(tmp_path / "music", 6, 6)
    csv = table(
        tmp_path / "l.csv",
        "file,composer,mood",
        "a/0.mid,Bach,",
        "music/a/1.mid,Bach,calm",
        "b/0.mid,Liszt,wild",
        "b/9.mid,Liszt,",
    )
    made = open_store(built(tmp_path / "music", tmp_path / "corpus", of_files=read_labels(csv)))
    by_name = {piece.name: dict(piece.labels) for piece in made.pieces("all")}
    assert by_name["music/a/0.mid"] == {"composer": "Bach"}
    assert by_name["music/a/1.mid"] == {"composer": "Bach", "mood": "calm"}
    assert by_name["music/a/2.mid"] == {}
    assert "labels name files that are not there: b/9.mid" in made.notes
    first = made.pieces("all")[0]
    found = find_labelled([tmp_path / "corpus"], column="composer")
    assert {f.label for f in found.files} == {"Bach", "Liszt"} and found.is_split
    assert found.files[0].read().note_num() == first.num_notes
    for kind, message in ((None, "have composer, mood: choose one"), ("year", "no label 'year'")):
        with pytest.raises(CorpusError, match=message):
            find_labelled([tmp_path / "corpus"], column=kind)


def test_slices_splits_and_parts_by_bars_keep_their_labels(tmp_path: Path):
    folders(tmp_path / "music", 4)
    made = open_store(
        built(
            tmp_path / "music", tmp_path / "corpus", of_all={"style": "piano"}, of_files={"a/1.mid": {"style": "lied"}}
        )
    )
    for found in (made.whole, made.pieces("train"), made.pieces("test")):
        assert {piece.name.split(" ")[0]: piece.labels["style"] for piece in found}["music/a/1.mid"] == "lied"
        assert [p.labels for p in found[1:3]] == [p.labels for p in found][1:3]


def test_a_corpus_without_labels_has_no_files_for_them_and_old_ones_open(tmp_path: Path):
    folders(tmp_path / "music", 3)
    made = built(tmp_path / "music", tmp_path / "corpus")
    assert not {p.name for p in made.iterdir()} & {"labels.npy", "labels.bin"}
    assert all(piece.labels == {} for piece in open_store(made).pieces("all"))


def test_labels_that_are_not_those_of_the_pieces_are_damage(tmp_path: Path):
    folders(tmp_path / "music", 3)
    made = built(tmp_path / "music", tmp_path / "corpus", of_all={"style": "piano"})
    np.save(made / "labels.npy", np.load(made / "labels.npy")[1:])
    with pytest.raises(CorpusError, match="labels are not those of its pieces"):
        open_store(made)


def test_labels_that_are_cut_off_are_damage_when_the_corpus_is_opened(tmp_path: Path):
    folders(tmp_path / "music", 3)
    made = built(tmp_path / "music", tmp_path / "corpus", of_all={"style": "piano"})
    (made / "labels.bin").write_bytes((made / "labels.bin").read_bytes()[:-4])
    with pytest.raises(CorpusError, match="labels are not those of its pieces"):
        open_store(made)


def test_the_pieces_of_a_small_corpus_are_whole_and_each_is_in_one_split(tmp_path: Path):
    folders(tmp_path / "music", 2, 2)
    of_files = {f"{folder}/{i}.mid": {"mood": folder} for folder in "ab" for i in range(2)}
    made = built(tmp_path / "music", tmp_path / "corpus", of_files=of_files)
    assert open_store(made).whole is not None
    found = find_labelled([made])
    assert len(found.files) == 4 and not found.is_split
    splits = split_pieces(pieces(made)).splits
    assert sorted(len(each) for each in splits.values()) == [0, 2, 2]


def test_the_more_specific_name_of_a_file_wins():
    labels = LabelSources(of_all={"x": "all"}, of_files={"1.mid": {"x": "any", "y": "any"}, "m/1.mid": {"x": "this"}})
    assert labels.of_piece("1.mid", "m/1.mid", {}) == {"x": "this", "y": "any"}


def test_a_known_data_set_brings_the_labels_of_its_table(tmp_path: Path):
    folders(tmp_path / "maestro", 4)
    rows = [f"Bach,Air,{split},{i}" for i, split in enumerate(("train", "train", "validation", "test"))]
    table(
        tmp_path / "maestro" / "m.csv",
        "canonical_composer,canonical_title,split,midi_filename",
        *[f"{r[:-1]}a/{r[-1]}.mid" for r in rows],
    )
    known = datasets.get("maestro").label_sources
    for _ in build_corpus([tmp_path / "maestro"], tmp_path / "corpus", TOKENS, Options(workers=0, labels=known)):
        pass
    for piece in open_store(tmp_path / "corpus").pieces("all"):
        assert piece.labels == {"composer": "Bach", "title": "Air", "style": "piano"}


def test_the_command_builds_a_corpus_with_labels(run, tmp_path: Path):
    folders(tmp_path / "music", 2)
    table(tmp_path / "l.csv", "file,composer", "a/0.mid,Bach")
    arguments = ("corpus", "build", "music", "-o", "c", "--workers", 1, "--json")
    code, out, _ = run(*arguments, "--labels", "l.csv")
    assert code == 0 and json.loads(out)["kept"] == 2
    assert sorted(p.labels.get("composer", "") for p in open_store(tmp_path / "c").pieces("all")) == ["", "Bach"]
    table(tmp_path / "bad.csv", "name,composer")
    code, _, err = run(*arguments, "--force", "--labels", "bad.csv")
    assert code == 1 and err.startswith("Error: 'bad.csv' needs a column 'file'") and len(err.splitlines()) == 1
