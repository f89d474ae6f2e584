"""The Markdown pages of the documentation as text and code blocks, for tests."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A code block: its language, its caption (a file's path) if it has one, and its text."""

    language: str
    caption: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in their order."""
    made = []
    opening = r"^```(?:\{code-block\} )?([\w{}-]*)\n((?::\w+:[^\n]*\n)*)\n?"
    for found in re.finditer(opening + r"(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        caption = re.search(r":caption: (.*)", found[2])
        made.append(Block(language=found[1], caption=caption[1].strip() if caption else "", text=found[3]))
    return made


def commands(page: Path) -> list[str]:
    """Return the command lines of musiclm in a page's shell blocks, without comments."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return [re.split(r"\s+#", line)[0].strip() for line in lines if line.startswith("musiclm ")]


def mentions(page: Path) -> list[str]:
    """Return the command lines of musiclm in a page's text and tables; arguments may be left out there."""
    return re.findall(r"`(musiclm [a-z]+[^`]*)`", without_blocks(page.read_text("utf-8")))


def without_blocks(text: str) -> str:
    """Return Markdown without code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def prose(text: str) -> str:
    """Return Markdown without code, quotations and the addresses of links."""
    text = re.sub(r"`[^`]*`", "", without_blocks(text))
    text = re.sub(r"^>.*$", "", text, flags=re.M)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"“[^”]*”|\"[^\"\n]*\"", "", text)
