"""Where `generate` writes: a file, or new numbered names in a folder."""

from __future__ import annotations

from pathlib import Path

from ..errors import OutputError
from ..files import check_writable
from ..generation.config import GenerationConfig

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
