"""Models of the user's own: installed whole or not at all, found by name after the bundled ones, removed again."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from musiclm import checkpoint, tokenizers
from musiclm.checkpoint import install as installing
from musiclm.errors import CheckpointError, OutputError
from tests.conftest import tiny

GRID = tokenizers.create("grid")


def saved(path: Path, *, arch: str = "gru", licence: str = "CC0", nats: float | None = 1.0) -> Path:
    """Write a small checkpoint."""
    model = tiny(arch, GRID.vocab_size, **GRID.model_config)
    figures = {} if nats is None else {"validation_nats_per_token": nats}
    card = {"data": "nothing", "licence": licence, "figures": figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, model, arch=arch, tokenizer=GRID, card=card)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    """The user's folder of models, not yet made."""
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "mine"))
    return tmp_path / "mine"


@pytest.fixture
def served(tmp_path: Path, monkeypatch) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server of this process gives what is in it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to-ftp"):
                self.send_response(302)
                self.send_header("Location", "ftp://localhost/a")
                self.end_headers()
            elif self.path.startswith("/short"):  # promises more than comes
                data = (root / "whole.safetensors").read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
            else:
                super().do_GET()

        def log_message(self, *_arguments):
            pass

    root = tmp_path / "served"
    root.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def install(given: object, **how) -> checkpoint.Checkpoint:
    with installing.opened(str(given)) as source:
        return installing.install(source, source.blocks, **how)


def is_empty(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())


def test_what_was_installed_is_found_by_its_name_and_by_its_set(tmp_path, folder):
    file = saved(tmp_path / "piano-gru.safetensors", nats=1.2)
    assert install(file).path == folder / "piano-gru.safetensors"
    install(saved(tmp_path / "b" / "piano.safetensors", arch="lstm", nats=1.1))
    install(saved(tmp_path / "c" / "piano.safetensors", arch="rnn", nats=None))
    assert checkpoint.installed() == ["piano-gru", "piano-lstm", "piano-rnn"]
    assert checkpoint.find("piano-gru") == (folder / "piano-gru.safetensors", "piano-gru")
    assert checkpoint.load("piano").name == "piano-lstm"
    assert (folder / "piano-gru.safetensors").read_bytes() == file.read_bytes()
    with pytest.raises(CheckpointError, match="piano-gru"):
        checkpoint.find("pianos")
    assert installing.remove("piano-lstm") == folder / "piano-lstm.safetensors"
    assert checkpoint.load("piano").name == "piano-gru"


def test_a_bundled_set_is_not_changed_by_an_installed_model_of_that_set(tmp_path):
    before = checkpoint.find("bach")
    install(saved(tmp_path / "x.safetensors", arch="rnn", nats=0.0), name="bach")
    assert checkpoint.installed() == ["bach-rnn"]
    assert checkpoint.find("bach") == before
    assert checkpoint.find("bach-rnn")[1] == "bach-rnn"


def test_a_bundled_name_is_refused_and_stays(tmp_path, folder):
    file = saved(tmp_path / "bach-gru.safetensors")
    for how in ({}, {"name": "bach"}, {"name": "bach-gru", "force": True}):
        with pytest.raises(CheckpointError, match="comes with musiclm"):
            install(file, **how)
    with pytest.raises(CheckpointError, match="stays"):
        installing.remove("bach-gru")
    assert is_empty(folder)


def test_nothing_is_replaced_without_force(tmp_path, folder):
    install(saved(tmp_path / "a.safetensors"))
    before = (folder / "a-gru.safetensors").read_bytes()
    other = saved(tmp_path / "other" / "a.safetensors", licence="MIT")
    with pytest.raises(OutputError, match="--force"):
        install(other)
    assert (folder / "a-gru.safetensors").read_bytes() == before
    assert install(other, force=True).card["licence"] == "MIT"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "Ä", "A", "a b", "a\nb", "-a", "x" * 80, "a\\b"])
def test_a_name_that_is_no_safe_file_name_is_refused(tmp_path, folder, name: str):
    with pytest.raises(CheckpointError, match="choose another with --name") as caught:
        install(saved(tmp_path / "a.safetensors"), name=name)
    assert str(caught.value).count("\n") == name.count("\n")
    assert is_empty(folder)


