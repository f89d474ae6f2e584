"""A file records which engine computed it, and `repro` says whether the same bytes are to be expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musiclm import devices, midi
from tests.test_cli import one_line

needs_int8 = pytest.mark.skipif(not devices.has_fbgemm("cpu"), reason="needs an x86 CPU")


@pytest.fixture
def made(run, untrained) -> Path:
    asked = ("--tokens", 40, "--seed", 5, "--precision", "int8", "-n", 2, "--no-loop-guard", "-o", "out.mid")
    code, _, err = run("generate", "--model", untrained("grid"), *asked)
    assert code == 0, err
    return Path("out-001.mid") if Path("out-001.mid").exists() else sorted(Path().glob("out*.mid"))[0]


def record_of(path: Path) -> dict:
    (marker,) = [m for m in midi.read(path).markers if "musiclm" in m.text]
    return json.loads(marker.text)


def rewrite(path: Path, record: dict) -> None:
    """Replace the record in a file, and nothing else."""
    score = midi.read(path)
    score.markers[0].text = json.dumps(record, sort_keys=True)
    path.write_bytes(midi.to_bytes(score))


@needs_int8
def test_the_engine_is_recorded_and_the_same_bytes_are_expected_of_it(run, untrained, made: Path):
    record = record_of(made)
    assert record["engine"] == devices.engine_label("int8", "cpu")
    assert record["engine"].startswith("fbgemm-int8")
    assert record["options"]["precision"] == "int8"
    code, _, err = run("repro", made, "--model", untrained("grid"))
    assert code == 0, err
    assert f"the same bytes are expected on a CPU like that of the file: engine {record['engine']}" in err
    assert "may differ" not in err


@needs_int8
def test_a_file_of_another_engine_may_differ_and_is_tried_in_int8(run, untrained, made: Path):
    record = record_of(made)
    rewrite(made, record | {"engine": "npu-int8/riscv64-v"})
    code, out, err = run("repro", made, "--model", untrained("grid"), "--json")
    assert code == 0, err
    assert json.loads(out)["may_differ"] == [f"engine npu-int8/riscv64-v made the file, this is {record['engine']}"]
    assert json.loads(out)["same"] is True  # int8 is taken, as the file says
    assert "the same bytes are expected" not in err


@needs_int8
def test_an_older_file_without_an_engine_is_made_again_byte_for_byte(run, untrained, made: Path):
    record = record_of(made)
    del record["engine"]
    rewrite(made, record)
    code, _, err = run("repro", made, "--model", untrained("grid"), "-o", "again.mid")
    assert code == 0, err
    assert "may differ: the file does not record its engine, this is fbgemm-int8" in err
    assert Path("again.mid").read_bytes() == made.read_bytes()


@needs_int8
def test_a_machine_without_int8_says_so_and_tries_in_fp32(run, untrained, made: Path, monkeypatch):
    monkeypatch.setattr(devices, "has_fbgemm", lambda device: False)
    engine = record_of(made)["engine"]
    code, out, err = run("repro", made, "--model", untrained("grid"), "--json")
    assert code == (0 if json.loads(out)["same"] else 1)
    assert json.loads(out)["may_differ"] == [
        f"engine {engine} made the file, this is {devices.engine_label('fp32', 'cpu')}"
    ]
    assert code == 0 or one_line(err.splitlines()[-1])


def test_a_file_in_fp32_needs_no_engine(run, untrained):
    model = untrained("grid")
    run("generate", "--model", model, "--tokens", 40, "--seed", 5, "--precision", "fp32", "-o", "out.mid")
    assert "engine" not in record_of(Path("out.mid"))
    code, _, err = run("repro", "out.mid", "--model", model)
    assert code == 0
    assert "the same bytes are expected" in err and "engine fp32/" in err


@needs_int8
def test_verbose_shows_what_auto_takes_and_why(run, untrained):
    devices.fastest_engine.cache_clear()
    asked = ("generate", "--model", untrained("grid"), "--tokens", 20, "--seed", 5)
    _, _, err = run(*asked, "-v", "-o", "out.mid")
    engine = devices.fastest_engine()
    assert f"precision auto: {engine} (" in err
    assert f"parameters in {devices.engine_label('auto', 'cpu')}" in err
    devices.fastest_engine.cache_clear()
    _, _, err = run(*asked, "-o", "other.mid")
    assert "precision auto" not in err
