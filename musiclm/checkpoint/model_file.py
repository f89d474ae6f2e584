"""The files of models that are no language models: performers (`musiclm.performing`) and taggers (`musiclm.tagging`).

Such a file is a safetensors file whose metadata has a JSON object, `performer` or `tagger`, with `arch`, `config`, `card` and
what the package reads beside them. Names begin with "performer-" or end with "-tagger", so that no set of language models is
confused with them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .format import SUFFIX
from .header import Header, describe, read_header
from .registry import bundled_path, installed_path, user_folder

KINDS = ("piano", "drums")  # of performers
DEFAULT_TAGGER = "style-tagger"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """What a model is for, and how its files are named.

    Attributes:
        name: of the role, which is the key of the JSON object too.
        prefix: with which the names of its models begin.
        suffix: with which they end.
        source: how to make one, for errors.
    """

    name: str
    prefix: str = ""
    suffix: str = ""
    source: str = ""

    def full_name(self, name: str) -> str:
        """Return a model's name with the prefix and the suffix of its role, which may be there already."""
        return self.prefix + name.removeprefix(self.prefix).removesuffix(self.suffix) + self.suffix


PERFORMER = Role(name="performer", prefix="performer-")
TAGGER = Role(name="tagger", suffix="-tagger", source=" ('musiclm tag train' makes one)")
ROLES = (TAGGER, PERFORMER)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The file of a model whose header was read.

    Attributes:
        name: the name by which the user called it: a bundled or installed name, or the path.
        path: the file.
        role: performer or tagger.
        arch: of its encoder or body.
        kind: of a performer, piano or drums; empty of a tagger.
        tokenizer: the name of a tagger's; None of a performer.
        described: the whole JSON object.
        card: data, licence, command, figures and more.
        sha256: of the bytes of its tensors, hexadecimal.
        num_parameters: the number of its parameters.
    """

    name: str
    path: Path
    role: Role
    arch: str
    kind: str
    tokenizer: str | None
    described: dict[str, Any]
    card: dict[str, Any]
    sha256: str
    num_parameters: int


def read_model(path: Path, name: str | None = None, role: Role | None = None) -> ModelFile:
    """Return the file of a model after its header was read.

    Args:
        path: the file.
        name: of the file in errors; the path if left out.
        role: that it must have; any if left out.

    Raises:
        CheckpointError: it does not exist, is damaged, or is no such model.
    """
    name = name or str(path)
    header = read_header(path, name)
    role = role or _role_in(header)
    if role is None or role.name not in header.metadata:
        wanted = [f"a {each.name}{each.source}" for each in ROLES if role in (None, each)]
        raise CheckpointError(f"'{name}' is not {' or '.join(wanted)}")
    found = describe(header, role.name, name, f"a {role.name}")
    kind, tokenizer = str(found.stored.get("kind")), found.stored.get("tokenizer")
    if role is PERFORMER and kind not in KINDS:
        raise CheckpointError(f"'{name}' performs '{kind}', which this version does not know")
    if role is TAGGER and not isinstance(tokenizer, dict):
        raise CheckpointError(f"the tagger '{name}' is damaged: it has no tokenizer")
    return ModelFile(
        name=name,
        path=path,
        role=role,
        arch=found.arch,
        kind=kind if role is PERFORMER else "",
        tokenizer=str(tokenizer.get("name")) if isinstance(tokenizer, dict) else None,
        described=found.stored,
        card=found.card,
        sha256=found.sha256,
        num_parameters=found.num_parameters,
    )


def role_of(path: Path, name: str | None = None) -> Role | None:
    """Return the role of the model in a file of musiclm; None for a language model.

    Raises:
        CheckpointError: it is no file of musiclm.
    """
    return _role_in(read_header(path, name))


def _role_in(header: Header) -> Role | None:
    return next((role for role in ROLES if role.name in header.metadata), None)


def role_of_name(name: str) -> Role | None:
    """Return the role of the models that have such a name; None for language models."""
    from .. import models

    if name.rpartition("-")[2] in models.names(None):
        return None
    return next((role for role in ROLES if name.startswith(role.prefix) and name.endswith(role.suffix)), None)


def bundled_models(role: Role | None = None) -> list[str]:
    """Return the names of the models of a role, or of all, that come with the package."""
    return _named(bundled_path("").parent, role)


def installed_models(role: Role | None = None) -> list[str]:
    """Return the names of the models of a role, or of all, in the user's own folder; see `install`."""
    folder = user_folder()
    return _named(folder, role) if folder.is_dir() else []


def find_model(role: Role, name: str) -> ModelFile:
    """Return the model of a name or a file; the role's prefix and suffix may be left out of a name.

    Raises:
        CheckpointError: there is none.
    """
    for names, path_of in ((bundled_models(role), bundled_path), (installed_models(role), installed_path)):
        for called in (name, role.full_name(name)):
            if called in names:
                return read_model(path_of(called), called, role)
    if Path(name).is_file():
        return read_model(Path(name), name, role)
    known = [*bundled_models(role), *installed_models(role)]
    others = f"nor one of {', '.join(known)}" if known else "nor an installed one"
    raise CheckpointError(f"no {role.name} '{name}': neither a file {others}{role.source}")


def _named(folder: Path, role: Role | None) -> list[str]:
    names = sorted(p.name.removesuffix(SUFFIX) for p in folder.iterdir() if p.name.endswith(SUFFIX))
    wanted = ROLES if role is None else (role,)
    return [name for name in names if not name.startswith(".") and role_of_name(name) in wanted]
