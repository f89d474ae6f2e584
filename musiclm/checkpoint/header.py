"""The headers of the files of musiclm: their metadata, the shapes of their tensors, and what they say of a model.

A header is bounded, and checked before memory is allocated. Reading it imports no torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CheckpointError

MAX_HEADER = 4 * 2**20  # bytes; the largest of the bundled ones is a hundredth of that
MAX_NUMBER = 2**20  # the largest number in a model's config
CRITIC = "critic."  # how the names of a critic's tensors begin
BUFFERS = ("seed", "redraws", "vectors_FE")  # tensors of a model that are no parameters, by the ends of their names


class Header(NamedTuple):
    """The metadata of a file, and the shape of each of its tensors by its name."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


class ModelHeader(NamedTuple):
    """What a header says of the model in a file.

    Attributes:
        arch: of the model or its body.
        config: fields of the architecture's `Config`.
        card: data, licence, command, figures and more.
        stored: the whole JSON object.
        sha256: of the bytes of the model's tensors, hexadecimal.
        num_parameters: the number of parameters of the model, without those of a critic.
    """

    arch: str
    config: dict[str, Any]
    card: dict[str, Any]
    stored: dict[str, Any]
    sha256: str
    num_parameters: int


def check_start(start: bytes, name: str, size: int | None = None) -> None:
    """Check the length of the header, which is read into memory, before it is read.

    Args:
        start: the first 8 bytes of a file: the length of its header, little-endian.
        name: of the file, for the error.
        size: of the file in bytes, if it is known.

    Raises:
        CheckpointError: there are fewer than 8 bytes, or the header is longer than `MAX_HEADER` or than the file.
    """
    most = MAX_HEADER if size is None else min(MAX_HEADER, size - 8)
    if len(start) < 8 or int.from_bytes(start, "little") > most:
        raise CheckpointError(f"'{name}' is no checkpoint of musiclm, or is cut off: it has no header")


def read_header(path: Path, name: str | None = None) -> Header:
    """Return the metadata of a safetensors file of musiclm and the shape of each tensor, without reading the tensors.

    safetensors checks that the header describes the file's bytes exactly.

    Args:
        path: the file.
        name: of the file in errors; the path if left out.

    Raises:
        CheckpointError: it does not exist, is damaged, or belongs to another project.
    """
    from safetensors import SafetensorError, safe_open

    name = name or str(path)
    try:
        with path.open("rb") as file:
            check_start(file.read(8), name, path.stat().st_size)
        with safe_open(path, framework="np") as tensors:
            metadata = tensors.metadata() or {}
            shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"the checkpoint '{name}' cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        reason = str(error).partition("header: ")[2]  # worded differently before safetensors 0.6
        if "JSON" in reason or "Deserialization" in reason:
            raise CheckpointError(f"'{name}' is no checkpoint of musiclm: its header is not JSON") from error
        if "incomplete" in reason.lower():
            raise CheckpointError(f"the checkpoint '{name}' is cut off, or longer than its header says") from error
        raise CheckpointError(f"the checkpoint '{name}' is damaged: {reason}") from error
    if metadata.get("format") != "musiclm" or "sha256" not in metadata:
        raise CheckpointError(f"'{name}' is no checkpoint of musiclm: train one, or see 'musiclm models'")
    return Header(metadata, shapes)


def describe(header: Header, key: str, name: str, kind: str) -> ModelHeader:
    """Return what a header says of a model.

    Args:
        header: see `read_header`.
        key: of the JSON object in the metadata.
        name: of the file, for errors.
        kind: what has such an object, for errors: "a tagger".

    Raises:
        CheckpointError: there is no such object, it is damaged, or its config has numbers that no such file can have.
    """
    try:
        stored = json.loads(header.metadata[key])
        arch, config, card = str(stored["arch"]), dict(stored["config"]), dict(stored["card"])
        is_deeper = config.get("num_layers", 1) > len(header.shapes)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{name}' is not {kind}: {error!r} in its header") from error
    if is_deeper or max([0, *(value for value in config.values() if isinstance(value, int))]) > MAX_NUMBER:
        raise CheckpointError(f"the checkpoint '{name}' is damaged: its config has numbers that are too large")
    return ModelHeader(
        arch=arch,
        config=config,
        card=card,
        stored=stored,
        sha256=header.metadata["sha256"],
        num_parameters=sum(math.prod(shape) for key, shape in header.shapes.items() if _is_parameter(key)),
    )


def _is_parameter(name: str) -> bool:
    return not name.startswith(CRITIC) and name.rpartition(".")[2] not in BUFFERS
