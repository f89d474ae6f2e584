"""Checkpoints: one safetensors file holds weights, architecture, tokenizer and card. Nothing in it can run code.

The file's metadata has `format` ("musiclm"), `sha256` (of all tensor bytes, in the file's order) and `checkpoint`, a JSON
object of `arch`, `config`, `tokenizer` and `card`. Its header is bounded and checked before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..files import write_whole

if TYPE_CHECKING:
    import torch

    from ..models.base import LanguageModel
    from ..tokenizers.base import Tokenizer

SUFFIX = ".safetensors"
MAX_HEADER = 4 * 2**20  # bytes; the largest of ours is a hundredth of that
MAX_NUMBER = 2**20  # of anything in a model's config
MAX_TOKENIZER_NUMBER = 4096  # of anything that makes a vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose header was read; the weights are read by `model`.

    Attributes:
        name: what it is called by its user: a bundled or installed name, or the path.
        path: the file.
        arch: one of `musiclm.models.names()`.
        config: fields of that architecture's `Config`.
        tokenizer_description: see `Tokenizer.describe`.
        card: data, licence, command, figures and whatever else is worth telling.
        sha256: of the tensor bytes, hexadecimal.
        num_parameters: how many numbers were learnt.
    """

    name: str
    path: Path
    arch: str
    config: dict[str, Any]
    tokenizer_description: dict[str, Any]
    card: dict[str, Any]
    sha256: str
    num_parameters: int

    @property
    def sampling(self) -> dict[str, Any]:
        """How its music is best drawn, as its card says: temperature, top_k, top_p and min_p, each maybe missing."""
        told = self.card.get("sampling")
        names = ("temperature", "top_k", "top_p", "min_p")
        return {k: v for k, v in told.items() if k in names and v is not None} if isinstance(told, dict) else {}

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that the model was trained with."""
        from .. import tokenizers

        return tokenizers.from_description(self.tokenizer_description)

    def model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return the model in evaluation mode, in float32.

        Raises:
            CheckpointError: the tensors are damaged, or are not those of the architecture.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        from .. import models

        config, features = {"feature_sizes": (), **self.config}, self.tokenizer().feature_sizes
        if tuple(config["feature_sizes"]) != features:
            raise CheckpointError(
                f"the checkpoint '{self.name}' is of another version of musiclm: '{self.tokenizer_description['name']}' "
                "has other features now; train it again"
            )
        data = self.path.read_bytes()
        _, tensor_bytes = _split(data, self.name)
        if hashlib.sha256(tensor_bytes).hexdigest() != self.sha256:
            raise CheckpointError(f"the checkpoint '{self.name}' is damaged: its weights are not those that were saved")
        try:
            tensors = load(data)
            with models.meta_init():  # no memory yet: a lying config must not cost any
                model = models.create(self.arch, **self.config)
        except (SafetensorError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint '{self.name}' is damaged: {error}") from error
        expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        if expected != {name: tuple(t.shape) for name, t in tensors.items()}:
            raise CheckpointError(
                f"the checkpoint '{self.name}' is damaged: its tensors are not those of a {self.arch}"
            )
        model.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
        return model.to(device).eval()


def save(
    path: Path,
    model: LanguageModel,
    *,
    arch: str,
    tokenizer: Tokenizer,
    card: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint, whole or not at all, in place of what is there.

    Args:
        path: ends in .safetensors.
        model: its weights and config.
        arch: one of `musiclm.models.names()`.
        tokenizer: stored whole.
        card: JSON.
        dtype: of the stored weights; as they are if left out.
    """
    tensors = {name: t.detach().to("cpu", dtype).contiguous() for name, t in model.state_dict().items()}
    checkpoint = {
        "arch": arch,
        "config": dataclasses.asdict(model.config),
        "tokenizer": tokenizer.describe(),
        "card": card,
    }
    write_whole(path, pack(tensors, {"checkpoint": json.dumps(checkpoint)}))


def pack(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return the bytes of a safetensors file of ours, with the hash of its tensor bytes."""
    from safetensors.torch import save as to_safetensors

    _, tensor_bytes = _split(to_safetensors(tensors), "")
    digest = hashlib.sha256(tensor_bytes).hexdigest()
    return bytes(to_safetensors(tensors, metadata={"format": "musiclm", "sha256": digest, **metadata}))


def read_header(path: Path, name: str | None = None) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata and the entries of the tensors of a safetensors file of ours, reading its header only.

    Raises:
        CheckpointError: not there, damaged, or of another project.
    """
    name = name or str(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
            if length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"'{name}' is no checkpoint of musiclm, or is cut off: it has no header")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"the checkpoint '{name}' cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{name}' is no checkpoint of musiclm: its header is not JSON") from error
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != "musiclm" or "sha256" not in metadata:
        raise CheckpointError(f"'{name}' is no checkpoint of musiclm: train one, or see 'musiclm models'")
    try:
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"the checkpoint '{name}' is damaged: its header names no tensors") from error
    if 8 + length + end != size:
        raise CheckpointError(f"the checkpoint '{name}' is cut off: {size} bytes of {8 + length + end}")
    return metadata, header


def _split(data: bytes, name: str) -> tuple[bytes, memoryview]:
    if len(data) < 8:
        raise CheckpointError(f"the checkpoint '{name}' is cut off")
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length], memoryview(data)[8 + length :]


def read(path: Path, called: str) -> Checkpoint:
    """Return the checkpoint in a file; `called` is its name, in errors too.

    Raises:
        CheckpointError: it is not there, or damaged.
    """
    metadata, entries = read_header(path, called)
    try:
        stored = json.loads(metadata["checkpoint"])
        config = _of_now(dict(stored["config"]))
        arch, tokenizer, card = str(stored["arch"]), dict(stored["tokenizer"]), dict(stored["card"])
        num_parameters = sum(_product(entry["shape"]) for entry in entries.values())
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{called}' is no checkpoint of a model: {error!r} in its header") from error
    numbers = [v for v in config.values() if isinstance(v, int)]
    largest = max([*numbers, 0])
    if largest > MAX_NUMBER or config.get("num_layers", 1) > len(entries) or _largest(tokenizer) > MAX_TOKENIZER_NUMBER:
        raise CheckpointError(f"the checkpoint '{called}' is damaged: its config is beyond all bounds")
    return Checkpoint(
        name=called,
        path=path,
        arch=arch,
        config=config,
        tokenizer_description=tokenizer,
        card=card,
        sha256=metadata["sha256"],
        num_parameters=num_parameters,
    )


def _of_now(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config as it is called now: there was one `scale` with a `reference` once."""
    if "scale" in config:
        scale, reference = config.pop("scale"), config.pop("reference", None)
        config["references"] = [] if reference is None else [[*scale, reference]]
    return config


def _largest(description: Any) -> int:
    """Return the largest number in a tokenizer's description, among its keys too; tokens are only compared."""
    if isinstance(description, dict):
        parts = [_largest(v) for k, v in description.items() if k != "vocabulary"]
        return max([0, *parts, *(int(n) for k in description for n in str(k).split("_") if n.isdigit())])
    if isinstance(description, list):
        return max([0, *(_largest(v) for v in description)])
    return description if isinstance(description, int) else 0


def _product(shape: list[int]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