def test_what_is_no_whole_checkpoint_is_refused_and_leaves_nothing(tmp_path, folder):
    data = saved(tmp_path / "a.safetensors").read_bytes()
    changed = bytearray(data)
    changed[-5] ^= 1
    for i, content in enumerate(
        (b"", b"{", data[:-1], data[: len(data) // 2], data + b"0", bytes(changed), b"<html>" * 9)
    ):
        (tmp_path / f"{i}.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            install(tmp_path / f"{i}.safetensors")
        assert "\n" not in str(caught.value)
        assert f"{i}.safetensors" in str(caught.value)
    assert is_empty(folder)


def test_the_bundled_classifier_is_no_model_to_install():
    with pytest.raises(CheckpointError, match="is not a language model"):
        install(checkpoint.bundled_path("instruments"))


def test_from_a_server_and_from_a_file_address_comes_the_same(tmp_path, folder, served):
    root, address = served
    file = saved(root / "piano-gru.safetensors")
    found = install(f"{address}/piano-gru.safetensors?download=true")
    assert found.name == "piano-gru"
    assert found.path.read_bytes() == file.read_bytes()
    assert install(file.as_uri(), name="again").path.read_bytes() == file.read_bytes()


def test_a_server_that_has_it_not_or_breaks_off_or_sends_a_page_is_one_line(folder, served):
    root, address = served
    saved(root / "whole.safetensors")
    (root / "page.safetensors").write_text("<!DOCTYPE html>" + 1000 * " ")
    for path, told in (
        ("nowhere", "404"),
        ("page.safetensors", "no header"),
        ("short.safetensors", "cut off|to its end"),
        ("to-ftp", "ftp"),
    ):
        with pytest.raises(CheckpointError, match=told) as caught:
            install(f"{address}/{path}")
        assert "\n" not in str(caught.value)
    for wrong in ("http://127.0.0.1:1/a", "http://", "https://no such host/a", "ftp://127.0.0.1/a", "http://[::1/a"):
        with pytest.raises(CheckpointError, match="cannot be fetched"):
            install(wrong)
    assert is_empty(folder)


def test_what_is_too_large_is_refused_before_it_has_come(folder, served, monkeypatch):
    root, address = served
    saved(root / "a.safetensors")
    monkeypatch.setattr(installing, "MAX_BYTES", 5000)
    for given in (f"{address}/a.safetensors", root / "a.safetensors"):
        with pytest.raises(CheckpointError, match="more than"):
            install(given)
    assert is_empty(folder)


def test_a_server_that_falls_silent_is_given_up(folder, monkeypatch):
    import socket

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(installing, "TIME_OUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(CheckpointError, match=r"no answer in 0\.1 s"):
        install(f"http://127.0.0.1:{silent.getsockname()[1]}/a")
    assert is_empty(folder)


def test_ctrl_c_leaves_no_half_file(tmp_path, folder):
    file = saved(tmp_path / "a.safetensors")

    def interrupted(blocks):
        yield next(blocks)[:100]
        assert len(list(folder.iterdir())) == 1  # on its way, under another name
        assert checkpoint.installed() == []
        raise KeyboardInterrupt

    with installing.opened(str(file)) as source, pytest.raises(KeyboardInterrupt):
        installing.install(source, interrupted(source.blocks))
    assert is_empty(folder)


def test_the_command_installs_tells_the_licence_lists_and_removes(run, tmp_path, folder):
    file = saved(tmp_path / "piano.safetensors", licence="CC BY-NC-SA 4.0 (data: MAESTRO)")
    code, out, err = run("models", "install", file, "-q")
    assert code == 0, err
    assert out.strip() == str(folder / "piano-gru.safetensors")
    assert "CC BY-NC-SA 4.0" in err
    assert "not for commercial use" in err
    code, out, _ = run("models", "--json")
    listed = {m["name"]: m for m in json.loads(out)}
    assert listed["piano-gru"]["installed"]
    assert not listed["bach-gru"]["installed"]
    code, out, _ = run("models")
    assert "not for commercial use. Installed by you" in " ".join(out.split())
    assert max(len(line) for line in out.splitlines()) <= 80
    assert (
        run("evaluate", "piano", "--split", "validation")[0] == 1
    )  # it says that it needs data, not that there is none
    code, _, err = run("models", "install", file)
    assert code == 1
    assert err.startswith("Error: ") and err.count("\n") == 1
    code, out, err = run("models", "remove", "piano-gru")
    assert code == 0
    assert run("models", "remove", "piano-gru")[0] == 1
    assert json.loads(run("models", "install", file, "--json")[1])["name"] == "piano-gru"
    assert run("models", "--json", "remove", "piano-gru")[0] == 2


def test_a_damaged_file_among_the_installed_is_said_and_can_be_removed(run, tmp_path, folder):
    install(saved(tmp_path / "a.safetensors"))
    (folder / "b-gru.safetensors").write_bytes(b"no")
    code, out, err = run("models", "--json")
    assert code == 0
    assert "a-gru" in {m["name"] for m in json.loads(out)}
    assert "remove b-gru" in err
    assert run("models", "remove", "b-gru")[0] == 0


def test_a_run_folder_is_installed_by_the_folders_name(run, tmp_path, song_file):
    assert run("train", song_file, "--arch", "gru", "--preset", "tiny", "--steps", 1, "-o", "folk", "-q")[0] == 0
    assert install(tmp_path / "folk").name == "folk-gru"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint in the folder"):
        install(tmp_path / "empty")


def test_what_a_card_says_moves_no_cursor(run, tmp_path):
    install(saved(tmp_path / "a.safetensors", licence="\x1b[2Jfree [bold]of[/bold]"))
    out = run("models")[1]
    assert "\x1b[2J" not in out
    assert "[2Jfree [bold]of[/bold]" in " ".join(out.split())


@pytest.mark.skipif(not hasattr(__import__("os"), "geteuid"), reason="needs POSIX")
def test_a_folder_that_cannot_be_made_is_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MUSICLM_MODELS", str(tmp_path / "file" / "models"))
    code, _, err = run("models", "install", saved(tmp_path / "a.safetensors"))
    assert code == 1
    assert err.startswith("Error: ") and "MUSICLM_MODELS" in err
