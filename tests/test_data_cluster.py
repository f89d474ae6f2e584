"""Corpora built by a Dask cluster, and from addresses: the bytes of a build on one machine, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from musiclm import tokenizers
from musiclm.data import Options, build_corpus, files
from musiclm.data import build as building
from musiclm.data.remote import is_address
from musiclm.errors import CorpusError
from tests.data_files import built, contents, folder_of, midi_bytes

distributed = pytest.importorskip("distributed")
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("upath")

MUSIC = {f"{i:02d}.mid": midi_bytes(i) for i in range(30)} | {"empty.mid": b"", "text.mid": b"no music"}
HOOKS = """
import os
import musiclm.data.parse as reading
whole = reading.read_piece
def read_piece(data, name, *rest):
    while 'hang' in name: pass
    if 'die' in name: os._exit(11)
    return whole(data, name, *rest)
reading.read_piece = read_piece
"""


@pytest.fixture
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as local:
        yield local


@pytest.fixture
def memory():
    """The file system in memory, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.mark.slow
def test_a_cluster_of_which_a_worker_is_killed_builds_the_same_bytes(cluster, tmp_path: Path):
    folder = folder_of(tmp_path / "music", MUSIC)
    built(tmp_path / "one" / "corpus", folder)
    pids = list(distributed.Client(cluster).run(os.getpid).values())
    options = Options(dask=cluster.scheduler_address)
    killed = False
    for now in build_corpus([folder], tmp_path / "two" / "corpus", tokenizers.create("score"), options):
        if not killed and now.found >= 10:
            os.kill(pids[0], signal.SIGKILL)
            killed = True
    assert killed
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_files_that_hang_or_kill_their_reader_have_the_reasons_of_one_machine(tmp_path: Path):
    folder = folder_of(tmp_path / "music", {**MUSIC, "05-hang.mid": midi_bytes(40), "07-die.mid": midi_bytes(41)})
    (tmp_path / "sitecustomize.py").write_text(HOOKS)
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    documents = []
    for name, how in (("one", ["--workers", "1"]), ("local", ["--dask", "local", "--workers", "2"])):
        command = [
            sys.executable,
            "-m",
            "musiclm",
            "corpus",
            "build",
            str(folder),
            "-o",
            str(tmp_path / name / "corpus"),
        ]
        done = subprocess.run(
            [*command, *how, "--time-limit", "2", "--json"],
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout))
        assert documents[-1]["dropped"]["killed its reader"] == 1
        assert documents[-1]["dropped"]["took longer than 2 s"] == 1
    assert contents(tmp_path / "one") == contents(tmp_path / "local")


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("musiclm.data.cluster.START_SECONDS", 1.0)
    folder = folder_of(tmp_path / "music", MUSIC)
    with pytest.raises(CorpusError, match=r"no worker of the cluster 'tcp://127\.0\.0\.1:9'"):
        built(tmp_path / "corpus", folder, dask="tcp://127.0.0.1:9")
    assert not (tmp_path / "corpus").exists()


def test_dask_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CorpusError, match=r"musiclm\[cluster\]"):
        built(tmp_path / "corpus", folder_of(tmp_path / "music", MUSIC), dask="local")


def test_addresses_give_the_bytes_of_a_folder(memory, tmp_path: Path):
    nested = {f"more/{name}" if i % 3 == 0 else name: data for i, (name, data) in enumerate(MUSIC.items())}
    split = "midi_filename,split\n00.mid,test\nmore/01.mid,validation\n"
    folder = folder_of(tmp_path / "music", {**nested, "split.csv": split.encode()})
    with tarfile.open(folder / "packed.tar.gz", "w:gz") as archive:
        (tmp_path / "99.mid").write_bytes(midi_bytes(99))
        archive.add(tmp_path / "99.mid", "99.mid")
    memory.put(str(folder), "/bucket/music", recursive=True)
    built(tmp_path / "one" / "corpus", folder)
    for _ in build_corpus(
        ["memory://bucket/music"], tmp_path / "two" / "corpus", tokenizers.create("score"), Options(workers=0)
    ):
        pass
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert "music/packed.tar.gz/99.mid" in {each["name"] for each in files(tmp_path / "two" / "corpus")}


def test_an_archive_behind_an_address_is_read_as_a_stream(memory, tmp_path: Path):
    with tarfile.open(tmp_path / "music.tar.xz", "w:xz") as archive:
        for name in MUSIC:
            (tmp_path / name).write_bytes(MUSIC[name])
            archive.add(tmp_path / name, name)
    memory.put(str(tmp_path / "music.tar.xz"), "/bucket/music.tar.xz")
    built(tmp_path / "one" / "corpus", tmp_path / "music.tar.xz")
    address = "memory://bucket/music.tar.xz"
    for _ in build_corpus([address], tmp_path / "two" / "corpus", tokenizers.create("score"), Options(workers=0)):
        pass
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("address", "problem"),
    [("nowhere://bucket", "cannot be opened"), ("memory://bucket/missing", "no folder or file")],
)
def test_an_address_without_music_is_said(address: str, problem: str, memory, tmp_path: Path):
    with pytest.raises(CorpusError, match=problem):
        for _ in build_corpus([address], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0)):
            pass
    assert not building.work_folder(tmp_path / "corpus").exists()


def test_what_an_address_is(tmp_path: Path):
    assert is_address("s3://bucket/folder")
    assert not is_address("folder")
    assert not is_address(tmp_path)
