"""Known data sets: one file each, listed, and their options taken by a build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from musiclm.cli import main

from musiclm import tokenizers
from musiclm.data import datasets, describe
from musiclm.errors import CorpusError
from tests.data_files import folder_of, midi_bytes

TOY = """
from musiclm.data.datasets.base import Dataset

DATASET = Dataset(name="toy", title="Toy", licence="CC0", address="https://example.org", citation="Nobody")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["corpus", *arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.mark.parametrize("name", datasets.names())
def test_a_data_set_says_what_must_be_known(name: str):
    dataset = datasets.get(name)
    assert dataset.name == name
    assert dataset.title and dataset.licence and dataset.citation
    assert dataset.address is None or dataset.address.startswith("https://")
    tokenizers.check_name(dataset.tokenizer)
    assert all(0 <= program < 128 for pair in dataset.programs.items() for program in pair)


def test_a_new_file_is_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    assert "toy" in datasets.names()
    assert datasets.get("toy").licence == "CC0"


def test_an_unknown_name_is_refused_with_those_there_are(run):
    with pytest.raises(CorpusError, match="no data set 'nope': one of chopin, chorales,"):
        datasets.get("nope")
    folder_of(Path("music"), {"a.mid": midi_bytes(1)})
    code, _, err = run("build", "music", "-o", "corpus", "--dataset", "nope")
    assert code == 1 and "no data set 'nope'" in err and not Path("corpus").exists()


def test_the_command_line_lists_them(run):
    code, out, _ = run("datasets")
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines() if not line.startswith(" ")] == datasets.names()
    code, out, _ = run("datasets", "--json")
    assert code == 0
    found = {dataset["name"]: dataset for dataset in json.loads(out)}
    assert found["lieder"]["programs"] == {"68": 52}
    assert found["maestro"]["tokenizer"] == "performance"


def test_a_build_takes_the_options_of_a_data_set_and_the_command_lines_before_them(run):
    folder_of(Path("music"), {f"{i}.mid": midi_bytes(i) for i in range(3)})
    code, _, err = run("build", "music", "-o", "lieder", "--dataset", "lieder", "--program", "73=40", "--workers", "1")
    assert code == 0, err
    document = describe("lieder")
    assert document["tokenizer"]["name"] == "score"
    assert document["options"]["programs"] == {"68": 52, "73": 40}
    assert "40" in document["doctor"]["notes_by_program"]
    assert run("build", "music", "-o", "maestro", "--dataset", "maestro", "--workers", "1")[0] == 0
    assert describe("maestro")["tokenizer"]["name"] == "performance"
    assert run("build", "music", "-o", "tsd", "--dataset", "maestro", "--tokenizer", "TSD", "--workers", "1")[0] == 0
    assert describe("tsd")["tokenizer"]["name"] == "TSD"
