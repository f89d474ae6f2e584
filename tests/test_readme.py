"""What the README and CONTRIBUTING say is true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from musiclm import checkpoint

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


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


def test_commands_of_the_readme_exist_with_these_options():
    """Each line is parsed by click, not run."""
    import shlex

    from musiclm.cli import app

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("musiclm ")]
    assert len(lines) > 8
    for line in lines:
        name, *arguments = shlex.split(line.split(" < ")[0], comments=True)[1:]
        command = app.group.get_command(None, name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_the_table_of_models_has_the_cards_figures():
    for name in checkpoint.bundled():
        figures = checkpoint.load(name).card["figures"]
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{figures['validation_nats_per_token']:.3f}" in row
        assert f"{figures['test_nats_per_token']:.3f}" in row
        assert (ROOT / "checkpoints" / f"{name}.md").exists()


def test_the_map_of_the_code_names_what_is_there():
    for name in re.findall(r"^\| `([^`]+)`(?:, `([^`]+)`)*", README.split("## Map of the code")[1], re.M):
        for path in filter(None, name):
            assert any((ROOT / p).exists() for p in (path, f"musiclm/{path}")), path


def test_the_example_of_contributing_is_an_architecture(tmp_path, monkeypatch):
    """In the folder of architectures it is found, and obeys the streaming invariant."""
    import torch

    from musiclm import models

    (code,) = blocks("python", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    (tmp_path / "bigram.py").write_text(code)
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    assert "bigram" in models.names()
    model = models.create("bigram", 11, **models.preset("bigram", "tiny"))
    tokens = torch.randint(0, 11, (2, 9))
    whole, _ = model(tokens)
    first, state = model(tokens[:, :4])
    torch.testing.assert_close(torch.cat([first, model(tokens[:, 4:], state)[0]], 1), whole)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
