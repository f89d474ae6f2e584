"""Corpora built by a Dask cluster, and from addresses: the bytes of a build on one machine, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from musiclm import tokenizers
from musiclm.data import Options, build_corpus, files, remote, sources, workers
from musiclm.data import build as building
from musiclm.data import cluster as reading
from musiclm.data.parse import Record
from musiclm.data.remote import is_address
from musiclm.data.sources import Found
from musiclm.errors import CorpusError, Drop, Reason
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
    killed: list[str] = []
    with distributed.Client(cluster) as client:
        pids = client.run(os.getpid)

        def kill_a_worker_with_a_task() -> None:
            until = time.monotonic() + 60
            while not killed and time.monotonic() < until:
                killed.extend(address for address, tasks in client.processing().items() if tasks)
                time.sleep(0.02)
            os.kill(pids[killed[0]], signal.SIGKILL)

        killer = threading.Thread(target=kill_a_worker_with_a_task)
        killer.start()
        options = Options(dask=cluster.scheduler_address)
        for _ in build_corpus([folder], tmp_path / "two" / "corpus", tokenizers.create("score"), options):
            pass
        killer.join()
    assert killed
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_the_readers_of_a_build_end_with_it(cluster, tmp_path: Path):
    folder_of(tmp_path / "music", MUSIC)
    with distributed.Client(cluster) as client:
        client.run(os.chdir, "/")  # workers are in other folders than the one who calls
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            document = built(tmp_path / "corpus", Path("music"), dask=cluster.scheduler_address)
        finally:
            os.chdir(before)
        assert document["kept"] == 30
        assert set(client.run(num_pools).values()) == {0}
        assert all(client.run(is_daemon).values())


def num_pools() -> int:
    from musiclm.data import cluster as reading

    return len(reading._pools)


def is_daemon() -> bool:
    import multiprocessing

    return multiprocessing.current_process().daemon


@pytest.mark.slow
def test_a_cluster_that_is_lost_is_said_in_a_line(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the workers gone the build waited without end and without a word."""
    monkeypatch.setattr(reading, "START_SECONDS", 4.0)
    monkeypatch.setattr(reading, "COUNT_SECONDS", 0.5)
    reader = reading.ClusterReader(cluster.scheduler_address, tokenizers.create("score"), {}, 60.0)
    try:
        cluster.scale(0)
        while reader._client.ncores():
            time.sleep(0.1)
        with pytest.raises(CorpusError, match="no worker for 4 s"):
            for i in range(40):
                for _ in reader.take(Found(0, f"{i}.mid", 0, "", data=midi_bytes(i))):
                    pass
            for _ in reader.finish():
                pass
        cluster.scheduler.close()
        with pytest.raises(CorpusError, match="The same command continues"):
            reader._counted = 0.0
            for _ in reader.finish():
                pass
    finally:
        reader.close()


def test_a_file_that_cannot_be_read_is_not_read_again(tmp_path: Path):
    """Errors of a file system are for the next build; a reader that was busy or died may do better a moment later."""
    assert set(reading.READ_AGAIN) == {reason for reason in Reason if reason.is_transient} - {Reason.UNREADABLE}


def test_a_reader_that_fails_is_not_used_again(monkeypatch: pytest.MonkeyPatch):
    made = []

    class Failing:
        is_free = True

        def __init__(self, *_, **__) -> None:
            made.append(self)
            self.is_closed = False

        def give(self, _) -> None:
            raise MemoryError

        def close(self) -> None:
            self.is_closed = True

    monkeypatch.setattr(reading, "Pool", Failing)
    for _ in range(2):
        with pytest.raises(MemoryError):
            reading.read_here("build", "{}", {}, 1.0, [(None, b"x", "x.mid")])
    assert len(made) == 2 and all(each.is_closed for each in made) and not reading._pools


class Refusing(type(Path())):  # type: ignore[misc]
    """A path whose file system raises what is no OSError, as those of clouds do."""

    def open(self, *_, **__):
        raise RuntimeError("403: the key has expired\nand more")


def test_errors_of_any_kind_are_the_reason_of_a_file(tmp_path: Path):
    path = Refusing(tmp_path / "a.mid")
    expected = Record(Drop(Reason.UNREADABLE, "403: the key has expired"))
    assert workers.read(path, None, "a.mid", None) == expected
    missing = workers.read(tmp_path / "missing.mid", None, "missing.mid", None)
    assert missing == Record(Drop(Reason.UNREADABLE, "No such file or directory"))
    (tmp_path / "large.mid").write_bytes(bytes(sources.MAX_BYTES + 1))
    assert workers.read(tmp_path / "large.mid", None, "large.mid", None) == Record(sources.too_large())


def test_a_listing_that_fails_is_a_problem_of_its_folder(memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.mid", "more/b.mid", "rest/c.mid"):
        memory.pipe(f"/bucket/{name}", MUSIC["01.mid"])
    whole = type(memory).ls
    asked = []

    def ls(self, path, detail=True, **how):
        asked.append(path.rstrip("/"))
        if path.rstrip("/").endswith("more"):
            raise RuntimeError("403")
        found = whole(self, path, detail=True, **how)
        return [{**info, "size": None} if info["type"] == "file" else info for info in found]

    monkeypatch.setattr(type(memory), "ls", ls)
    events = remote.walk([remote.opened("memory://bucket")], lambda *_: False)
    first = next(events)
    assert first.name == "a.mid" and not any(path.endswith("more") for path in asked)  # folder by folder
    assert first.identity.startswith(f"{len(MUSIC['01.mid'])}:")  # the listing had no size
    problem, last = events
    assert "more' cannot be read: 403" in problem.text and last.name == "rest/c.mid"


def test_an_address_that_fails_is_said(memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    memory.pipe("/bucket/a.mid", b"x")
    path = remote.opened("memory://bucket/a.mid")

    def fails(*_, **__):
        raise RuntimeError("403")

    monkeypatch.setattr(type(path), "stat", fails)
    with pytest.raises(CorpusError, match=r"a\.mid' cannot be reached: 403"):
        for _ in build_corpus(
            ["memory://bucket/a.mid"], tmp_path / "corpus", tokenizers.create("score"), Options(workers=0)
        ):
            pass
    with pytest.raises(CorpusError, match="s3fs"):
        remote.opened("s3://bucket")


@pytest.mark.parametrize("address", ["memory://bucket/music", "memory://bucket/music/", "memory://bucket/music//"])
def test_names_begin_with_the_folder_of_an_address(address: str, memory):
    memory.pipe("/bucket/music/a.mid", MUSIC["01.mid"])
    assert [event.name for event in remote.walk([remote.opened(address)], lambda *_: False)] == ["a.mid"]


def test_addresses_are_told_by_their_protocol(tmp_path: Path):
    assert remote.is_remote(remote.opened(f"file://{tmp_path}"))  # a Path in some versions of universal_pathlib
    assert not remote.is_remote(tmp_path)


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
