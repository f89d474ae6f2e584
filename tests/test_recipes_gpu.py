"""The recipe for a GPU that is lent for minutes: the packed corpus, the parts of a run, and the benchmark's dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from musiclm.data import store
from musiclm.evaluation.loss import sample_pieces
from musiclm.training.setup import MAX_VALIDATION_TOKENS
from tests.data_files import built, folder_of, midi_bytes

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "recipes"))

import pack_corpus  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 short pieces in two folders."""
    folder = tmp_path_factory.mktemp("music")
    music = {f"{'rare' if i % 3 == 0 else 'common'}/{i}.mid": midi_bytes(i, num_bars=4) for i in range(24)}
    built(folder / "corpus", folder_of(folder / "midi", music))
    return folder / "corpus"


def unpacked(archive: Path, folder: Path) -> store.Corpus:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return store.open_store(folder)


def test_a_packed_corpus_has_the_best_weighted_pieces_that_fit(corpus: Path, tmp_path: Path):
    whole = store.open_store(corpus)
    names = {piece.name for piece in whole.pieces("train")}
    rare = {name for name in names if "/rare/" in name}
    everything = pack_corpus.pack(corpus, tmp_path / "all.tar.xz", 10**9, {})
    assert f"{len(names)} of {len(names)} training pieces" in everything
    pack_corpus.pack(corpus, tmp_path / "rare.tar.xz", 10**9, {"common": 0})
    limit = sum((tmp_path / name).stat().st_size for name in ("all.tar.xz", "rare.tar.xz")) // 2
    said = pack_corpus.pack(corpus, tmp_path / "some.tar.xz", limit, {"rare": 3})
    assert (tmp_path / "some.tar.xz").stat().st_size <= limit
    packed = unpacked(tmp_path / "some.tar.xz", tmp_path / "some")
    kept = {piece.name for piece in packed.pieces("train")}
    assert rare < kept < names
    by_name = {piece.name: piece for piece in whole.pieces("train")}
    for piece in packed.pieces("train"):
        assert piece.tokens.tolist() == by_name[piece.name].tokens.tolist()
        assert piece.pitches == by_name[piece.name].pitches
    validated = {p.name for p in sample_pieces(whole.pieces("validation"), MAX_VALIDATION_TOKENS)}
    assert {p.name for p in packed.pieces("validation")} == validated
    assert len(packed.pieces("test")) == 0
    assert packed.notes[-1] in said and f"{len(kept)} of {len(names)} training pieces" in said
    document = store.describe(tmp_path / "some")
    assert (
        document["found"] == document["kept"] == len(kept) + len(validated) == len(list(store.files(tmp_path / "some")))
    )


def test_what_cannot_fit_is_refused(corpus: Path, tmp_path: Path):
    with pytest.raises(SystemExit, match="not even one training piece"):
        pack_corpus.pack(corpus, tmp_path / "none.tar.xz", 100, {})
    assert not (tmp_path / "none.tar.xz").exists()


def part(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one part of the recipe."""
    command = [str(ROOT / "recipes" / "flagship_gpu.sh"), "packed.tar.xz", "parts", "--dry-run"]
    environment = os.environ | {"PYTHON": sys.executable, "PART_BYTES": "300000", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the recipe needs bash and coreutils")
def test_a_run_is_continued_from_the_files_that_a_part_left(corpus: Path, tmp_path: Path):
    """Each call begins with an empty work folder, as on a machine that keeps nothing."""
    pack_corpus.pack(corpus, tmp_path / "packed.tar.xz", 10**9, {})
    for number in (1, 2):
        done = part(tmp_path)
        assert done.returncode == 0, done.stderr
        assert "done: the budget is used" in done.stdout
        files = {path.name: path for path in (tmp_path / "parts").iterdir()}
        assert {"SHA256SUMS", "run.json.000", "resume.safetensors.000", "resume.safetensors.001"} <= files.keys()
        assert max(path.stat().st_size for path in files.values()) <= 300_000
        assert json.loads(files["metrics.jsonl.000"].read_text().splitlines()[-1])["step"] == 2 * number
        subprocess.run(["rm", "-r", str(tmp_path / "work")], check=True)
    before = {name: path.read_bytes() for name, path in files.items()}
    damaged = bytearray(before["resume.safetensors.001"])
    damaged[7] ^= 1
    files["resume.safetensors.001"].write_bytes(damaged)
    refused = part(tmp_path)
    assert refused.returncode == 1
    assert "the files in 'parts' are damaged" in refused.stderr
    assert files["resume.safetensors.000"].read_bytes() == before["resume.safetensors.000"]


def test_a_wrong_call_is_told_how_it_is_used(tmp_path: Path):
    recipe = str(ROOT / "recipes" / "flagship_gpu.sh")
    for arguments in ([], ["corpus.tar.xz"], ["corpus.tar.xz", "parts", "--quick"]):
        done = subprocess.run([recipe, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_benchmark_runs_dry_and_counts_floating_point_operations(tmp_path: Path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--dry-run", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["dry_run"] is True
    rows = {(row["size"], row["arch"]): row for row in found["training"]}
    assert len(rows) == 4
    for row in rows.values():
        assert row["fraction_of_matmul_peak"] == pytest.approx(
            row["tokens_per_second"] * row["flops_per_token"] / row["matmul_flops_per_second"]
        )
    # transformer, D = 32, one layer: 12 D^2 weights in its layers and 713 D in the head; three products of 64 / 2 pairs each
    assert rows["20M", "transformer"]["flops_per_token"] == 6 * (12 * 32**2 + 713 * 32) + 9 * 32 * 64
    assert [row["batch_size"] for row in found["decoding"]] == [1, 2]
    assert all(error < 1e-5 for error in found["agreement"]["float32"].values())
    assert all(error < 0.05 for error in found["agreement"]["bfloat16"].values())
