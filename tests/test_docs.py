"""The documentation site: its command lines, its structure, its words, and its build where Sphinx is installed."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from musiclm.cli import app

from tests.docs_pages import DOCS, PAGES, ROOT, Block, blocks, commands, mentions, prose, without_blocks

NAMES = [str(page.relative_to(DOCS)) for page in PAGES]
PLACEHOLDERS = ("COMMAND",)  # `musiclm COMMAND --help`

# Markdown files whose words are checked; a file that is added here must be written in the terms of the glossary
WORDED = [*PAGES]
FORBIDDEN = (
    "nats a ", "bits a note", "surprise of", "surprised", "learns by heart", "learnt by heart", "by heart", "heard", "hears",
    "is told", "are told", "was told", "goes on from", "go on from", "gone on with", "going on", "drawn", "draws", "drawing",
    "hotter", "colder", "from nothing", "taught", "mean of what", "hole", "holes", "arrangement", "arrangements", "levers",
    "metre", "metres", "what is kept", "softened", "calibrated", "moved on from", "read-out", "rooms", "house",
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_command_lines_of_a_page_parse(page: Path):
    """By click, without running. Recipes have commands that do not exist yet: test_docs_recipes.py runs them."""
    if page.name.startswith("add-a"):
        return
    for line in commands(page):
        check_command(line)
    for line in mentions(page):
        check_command(re.sub(r"(--\w+) N\b", r"\1 3", line), is_whole=False)


def check_command(line: str, *, is_whole: bool = True) -> None:
    """Fail if click cannot parse a command line of musiclm; one that is not whole may lack arguments."""
    words = [word for word in shlex.split(re.split(r" [<>|] ", line)[0])[1:] if word not in ("-h", "--help")]
    if words[0] in PLACEHOLDERS:
        return
    command, arguments = resolved(words)
    assert command is not None, f"there is no such command: {line}"
    try:
        command.make_context(command.name, list(arguments))
    except click.UsageError as error:
        lacks_argument = isinstance(error, click.MissingParameter) or "requires an argument" in error.message
        if lacks_argument and (not is_whole or "--help" in line):
            return
        raise AssertionError(f"{line}: {error.format_message()}") from error


def resolved(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """Return the command that words name, through groups, and the other words."""
    command: click.Command | None = app.group
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        try:
            _, command, words = command.resolve_command(click.Context(command), words)
        except click.UsageError:  # no such command
            return None, words
    return command, words


def test_a_wrong_option_in_a_command_line_is_found():
    with pytest.raises(AssertionError, match="No such option"):
        check_command("musiclm generate --wrong 3")
    with pytest.raises(AssertionError, match="no such command"):
        check_command("musiclm nothing")


def test_every_page_is_in_a_toctree():
    listed = set()
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text("utf-8"), re.S):
            names = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert listed == {page for page in PAGES if page.name != "index.md"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_pictures_of_a_page_are_there(page: Path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", without_blocks(page.read_text("utf-8"))):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", WORDED, ids=lambda page: str(page.relative_to(ROOT)))
def test_words_are_those_of_the_glossary(page: Path):
    text = " ".join(prose(page.read_text("utf-8")).split())
    for phrase in FORBIDDEN:
        end = "" if phrase.endswith(" ") else r"(?!\w)"
        found = re.search(rf"(?<![\w-]){re.escape(phrase)}{end}", text, re.I)
        assert not found, f"'{phrase}' in: …{text[max(0, found.start() - 60) : found.end() + 40]}…"


def test_every_model_card_is_included():
    text = (DOCS / "reference" / "model-cards.md").read_text("utf-8")
    included = set(re.findall(r"checkpoints/(\S+)\.md", text))
    assert included == {str(p.relative_to(ROOT / "checkpoints"))[:-3] for p in (ROOT / "checkpoints").rglob("*.md")}


def every_command(group: click.Group, name: str) -> list[tuple[str, click.Command]]:
    """Return (full name, command) of all commands below a group."""
    found = []
    for word in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), word)
        assert command is not None
        found.append((f"{name} {word}", command))
        if isinstance(command, click.Group):
            found += every_command(command, f"{name} {word}")
    return found


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_reference_has_every_option(tmp_path: Path):
    """Warnings are errors: a broken link between pages, or a broken docstring, fails."""
    missing = [name for name in ("sphinx", "myst_parser", "furo", "sphinx_click") if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install '.[docs]')")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "tree", DOCS]
    built = subprocess.run([*command, tmp_path / "html"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "html" / "reference" / "cli.html").read_text("utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    for name, each in every_command(app.group, "musiclm"):
        assert re.search(rf"^{name}\b", shown, re.M), name
        for option in (p for p in each.params if isinstance(p, click.Option) and p.help):
            assert max(option.opts, key=len) in shown, (name, option.opts)
            assert " ".join(option.help.split()) in " ".join(shown.split()), (name, option.opts)
    gallery = re.findall(
        r'href="\.\./(gallery/\S+?\.html)"', (tmp_path / "html" / "guide" / "gallery.html").read_text("utf-8")
    )
    assert len(gallery) == 5
    for each in gallery:
        assert "data:audio/ogg" in (tmp_path / "html" / each).read_text("utf-8"), each
    assert "class musiclm.generation.composer.Composer" in html.unescape(
        re.sub(r"<[^>]+>", "", (tmp_path / "html" / "reference" / "api.html").read_text("utf-8"))
    )


PYTHON = [(page, block) for page in PAGES if page.parent.name != "contributing" for block in blocks(page)]
PYTHON = [(page, block) for page, block in PYTHON if block.language == "python"]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[str(page.relative_to(DOCS)) for page, _ in PYTHON])
def test_python_in_a_page_runs(page: Path, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(page), "exec"), {})
