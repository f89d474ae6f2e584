"""The pages that `generate --html` writes beside its MIDI files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import rendering
from ..files import check_writable, write_whole

if TYPE_CHECKING:
    from ..generation.files import GeneratedFile


def check_pages(paths: Sequence[Path], *, soundfont: str | None, force: bool) -> None:
    """Check what `write_pages` needs; `generate` calls this before it samples.

    Raises:
        AudioError: there is no soundfont.
        OutputError: a page beside one of the paths cannot be written.
    """
    rendering.find_soundfont(soundfont)
    for path in paths:
        check_writable(path.with_suffix(".html"), force=force)


def write_pages(
    files: Sequence[GeneratedFile], paths: Sequence[Path], prompt: bytes | None, *, soundfont: str | None, force: bool
) -> list[Path]:
    """Write a page beside each MIDI file, with the prompt or the given notes pale, and return the paths.

    Args:
        files: what was generated.
        paths: its MIDI files.
        prompt: the MIDI file that was continued or infilled.
        soundfont: a file, or None for the default.
        force: overwrite existing pages.
    """
    from .. import midi, plotting
    from ..plotting.page import piece_page

    pages = [path.with_suffix(".html") for path in paths]
    for file, path, page in zip(files, paths, pages, strict=True):
        score = midi.parse(file.data, str(path))
        kept = None
        if prompt is not None and plotting.was_written_within(score):
            kept = midi.parse(prompt, "the prompt")
        text = piece_page(score, title=path.name, prompt=plotting.prompt_end(score), kept=kept, soundfont=soundfont)
        write_whole(page, text.encode(), force=force)
    return pages
