"""The files of performers, models that perform scores (`musiclm.performing`): their headers, and their names.

Such a file is a safetensors file whose metadata has `performer`, a JSON object of `arch`, `kind`, `config`, `card` and what
`performing.model` reads. Names begin with "performer-", so that no set of language models is confused with them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .format import CRITIC, SUFFIX, read_header
from .registry import bundled_path, installed_path, user_folder

PREFIX = "performer-"
METADATA = "performer"  # the key of the JSON object
KINDS = ("piano", "drums")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformerFile:
    """A performer's file whose header was read.

    Attributes:
        name: the name by which the user called it: a bundled or installed name, or the path.
        path: the file.
        arch: of its encoder.
        kind: piano or drums.
        described: the whole JSON object.
        card: data, licence, command, figures and more.
        sha256: of the bytes of its tensors, hexadecimal.
        num_parameters: the number of its parameters.
    """

    name: str
    path: Path
    arch: str
    kind: str
    described: dict[str, Any]
    card: dict[str, Any]
    sha256: str
    num_parameters: int


def read_performer(path: Path, name: str | None = None) -> PerformerFile:
    """Return a performer's file after its header was read.

    Raises:
        CheckpointError: it does not exist, is damaged, or is no performer.
    """
    name = name or str(path)
    metadata, shapes = read_header(path, name)
    try:
        described = json.loads(metadata[METADATA])
        arch, kind, card = str(described["arch"]), described["kind"], dict(described["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{name}' is not a performer: {error!r} in its header") from error
    if kind not in KINDS:
        raise CheckpointError(f"'{name}' performs '{kind}', which this version does not know")
    return PerformerFile(
        name=name,
        path=path,
        arch=arch,
        kind=kind,
        described=described,
        card=card,
        sha256=metadata["sha256"],
        num_parameters=sum(math.prod(shape) for key, shape in shapes.items() if not key.startswith(CRITIC)),
    )


def is_performer(path: Path, name: str | None = None) -> bool:
    """Return whether a file of musiclm is a performer's.

    Raises:
        CheckpointError: it is no file of musiclm.
    """
    return METADATA in read_header(path, name)[0]


def bundled_performers() -> list[str]:
    """Return the names of the performers that come with the package."""
    return _named(bundled_path(PREFIX).parent)


def installed_performers() -> list[str]:
    """Return the names of the performers in the user's own folder; see `install`."""
    folder = user_folder()
    return _named(folder) if folder.is_dir() else []


def find_performer(name: str) -> PerformerFile:
    """Return the performer of a name or a file; the prefix of a name may be left out.

    Raises:
        CheckpointError: there is none.
    """
    for names, path_of in ((bundled_performers(), bundled_path), (installed_performers(), installed_path)):
        for called in (name, PREFIX + name):
            if called in names:
                return read_performer(path_of(called), called)
    if Path(name).is_file():
        return read_performer(Path(name), name)
    known = ", ".join([*bundled_performers(), *installed_performers()]) or "none"
    raise CheckpointError(f"no performer '{name}': neither a file nor one of {known}")


def _named(folder: Path) -> list[str]:
    from .. import models

    names = [p.name.removesuffix(SUFFIX) for p in folder.iterdir() if p.name.endswith(SUFFIX)]
    return sorted(n for n in names if n.startswith(PREFIX) and n.rpartition("-")[2] not in models.names(None))
