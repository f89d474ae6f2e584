"""Checkpoints by name: bundled ones, installed ones, files and run folders."""

from __future__ import annotations

import dataclasses
import os
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .format import SUFFIX, Checkpoint, read

PAIRED = "accompany"  # the set of models that write parts beside given ones


def load(name: str) -> Checkpoint:
    """Return the checkpoint of a name, a file or a run folder (its best one).

    Raises:
        CheckpointError: there is none, or it is damaged; or the language model whose weights it leaves out is not installed,
            or has other weights now.
    """
    return with_base(read(*find(name)))


def with_base(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the one whose weights it leaves out, if it does.

    Raises:
        CheckpointError: that is not installed, or has other weights now.
    """
    described = checkpoint.base_described
    if described is None:
        return checkpoint
    called = f"the checkpoint '{checkpoint.name}'"
    return dataclasses.replace(checkpoint, base=load_exactly(described.get("name"), described.get("sha256"), called))


def load_exactly(name: Any, sha256: Any, called: str) -> Checkpoint:
    """Return the bundled or installed checkpoint whose weights another file leaves out.

    Args:
        name: of the checkpoint, as that file says.
        sha256: of its weights, as that file says.
        called: what that file is and its name, for errors: "the tagger 'composer-tagger'".

    Raises:
        CheckpointError: it is not installed, or has other weights now.
    """
    if name not in (*bundled(), *installed()):
        raise CheckpointError(f"{called} needs the model '{name}': see 'musiclm models install'")
    found = load(name)
    if found.sha256 != sha256:
        raise CheckpointError(f"{called} was trained on other weights of '{name}' than those here: train it again")
    return found


def find(name: str) -> tuple[Path, str]:
    """Return the file that a name means, and its name for messages. Bundled checkpoints precede installed ones and paths.

    `SET` alone, for example "bach", is the checkpoint of that set with the lowest validation loss in nats/token.

    Raises:
        CheckpointError: there is none.
    """
    for names, path_of in ((bundled(), bundled_path), (installed(), installed_path)):
        if name in names:
            return path_of(name), name
        of_set = [n for n in names if n.rsplit("-", 1)[0] == name]
        if of_set:
            best = min(of_set, key=lambda n: _validation_nats(read(path_of(n), n)))
            return path_of(best), best
    path = Path(name)
    if path.is_dir():
        if (path / "best.safetensors").is_file():
            return path / "best.safetensors", name
        raise CheckpointError(f"no checkpoint in the folder '{name}': it is not a run, or one that has not saved yet")
    if path.is_file():
        return path, name
    names = [*bundled(), *installed()]
    known = ", ".join(sorted({n.rsplit("-", 1)[0] for n in names} | set(names)))
    raise CheckpointError(f"no checkpoint '{name}': neither a file, nor a run folder, nor one of {known}")


def bundled() -> list[str]:
    """Return the names of the checkpoints that come with the package."""
    return _named(_folder())  # the folder has other weights too


def bundled_path(name: str) -> Path:
    """Return the file of a bundled checkpoint."""
    return _folder() / (name + SUFFIX)


def infilling() -> list[str]:
    """Return the names of the bundled checkpoints that support infilling."""
    from ..tokenizers import INFILLING

    return [name for name in bundled() if load(name).tokenizer_description.get("name") in INFILLING]


def installed() -> list[str]:
    """Return the names of the checkpoints in the user's own folder; see `install`."""
    folder = user_folder()
    return _named(folder) if folder.is_dir() else []


def installed_path(name: str) -> Path:
    """Return the file of an installed checkpoint."""
    return user_folder() / (name + SUFFIX)


def user_folder() -> Path:
    """Return the folder of installed checkpoints: MUSICLM_MODELS, else "models" in the user's data folder of musiclm."""
    given = os.environ.get("MUSICLM_MODELS")
    if given:
        return Path(given)
    import platformdirs

    return platformdirs.user_data_path("musiclm") / "models"


def _named(folder: Path) -> list[str]:
    """Return the SET-ARCH names of the checkpoints in a folder."""
    from .. import models

    names = (p.name.removesuffix(SUFFIX) for p in folder.iterdir() if p.name.endswith(SUFFIX))
    return sorted(n for n in names if n.rpartition("-")[2] in models.names(None) and not n.startswith("."))


def _validation_nats(checkpoint: Checkpoint) -> float:
    figures = checkpoint.card.get("figures")
    nats = figures.get("validation_nats_per_token") if isinstance(figures, dict) else None
    return float(nats) if isinstance(nats, (int, float)) else float("inf")


def default(*, filling_holes: bool = False, paired: bool = False) -> str:
    """Return the default model of `generate`: `score` if it is bundled, else `bach`.

    Args:
        filling_holes: prefer a model that supports infilling, if one does.
        paired: return that of `accompany` and `restyle`: one of the set `accompany` that the user installed, else one that
            supports infilling. The bundled `accompany` keeps less to the harmony (docs/results/accompaniment.md).
    """
    if paired and (own := [name for name in installed() if name.rsplit("-", 1)[0] == PAIRED]):
        return own[0]
    if (filling_holes or paired) and (found := infilling()):
        return max(found, key=lambda name: name.startswith("score-"))
    return "score" if any(n.startswith("score-") for n in bundled()) else "bach"


def _folder() -> Path:
    return Path(str(resources.files("musiclm.checkpoints")))
