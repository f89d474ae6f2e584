"""The shape of the house: who may import whom, what is packaged, how fast help answers."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if sys.version_info >= (3, 11):
    import tomllib

# a module may import those of lower levels, and of its own package
LEVELS = [
    {"errors"},
    {"files", "devices", "controls"},
    {"plan", "request", "scalars"},
    {"tokens", "models", "scores", "checkpoint"},
    {"corpus", "data", "sampling", "instruments", "ngram", "statistics", "installing", "cards"},
    {"grammar", "training", "evaluation", "repetition", "prompt", "endings", "rendering"},
    {"drawing", "choosing", "preparing"},
    {"run"},
    {"streaming"},
    {"composer", "pictures"},
    {"infilling"},
    {"provenance"},
    {"comparison"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if relative.parts[0] == "cli" else relative.parts[1].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the rooms of musiclm that a file imports, inside functions too."""
    package = (
        ["musiclm", *path.relative_to(ROOT).parts[:-1]] if room(path) == "cli" else [*path.relative_to(ROOT).parts[:-1]]
    )
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("musiclm.")}
    return {name for name in found if name in LEVEL}


FILES = sorted([*ROOT.glob("musiclm/**/*.py"), *ROOT.glob("cli/*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    own = room(path)
    assert own in LEVEL, f"{own} has no level: name it in LEVELS"
    for name in imported(path) - {own}:
        lower = LEVEL[name] < LEVEL[own] or {own, name} <= {"scores", "tokens", "checkpoint", "models"}
        assert lower or name == "__init__", f"{path.name} may not import {name}"


def test_tokens_and_models_do_not_know_each_other():
    for own, other in (("tokens", "models"), ("models", "tokens")):
        for path in (ROOT / "musiclm" / own).glob("*.py"):
            assert other not in imported(path)


def test_click_and_rich_live_in_cli_only():
    for path in ROOT.glob("musiclm/**/*.py"):
        text = path.read_text("utf-8")
        assert "import click" not in text
        assert "rich" not in {
            w for line in text.splitlines() if "import" in line for w in line.replace(".", " ").split()
        }
        assert "print(" not in text, path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_package_folder_is_in_the_list_that_the_wheel_is_made_from():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("musiclm/**/__init__.py")}
    assert set(settings["packages"]) == folders | {"musiclm.cli", "musiclm.checkpoints"}


def seconds(*command: str) -> float:
    """Return the best of five runs: the machine may be busy with others."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False, cwd=ROOT.parent)
        best = min(best, time.perf_counter() - began)
    return best


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["generate", "--prompt", "nowhere.mid"]], ids=str
)
def test_help_and_a_wrong_file_name_answer_in_under_a_third_of_a_second(arguments: list[str]):
    assert seconds(sys.executable, "-m", "musiclm", *arguments) < 0.3


def test_importing_the_package_imports_neither_torch_nor_click():
    code = "import sys, musiclm; print([m for m in ('torch', 'click', 'miditok', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert found.stdout.strip() == "[]"
    assert not found.stderr


def test_public_names_are_there():
    import musiclm

    for name in musiclm.__all__:
        assert getattr(musiclm, name) is not None
    with pytest.raises(AttributeError):
        _ = musiclm.nonsense
