"""The layout of the package: who may import whom, what is packaged, and what a light import loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if sys.version_info >= (3, 11):
    import tomllib

# a room imports from rooms of lower layers, from `errors`, and from itself
LAYERS = [
    {"errors"},
    {"files", "devices", "processes"},
    {"midi"},
    {"tokenizers", "models"},
    {"checkpoint", "data", "rendering"},
    {"evaluation"},
    {"training", "generation"},
    {"audio", "tagging", "performing"},
    {"plotting", "comparison"},
    {"cli", "studio"},
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
FILES = sorted([*ROOT.glob("musiclm/**/*.py"), *ROOT.glob("cli/*.py")])


def module(path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = ["musiclm", *parts] if parts[0] == "cli" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(name: str) -> str | None:
    """Return the room of a module of musiclm; None for the package itself and for other projects' modules."""
    parts = name.split(".")
    return parts[1] if parts[0] == "musiclm" and len(parts) > 1 and parts[1] in LAYER else None


MODULES = {module(path): path for path in FILES}


@cache
def imports(path: Path) -> list[tuple[str, str, bool]]:
    """Return (module, imported name, whether it is imported when the file is) for each import of musiclm in a file."""
    own = module(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    found = []
    tree = ast.parse(path.read_text("utf-8"))
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.If)) and (isinstance(node, ast.FunctionDef) or is_typing(node))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found += [(source, alias.name, id(node) not in lazy) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "", id(node) not in lazy) for alias in node.names]
    return [each for each in found if each[0].split(".")[0] == "musiclm"]


def is_typing(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def target(source: str, name: str) -> str:
    """Return the module that an import leads to: the name itself may be one."""
    return f"{source}.{name}" if f"{source}.{name}" in MODULES else source


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_only(path: Path):
    own = room(module(path))
    if own is None:  # musiclm itself and __main__ are above all rooms
        return
    for source, name, _ in imports(path):
        other = room(target(source, name))
        if other is not None and other != own:
            assert LAYER[other] < LAYER[own], f"{path.relative_to(ROOT)} ({own}) may not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_private_name_crosses_packages(path: Path):
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for source, name, _ in imports(path):
        if name.startswith("__"):
            continue
        full = f"{source}.{name}"
        private = [i for i, part in enumerate(full.split(".")) if part.startswith("_")]
        if private:
            owner = ".".join(full.split(".")[: private[0]])
            inside = package == owner or package.startswith(owner + ".") or module(path) == owner
            assert inside or owner == "musiclm.cli", f"{path.relative_to(ROOT)} imports the private {full}"


def test_modules_have_no_import_cycle():
    """Imports inside functions and for type checkers count too, within a room and across rooms."""
    graph = {own: {target(s, n) for s, n, _ in imports(path)} & set(MODULES) - {own} for own, path in MODULES.items()}
    for own, others in graph.items():  # a package's __init__ gathers its own modules: they may not import it back
        others.discard("musiclm")
        if own == "musiclm":
            others.clear()
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for other in sorted(graph[name]):
            if state.get(other) == 1:
                cycle = [*path[path.index(other) :], other] if other in path else [name, other]
                raise AssertionError("import cycle: " + " -> ".join(cycle))
            if other not in state:
                visit(other, [*path, other])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])


def test_every_room_has_a_layer():
    rooms = {module(path).split(".")[1] for path in FILES if "." in module(path)}
    assert rooms - {"__main__"} <= set(LAYER)


def test_click_and_rich_live_in_cli_only():
    for path in ROOT.glob("musiclm/**/*.py"):
        text = path.read_text("utf-8")
        assert "import click" not in text
        assert "rich" not in {
            w for line in text.splitlines() if "import" in line for w in line.replace(".", " ").split()
        }
        assert not re.search(r"\bprint\(", text), path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_package_folder_is_in_the_list_that_the_wheel_is_made_from():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("musiclm/**/__init__.py")}
    assert set(settings["packages"]) == folders | {"musiclm.cli", "musiclm.checkpoints"}


def modules_of(code: str) -> set[str]:
    """Return which heavy modules a new process has loaded after some code."""
    heavy = ("torch", "click", "rich", "miditok", "numpy", "symusic", "matplotlib", "soundfile")
    code = f"import sys\n{code}\nprint(*[m for m in {heavy} if m in sys.modules], sep=',', file=sys.__stdout__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(filter(None, found.stdout.splitlines()[-1].split(",")))


@pytest.mark.parametrize("name", ["train", "compare", "evaluate", "classifier train", "corpus build", "tag train"])
def test_options_of_commands_with_many_are_under_headings_and_fit_80_columns(name: str):
    import click
    from musiclm.cli.app import group

    command, context = group, click.Context(group, info_name="musiclm", terminal_width=80)
    for part in name.split():
        command = command.get_command(context, part)
        context = click.Context(command, context, info_name=part, terminal_width=80)
    text = command.get_help(context)
    assert max(map(len, text.splitlines())) <= 80
    headings = re.findall(r"^(\S.*):$", text, re.M)
    assert len(headings) >= 3 and headings[-1] == "Other options"
    grouped, others = text[text.index(f"\n{headings[0]}:") :].rsplit("Other options:", 1)
    names = r"^  (?:-\w, )?(--[\w-]+)"
    assert re.findall(names, others.split("\n\n")[0], re.M) == ["--help"], "an option has no heading"
    options = [p.opts[-1] for p in command.params if isinstance(p, click.Option)]
    assert sorted(re.findall(names, grouped, re.M)) == sorted(options)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["generate", "--prompt", "nowhere.mid"]], ids=str
)
def test_help_and_a_wrong_file_name_load_nothing_heavy(arguments: list[str]):
    """What makes them answer at once; the clock is in benchmarks/startup.py."""
    code = (
        "from musiclm.cli import main\nimport contextlib, io\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main({arguments!r})"
    )
    assert modules_of(code) <= {"click"}


def test_importing_the_package_imports_nothing_heavy():
    assert modules_of("import musiclm") == set()


def test_public_names_are_there():
    import musiclm

    for name in musiclm.__all__:
        assert getattr(musiclm, name) is not None
    with pytest.raises(AttributeError):
        _ = musiclm.nonsense
