"""The lecture: its command lines, its pictures, its files, and its notebook."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image

from tests.data_files import benchmark
from tests.test_readme import commands, parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LECTURE = (DOCS / "lecture.md").read_text("utf-8")
NOTEBOOK = DOCS / "lecture.ipynb"
IDEAS = (
    "language model", "autoregressive generation", "vanilla RNN", "BPTT", "truncated BPTT", "vanishing gradients", "LSTM",
    "GRU", "deep RNN", "bidirectional RNN", "many-to-one", "aligned many-to-many", "unaligned many-to-many", "seq2seq",
    "attention", "self-attention", "embeddings", "positional encoding", "Music Transformer", "efficient transformers",
    "ViT", "AST", "CNN kernels", "Swin", "AlexNet",
)  # fmt: skip


def sections() -> dict[str, str]:
    """Return the text of each section of the page, by its heading."""
    parts = re.split(r"^## (.+)$", LECTURE, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("idea", IDEAS)
def test_each_idea_is_in_the_table_and_its_section_has_a_command_or_says_that_it_is_not_built(idea: str):
    (line,) = [line for line in LECTURE.splitlines() if re.match(rf"\| \[[^]]*\b{idea}\b", line) and is_of(line, idea)]
    anchor = re.search(r"\(#(.+?)\)", line)[1]
    (text,) = [text for heading, text in sections().items() if re.sub(r"\W+", "-", heading.lower()) == anchor]
    assert ("```sh" in text and "![" in text) or "not built yet" in text.lower() or "images" in text
    assert re.search(r"\b(19|20)\d\d\b", line), "the year of a paper"


def is_of(line: str, idea: str) -> bool:
    """Return whether a line of the table is about an idea, and not about one whose name contains it."""
    return idea in [name.strip() for name in re.search(r"\[(.+?)\]", line)[1].split(",")]


def test_command_lines_of_the_lecture_exist_with_these_options():
    lines = commands(LECTURE)
    assert len(lines) > 20
    for line in lines:
        parse(line)


def test_scripts_and_code_files_of_the_lecture_are_there():
    for path in re.findall(r"`((?:musiclm|benchmarks|docs|cli)/\S+\.py)\b", LECTURE):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"^python (\S+)", LECTURE, re.M):
        assert (ROOT / path).exists(), path


def test_pictures_of_the_lecture_are_there_and_small():
    shown = set(re.findall(r"!\[[^]]+\]\((pictures/.+?)\)", LECTURE))
    assert shown == {str(p.relative_to(DOCS)) for p in (DOCS / "pictures").glob("*.png")}
    for name in shown:
        assert (DOCS / name).stat().st_size <= 60_000, name
        made = Path(name).name
        folders = {"kernels.png": "kernels", "saliency.png": "cnn", "memory.png": "lengths", "speed.png": "lengths"}
        folders |= {"patches.png": "ast", "rollout.png": "ast"}
        folder = f"runs/{folders.get(made, made)}\n"
        assert f"-o {folder}" in LECTURE, f"no command of the page makes {name}"


def test_a_picture_is_made_of_the_file_that_the_page_names_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two commands write a saliency.png, and one a positions.png beside the one that the page shows."""
    spec = spec_from_file_location("pictures_make", DOCS / "pictures" / "make.py")
    make = module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(make, "ROOT", tmp_path)
    page = "x -o runs/cnn\ny -o runs/positions.png\nz -o runs/ast\n"
    for name in ("ast/saliency.png", "ast/positions.png", "cnn/saliency.png"):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).touch()
    assert make.source_of("saliency.png", page) == tmp_path / "runs/cnn/saliency.png"
    assert make.source_of("positions.png", page) is None
    (tmp_path / "runs/positions.png").touch()
    assert make.source_of("positions.png", page) == tmp_path / "runs/positions.png"
    assert make.source_of("kernels.png", page) is None


@pytest.mark.parametrize(
    ("parts", "width"), [(("gradients",), 687), (("places",), 687), (("gradients", "places"), 1375)]
)
def test_the_plot_of_gradients_has_a_panel_for_each_part(parts: tuple[str, ...], width: int, tmp_path: Path):
    curves = {
        "gradients": {"a": {"arch": "rnn", "distance": [1.0, 2.0], "gradient": [1.0, 0.5]}},
        "places": {"a": {"arch": "absolute", "place": [32.0, 96.0], "nats": [0.5, 0.4]}},
    }
    report = {"context": 64, "gradients": {}, "places": {}} | {part: curves[part] for part in parts}
    benchmark("memory").plot(report, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width == width


def test_the_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )


@pytest.mark.slow
def test_the_notebook_runs():
    missing = [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install '.[test]')")
    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from nbclient import NotebookClient

    class Kernel(AsyncKernelManager):
        """A kernel of this environment, whatever kernels are installed for the user."""

        kernel_spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(DOCS)}}, km=Kernel())
    client.execute()
    printed = "".join(o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")
    assert printed.count("nats/token") == 6
    pictures = sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
    assert pictures == 7
