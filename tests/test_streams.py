"""The standard streams: closed ones, a terminal, a full disk, and encodings that lack characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MUSICLM = [sys.executable, "-m", "musiclm"]


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line of a shell, in which $M is musiclm."""
    script = f'M() {{ {" ".join(MUSICLM)} "$@"; }}; {command}'
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG"))}
    path = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return subprocess.run(["sh", "-c", script], capture_output=True, check=False, env=inherited | path | environment)


needs_shell = pytest.mark.skipif(os.name == "nt", reason="closes file descriptors by a POSIX shell")


@needs_shell
@pytest.mark.parametrize(
    "command",
    ["show -", "render - -o {0}/x.wav", "generate --prompt - -o {0}/x.mid", "surprise -", "repro -", "classify -"],
)
def test_standard_input_that_is_closed_is_one_line(command: str, tmp_path: Path):
    """It was an AttributeError, with a traceback."""
    found = shell(f"M {command.format(tmp_path)} <&-")
    assert found.returncode == 1
    (line,) = found.stderr.decode().splitlines()
    assert line.startswith("Error: ") and "standard input is closed" in line
    assert not list(tmp_path.iterdir())


@needs_shell
def test_a_terminal_as_standard_input_is_one_line():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    found = subprocess.run([*MUSICLM, "show", "-"], stdin=theirs, capture_output=True, check=False, timeout=60)
    os.close(theirs)
    os.close(ours)
    assert found.returncode == 1
    assert b"standard input is a terminal" in found.stderr and found.stderr.count(b"\n") == 1


@needs_shell
def test_closed_outputs_are_no_traceback(song_file: Path, tmp_path: Path):
    for command in (f"show {song_file}", f"statistics {song_file}", f"show {song_file} -o {tmp_path}/a.png"):
        silent = shell(f"M {command} >&-")
        assert (silent.returncode, silent.stdout) == (0, b"")
        assert b"Traceback" not in silent.stderr
        if "-o" not in command:
            assert shell(f"M {command} 2>&-").returncode == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    lost = shell(f"M render {song_file} -o - >&-")  # what cannot be delivered is an error
    assert lost.returncode == 1 and b"standard output is closed" in lost.stderr and lost.stderr.count(b"\n") == 1
    assert shell("M show nothing.mid 2>&-").returncode == 1


@needs_shell
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(song_file: Path):
    full = shell(f"M show {song_file} -q > /dev/full")
    assert full.returncode == 1 and full.stderr.count(b"\n") == 1 and b"No space left" in full.stderr


@needs_shell
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["cp1252", "ascii", "strict", "C"],
)
def test_characters_that_an_encoding_lacks_are_replaced(song_file: Path, environment: dict[str, str]):
    """It was a UnicodeEncodeError: on Windows with every redirection to a file."""
    roll = shell(f"M show {song_file}", **environment)
    assert roll.returncode == 0, roll.stderr.decode(errors="replace")
    lines = roll.stdout.decode("cp1252").splitlines()
    in_unicode = shell(f"M show {song_file}", PYTHONIOENCODING="utf-8").stdout.decode("utf-8").splitlines()
    assert [len(line) for line in lines] == [len(line) for line in in_unicode]
    told = "\n".join(lines)
    assert "?" not in told
    assert all(character in told for character in '"_|o') and "C4" in told
    for command in (f"statistics {song_file}", "models", "show n\u00f6.mid"):
        other = shell(f"M {command}", **environment)
        assert other.returncode == (1 if "show" in command else 0)
        assert b"Traceback" not in other.stderr
    document = shell(f"M statistics {song_file} --json", **environment)
    assert document.returncode == 0 and json.loads(document.stdout.decode("ascii"))


@needs_shell
def test_a_file_name_that_is_not_utf8_is_printed_as_it_is(song_file: Path, tmp_path: Path):
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    try:
        name.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = shell(f"M show {song_file} --force -o '{name}'", PYTHONIOENCODING="utf-8")
    assert (found.returncode, found.stdout) == (0, os.fsencode(name) + b"\n")
