"""What the README, CONTRIBUTING and CITATION say is true."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from musiclm import checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = ROOT / "docs" / "contributing"


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", text, re.S)


@pytest.mark.slow
def test_the_python_quickstart_runs(tmp_path, monkeypatch, capsys):
    (code,) = blocks("python")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("notes") == 2
    assert len(list(tmp_path.glob("hymn-*.mid"))) == 2


def commands(text: str) -> list[str]:
    """Return the command lines of a page: those of its sh blocks, and those in backticks."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    lines += re.findall(r"`(musiclm [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("musiclm ")]


def parse(line: str) -> None:
    """Parse a command line by click, down to its last subcommand, and run nothing."""
    import click
    from musiclm.cli import app

    command: click.Command = app.group
    arguments = shlex.split(line.split(" < ")[0], comments=True)[1:]
    while isinstance(command, click.Group):
        _, found, arguments = command.resolve_command(click.Context(command), arguments)
        assert found is not None, line
        command = found
    command.make_context(command.name, arguments)


def test_commands_of_the_readme_exist_with_these_options():
    lines = commands(README)
    assert len(lines) > 20
    for line in lines:
        parse(line)


@pytest.mark.parametrize("line", ["musiclm generate --bar", "musiclm corpus mend x", "musiclm show"])
def test_a_wrong_command_is_noticed(line: str):
    import click

    with pytest.raises((click.UsageError, AssertionError)):
        parse(line)


def test_the_readme_is_short_and_keeps_the_two_commands_of_its_setup():
    assert len(README.splitlines()) < 150
    first, second = blocks("sh")[:2]
    assert first == "pip install -c constraints.txt . && musiclm generate"
    assert second == 'pip install -c constraints.txt -e ".[test]" && pytest -n auto --maxprocesses 4'


def test_the_table_of_models_has_the_cards_figures():
    for name in checkpoint.bundled():
        figures = checkpoint.load(name).card["figures"]
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{figures['validation_nats_per_token']:.3f}" in row
        assert f"{figures['test_nats_per_token']:.3f}" in row
        assert (ROOT / "checkpoints" / f"{name}.md").exists()


def test_the_map_of_the_code_names_what_is_there():
    names = re.findall(r"^\| `([^`]+/)`", (CONTRIBUTING / "layout.md").read_text("utf-8"), re.M)
    assert len(names) > 10
    for name in names:
        assert (ROOT / name).is_dir(), name


def example_of_an_architecture() -> str:
    """Return the file that the page on adding an architecture has: the Python block with a caption."""
    page = (CONTRIBUTING / "add-an-architecture.md").read_text("utf-8")
    (code,) = re.findall(
        r"^```\{code-block\} python\n:caption: musiclm/models/bigram\.py\n\n(.*?)^```", page, re.M | re.S
    )
    return code


def test_the_example_of_contributing_is_an_architecture(tmp_path, monkeypatch):
    """In the folder of architectures it is found, and obeys the streaming invariant."""
    import torch

    from musiclm import models

    code = example_of_an_architecture()
    (tmp_path / "bigram.py").write_text(code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "bigram" in models.names()
    model = models.create("bigram", 11, **models.preset("bigram", "tiny"))
    tokens = torch.randint(0, 11, (2, 9))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    torch.testing.assert_close(torch.cat([first, model(tokens[:, 4:], state)[0]], 1), whole)


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_somewhere(page: str):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_changelog_has_one_short_section():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    (section,) = text.split("\n## ")[1:]
    assert section.startswith("0.1.0 (unreleased)\n")
    assert len(section.splitlines()) <= 40


def test_the_citation_has_the_keys_of_cff_and_the_version_of_the_package():
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    found = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z-]+: ", line))
    assert found["cff-version"] == "1.2.0"
    assert {"message", "title"} <= set(found) and "authors:" in lines
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert found["version"] == version
