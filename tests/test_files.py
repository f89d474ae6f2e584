"""Atomic writes and locks between processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from musiclm.data.progress import BuildState
from musiclm.errors import CorpusError, OutputError
from musiclm.files import lock, write_whole, written_whole

HOLD = "import sys, time; from musiclm.files import lock; from pathlib import Path; kept = lock(Path(sys.argv[1])); "
HOLD += "print(kept is not None, flush=True); time.sleep(600)"


def test_a_lock_is_refused_while_it_is_held_and_free_when_its_process_is_killed(tmp_path: Path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert lock(tmp_path / "lock") is None
    with pytest.raises(CorpusError, match="another process builds in"):
        BuildState(tmp_path, {})
    holder.kill()  # SIGKILL: nothing of Python's runs any more
    holder.wait()
    holder.stdout.close()
    mine = lock(tmp_path / "lock")
    assert mine is not None
    assert lock(tmp_path / "lock") is None
    mine.release()
    again = lock(tmp_path / "lock")
    assert again is not None
    again.release()


@pytest.mark.skipif(os.name == "nt", reason="no umask")
def test_a_written_file_has_the_mode_of_the_umask_which_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The umask belongs to the process: it was set to 0 to read it, and files of other threads were made with that."""
    before, calls = os.umask(0o027), []
    set_umask = os.umask
    try:
        monkeypatch.setattr(os, "umask", lambda mask: calls.append(mask) or set_umask(mask))
        write_whole(tmp_path / "a.bin", b"data")
        assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640
        assert not calls
    finally:
        set_umask(before)


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    with pytest.raises(KeyError), written_whole(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"old"
    with pytest.raises(OutputError, match="cannot be written: No space left"), written_whole(path):
        raise OSError(28, "No space left on device")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_threads_that_write_one_file_each_leave_a_whole_one(tmp_path: Path):
    path = tmp_path / "a.bin"

    def write(letter: bytes) -> None:
        for _ in range(30):
            write_whole(path, letter * 50_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = path.read_bytes()
    assert len(data) == 50_000 and len(set(data)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="devices")
def test_a_device_is_written_to_and_stays_one():
    write_whole(Path(os.devnull), b"data")
    assert not Path(os.devnull).is_file()
