"""Checkpoints: what was saved comes back; what is damaged, foreign or hostile is refused in one line."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musiclm import checkpoint, models, tokenizers
from musiclm.errors import CheckpointError
from tests.conftest import tiny

GRID = tokenizers.create("grid")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    model = tiny("gru", GRID.vocab_size, **GRID.model_config)
    checkpoint.save(path, model, arch="gru", tokenizer=GRID, card={"data": "none"})
    return path


@pytest.mark.parametrize(
    ("arch", "name"), [*((arch, "grid") for arch in models.names()), *(("gru", name) for name in tokenizers.NAMES)]
)
def test_a_model_comes_back_with_its_tokenizer(arch: str, name: str, tmp_path: Path, song):
    tokenizer = tokenizers.create(name)
    model = tiny(arch, tokenizer.vocab_size, **tokenizer.model_config)
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model, arch=arch, tokenizer=tokenizer, card={"data": "none"})
    loaded = checkpoint.load(str(path))
    assert loaded.num_parameters == model.num_parameters
    again = loaded.model()
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
    assert (loaded.tokenizer().encode(song)[0] == tokenizer.encode(song)[0]).all()


def test_half_precision_is_read_as_float32(tmp_path: Path):
    model = tiny("gru", GRID.vocab_size, **GRID.model_config)
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model, arch="gru", tokenizer=GRID, card={}, dtype=torch.float16)
    again = checkpoint.load(str(path)).model()
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].dtype == torch.float32
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=2e-3, rtol=2e-3)


def test_a_checkpoint_cut_anywhere_is_refused(file: Path):
    data = file.read_bytes()
    for stop in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        file.write_bytes(data[:stop])
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(str(file)).model()
        assert "\n" not in str(caught.value)


def test_a_changed_weight_is_found(file: Path):
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="not those that were saved"):
        checkpoint.load(str(file)).model()


def rewritten(file: Path, change) -> None:
    """Change the stored description of a model and keep its weights."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    stored = json.loads(header["__metadata__"]["checkpoint"])
    change(stored)
    header["__metadata__"]["checkpoint"] = json.dumps(stored)
    new = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["config"].update(size=1024),
        lambda s: s["config"].update(size=10**12),
        lambda s: s["config"].update(num_layers=10**9),
        lambda s: s["config"].update(num_layers=1),
        lambda s: s["config"].update(size="large"),
        lambda s: s["config"].update(nonsense=1),
        lambda s: s.update(arch="lstm"),
        lambda s: s.update(arch="os"),
        lambda s: s.update(arch="../../etc"),
        lambda s: s.pop("config"),
        lambda s: s.update(tokenizer="grid"),
        lambda s: s.update(tokenizer={"name": "score", "config": {"num_velocities": 10**9}}),
        lambda s: s.update(tokenizer={"name": "score", "config": {"beat_res": {"0_1000000000": 12}}}),
    ],
)
def test_a_lying_description_costs_no_memory_and_no_time(file: Path, change):
    rewritten(file, change)
    with pytest.raises(CheckpointError):
        checkpoint.load(str(file)).model()


def test_an_unknown_tokenizer_in_a_checkpoint_is_a_clear_error(file: Path):
    from musiclm.errors import MusicLMError

    rewritten(file, lambda s: s.update(tokenizer={"name": "morse"}))
    with pytest.raises(MusicLMError, match="morse"):
        checkpoint.load(str(file)).tokenizer()


def test_a_header_that_claims_gigabytes_is_refused_before_it_is_read(file: Path):
    file.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(CheckpointError, match="no header"):
        checkpoint.load(str(file))


