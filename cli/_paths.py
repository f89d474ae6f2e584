"""Where `generate`, `accompany` and `restyle` write: a file, or new numbered names in a folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import OutputError
from ..files import check_writable
from ..generation.config import GenerationConfig
from . import _pages

STEM = "musiclm"
OTHERS = (
    ".wav",
    ".flac",
    ".ogg",
    ".mp3",
    ".png",
    ".svg",
    ".html",
    ".json",
    ".txt",
    ".pdf",
)  # formats that are not MIDI


def paths(output: str | None, config: GenerationConfig, force: bool) -> list[Path]:
    """Return where to write: a file, or new numbered names in a folder.

    Raises:
        OutputError: the path cannot be written, or a file is there already.
    """
    count = config.keep or config.n
    folder = Path()
    if output is not None:
        path = Path(output)
        if path.suffix.lower() in OTHERS and not path.is_dir():
            raise OutputError(f"'{path}': the output is MIDI, a .mid file (--wav and --html write others beside it)")
        is_folder = path.is_dir() or output.endswith(("/", "\\")) or (count > 1 and path.suffix.lower() != ".mid")
        if not is_folder:
            if count == 1:
                check_writable(path, force=force)
                return [path]
            numbered = [path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count)]
            for each in numbered:
                check_writable(each, force=force)
            return numbered
        folder = path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
    taken = [p.stem.removeprefix(f"{STEM}-") for p in folder.glob(f"{STEM}-*.mid")]
    first = max((int(number) for number in taken if number.isdigit()), default=0) + 1
    numbered = [folder / f"{STEM}-{first + i:03d}.mid" for i in range(count)]
    check_writable(numbered[0])
    return numbered


def checked(
    output: str | None,
    config: GenerationConfig,
    *,
    wav: bool,
    html: bool,
    play: bool,
    soundfont: str | None,
    force: bool,
) -> list[Path]:
    """Return where the MIDI files go, none for standard output, after a check that all can be written and played.

    Raises:
        MusicLMError: a path cannot be written, or a sound cannot be made here.
    """
    found = [] if output == "-" or (config.live and output is None) else paths(output, config, force)
    if wav or play:
        from .play import check_sound

        check_sound(found, wav=wav, play=play, soundfont=soundfont, force=force)
    if html:
        _pages.check_pages(found, soundfont=soundfont, force=force)
    return found