def test_another_projects_safetensors_and_a_text_are_refused(tmp_path: Path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of musiclm"):
        checkpoint.load(str(path))
    path.write_text("I am a text, and longer than eight bytes")
    with pytest.raises(CheckpointError, match="no checkpoint of musiclm"):
        checkpoint.load(str(path))


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(CheckpointError, match="neither a file"):
        checkpoint.load("nope")
    with pytest.raises(CheckpointError, match="not a run"):
        checkpoint.load(str(tmp_path))


def test_a_checkpoint_of_other_features_is_refused_with_one_line(tmp_path: Path):
    """A tokenizer that gives fourteen features to a model of seven ended in a traceback from within the network."""
    path = tmp_path / "m.safetensors"
    model = tiny("gru", GRID.vocab_size, feature_sizes=(4, 4))
    checkpoint.save(path, model, arch="gru", tokenizer=GRID, card={})
    with pytest.raises(CheckpointError, match="another version"):
        checkpoint.load(str(path)).model()


def test_a_set_alone_is_its_model_of_fewest_nats():
    nats = {
        n: checkpoint.load(n).card["figures"]["validation_nats_per_token"] for n in ("bach-transformer", "bach-lstm")
    }
    assert nats["bach-transformer"] < nats["bach-lstm"]
    assert checkpoint.find("bach")[1] == "bach-transformer"
    assert checkpoint.find("score")[1] == "score-transformer"


def header_only(header: object, tensors: bytes = b"") -> bytes:
    data = json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + tensors


OURS = {"format": "musiclm", "sha256": ""}
FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no header"),
        (struct.pack("<Q", 3) + b"{a}", "not JSON"),
        (struct.pack("<Q", 5) + b"[[[[[", "not JSON"),
        (header_only({"__metadata__": {"format": 1}}), "not JSON"),
        (header_only({"__metadata__": OURS, "a": FLOATS}, bytes(7)), "cut off"),
        (header_only({"__metadata__": OURS, "a": FLOATS}, bytes(9)), "longer than its header says"),
        (header_only({"__metadata__": OURS, "a": {**FLOATS, "shape": [3]}}, bytes(8)), "damaged"),
        (header_only({"__metadata__": OURS, "a": {**FLOATS, "data_offsets": [8, 0]}}, bytes(8)), "damaged"),
        (header_only({"__metadata__": OURS, "a": {**FLOATS, "shape": [2**62, 4]}}, bytes(8)), "damaged"),
        (header_only({"a": FLOATS}, bytes(8)), "train one"),
        (header_only({"__metadata__": OURS, "a": FLOATS}, bytes(8)), "is not a language model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_header_is_said_in_one_line(tmp_path: Path, data: bytes, said: str):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said) as caught:
        checkpoint.read(path, "m")
    assert "\n" not in str(caught.value) and "'m'" in str(caught.value)


def test_a_folder_and_a_missing_file_are_said_in_one_line(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.read_header(path)


def test_models_are_listed_without_torch():
    code = (
        "import sys\nfrom musiclm.cli import main\nimport contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):\n"
        "    main(['models', '--json'])\n"
        "assert 'bach-gru' in out.getvalue()\nprint('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_recipe_writes_what_a_checkpoint_recommends_and_leaves_the_weights(untrained, tmp_path: Path):
    before = checkpoint.load(untrained("grid"))
    path = tmp_path / "mine.safetensors"
    path.write_bytes(before.path.read_bytes())
    found = {"samples": {"mean": 0.25, "standard_error": 0.125}, "reference": {"mean": 0.5, "standard_error": None}}
    report = {
        "measures": {"crossed": {"unit": "share", **found}},
        "by_rule": {"samples": {"decent": 3, "num_pieces": 4}, "reference": {"decent": 2, "num_pieces": 2}},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    recipe = [sys.executable, str(Path(__file__).parents[1] / "recipes" / "recommend.py"), str(path)]
    music = ["--music", str(tmp_path / "report.json"), "--command", "measure it"]
    subprocess.run([*recipe, '{"temperature": 0.5, "voice_leading": 2.0}', *music], check=True, capture_output=True)
    after = checkpoint.load(str(path))
    assert after.sampling == {"temperature": 0.5, "voice_leading": 2.0}
    assert after.sha256 == before.sha256 and after.model().state_dict().keys() == before.model().state_dict().keys()
    page = path.with_suffix(".md").read_text()
    assert "| voices crossed (share) | 0.250 ± 0.125 | 0.500 |" in page and "| no fault by rule | 0.75 | 1.00 |" in page
    for wrong in ('{"temprature": 0.5}', '{"key": "H major"}'):
        assert subprocess.run([*recipe, wrong], capture_output=True, check=False).returncode != 0
    assert checkpoint.load(str(path)).sampling == after.sampling
