"""The checkpoint format: one safetensors file with weights, architecture, tokenizer and card. It cannot contain code.

The file's metadata has `format` ("musiclm"), `sha256` (of the bytes of the model's tensors, in the file's order) and
`checkpoint`, a JSON object of `arch`, `config`, `tokenizer` and `card`. Its header is bounded, and checked before memory is
allocated.

A file may leave out the weights of a decoder that are those of a bundled or installed language model, its base; the JSON object
then has `base`: the name, the `sha256` and the number of parameters that are left out.

A file may have a critic, too (see `generation.critic`): tensors whose names begin with "critic.", described by the card's
`critic`, with a hash of their own, `critic_sha256`. What is sampled depends on the model alone, so that a model with another
critic, or with none, has the same `sha256`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import CheckpointError
from ..files import write_whole
from .header import CRITIC, describe, read_header

if TYPE_CHECKING:
    import torch

    from ..models.base import LanguageModel
    from ..tokenizers.base import Tokenizer

    Network = TypeVar("Network", bound=torch.nn.Module)

SUFFIX = ".safetensors"
KEY = "checkpoint"  # of the JSON object in the metadata
MAX_TOKENIZER_NUMBER = 4096  # the largest number in a tokenizer's description


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose header was read; the weights are read by `model`.

    Attributes:
        name: the name by which the user called it: a bundled or installed name, or the path.
        path: the file.
        arch: one of `musiclm.models.names(None)`.
        config: fields of that architecture's `Config`.
        tokenizer_description: see `Tokenizer.describe`.
        card: data, licence, command, figures and more.
        sha256: of the bytes of the model's tensors, hexadecimal.
        num_parameters: the number of parameters of the model.
        critic_sha256: of the bytes of the critic's tensors; None without a critic.
        base_described: name, sha256 and num_parameters of the language model whose weights the file leaves out, or None.
        base: its checkpoint, which `registry.load` finds.
    """

    name: str
    path: Path
    arch: str
    config: dict[str, Any]
    tokenizer_description: dict[str, Any]
    card: dict[str, Any]
    sha256: str
    num_parameters: int
    critic_sha256: str | None = None
    base_described: dict[str, Any] | None = None
    base: Checkpoint | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """Return the card's sampling options by their names in `GenerationConfig`, each of which may be missing."""
        stored = self.card.get("sampling")
        return {k: v for k, v in stored.items() if v is not None} if isinstance(stored, dict) else {}

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that the model was trained with."""
        from .. import tokenizers

        return tokenizers.from_description(self.tokenizer_description)

    def model(self, device: torch.device | str = "cpu") -> LanguageModel:
        """Return the model in evaluation mode, in float32.

        Raises:
            CheckpointError: the tensors are damaged, or are not those of the architecture.
        """
        from .. import models

        config, features = {"feature_sizes": (), **self.config}, self.tokenizer().feature_sizes
        if tuple(config["feature_sizes"]) != features:
            raise CheckpointError(
                f"the checkpoint '{self.name}' is of another version of musiclm: '{self.tokenizer_description['name']}' "
                "has other features now; train it again"
            )
        called = f"the checkpoint '{self.name}'"
        tensors = rename_tensors(read_tensors(self.path, self.sha256, called))
        if self.base is not None:
            tensors = models.of_decoder(self.arch, self.base.model().state_dict()) | tensors
        model = load_weights(lambda: models.create(self.arch, **self.config), tensors, called, f"a {self.arch}")
        return model.to(device).eval()

    def critic(self) -> dict[str, np.ndarray] | None:
        """Return the tensors of the critic by their names without "critic.", as the card's `critic` describes them.

        Returns:
            None if there is no critic.

        Raises:
            CheckpointError: the tensors are damaged.
        """
        if self.critic_sha256 is None:
            return None
        from safetensors import safe_open

        data = self.path.read_bytes()
        if _digest(data, of_critic=True) != self.critic_sha256:
            raise CheckpointError(f"the checkpoint '{self.name}' is damaged: its critic is not the one that was saved")
        with safe_open(self.path, framework="np") as tensors:
            names = [name for name in tensors.keys() if name.startswith(CRITIC)]  # noqa: SIM118
            return {name.removeprefix(CRITIC): tensors.get_tensor(name) for name in names}


def save(
    path: Path,
    model: LanguageModel,
    *,
    arch: str,
    tokenizer: Tokenizer,
    card: dict[str, Any],
    dtype: torch.dtype | None = None,
    critic: Mapping[str, np.ndarray] | None = None,
    base: Checkpoint | None = None,
) -> None:
    """Write a checkpoint atomically; an existing file is replaced.

    A critic belongs to one model's samples. Without one the card's `critic` is left out, too.

    Args:
        path: ends in .safetensors.
        model: its weights and config are stored.
        arch: one of `musiclm.models.names(None)`.
        tokenizer: stored whole.
        card: JSON.
        dtype: of the stored weights; unchanged if left out. Integers keep theirs.
        critic: tensors by their names, described by the card's `critic`.
        base: the bundled or installed language model that the decoder has weights of: equal ones are left out.
    """
    weights = {name: t.detach().to("cpu") for name, t in model.state_dict().items()}
    shared = {} if base is None else _shared(arch, weights, base)
    tensors = {
        name: t.to(dtype if t.is_floating_point() else None).contiguous()
        for name, t in weights.items()
        if name not in shared
    }
    checkpoint = {
        "arch": arch,
        "config": dataclasses.asdict(model.config),
        "tokenizer": tokenizer.describe(),
        "card": card if critic else {k: v for k, v in card.items() if k != "critic"},
    }
    if base is not None and shared:
        left_out = sum(t.numel() for t in shared.values())
        checkpoint["base"] = {"name": base.name, "sha256": base.sha256, "num_parameters": left_out}
    write_whole(path, pack(tensors, {KEY: json.dumps(checkpoint)}, critic))


def _shared(arch: str, weights: dict[str, torch.Tensor], base: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the weights of a model that are equal to those of the language model its decoder started from."""
    from .. import models

    theirs = models.of_decoder(arch, base.model().state_dict())
    return {name: t for name, t in theirs.items() if name in weights and t.equal(weights[name])}


def with_critic(checkpoint: Checkpoint, critic: Mapping[str, np.ndarray], card: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint's file with another critic; the model's tensors stay byte for byte.

    Args:
        checkpoint: whose critic is replaced, if it has one.
        critic: tensors by their names.
        card: the new card, with the description of the critic.
    """
    called = f"the checkpoint '{checkpoint.name}'"
    tensors = read_tensors(checkpoint.path, checkpoint.sha256, called)
    document = {
        "arch": checkpoint.arch,
        "config": checkpoint.config,
        "tokenizer": checkpoint.tokenizer_description,
        "card": card,
        **({} if checkpoint.base_described is None else {"base": checkpoint.base_described}),
    }
    return pack(tensors, {KEY: json.dumps(document)}, critic)


def pack(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], critic: Mapping[str, np.ndarray] | None = None
) -> bytes:
    """Return the bytes of a safetensors file of musiclm, whose metadata has the hashes of the tensor bytes too."""
    import torch
    from safetensors.torch import save as to_safetensors

    tensors = _unshared(tensors)
    tensors |= {CRITIC + name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in (critic or {}).items()}
    data = bytes(to_safetensors(tensors))
    hashes = {"sha256": _digest(data)} | ({"critic_sha256": _digest(data, of_critic=True)} if critic else {})
    return bytes(to_safetensors(tensors, metadata={"format": "musiclm", **hashes, **metadata}))


def read_tensors(path: Path, sha256: str, called: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file whose header was read, in their stored types, without those of a critic.

    Args:
        path: the file.
        sha256: of the bytes of these tensors, from its header.
        called: what the file is and its name, for errors: "the checkpoint 'bach-gru'".

    Raises:
        CheckpointError: the tensors are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = path.read_bytes()
    if _digest(data) != sha256:
        raise CheckpointError(f"{called} is damaged: its weights are not those that were saved")
    try:
        return {name: tensor for name, tensor in load(data).items() if not name.startswith(CRITIC)}
    except SafetensorError as error:
        raise CheckpointError(f"{called} is damaged: {error}") from error


def load_weights(make: Callable[[], Network], tensors: dict[str, torch.Tensor], called: str, kind: str) -> Network:
    """Return a network with the weights of a file, floating-point numbers as float32.

    The shapes are compared before any memory is allocated, so that a config that does not belong to the file costs none.

    Args:
        make: returns the network; called where initialisation is skipped.
        tensors: see `read_tensors`.
        called: what the file is and its name, for errors.
        kind: what the network is, for errors.

    Raises:
        CheckpointError: the network cannot be made, or its tensors are not those of the file.
    """
    from ..models import meta_init

    try:
        with meta_init():
            network = make()
        expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
        if expected != {name: tuple(t.shape) for name, t in tensors.items()}:
            raise CheckpointError(f"{called} is damaged: its tensors are not those of {kind}")
        as_float32 = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        network.load_state_dict(as_float32, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{called} is damaged: {error}") from error
    return network


def rename_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint or of a run's `resume.safetensors` by their present names.

    The head of a model was called `readout` once, and its relative-pitch part `steps`.
    """
    prefixes = ("", "weights.", "average.", "moments.")
    if any(name.startswith(tuple(f"{prefix}head." for prefix in prefixes)) for name in tensors):
        return tensors
    renamed = {}
    for name, tensor in tensors.items():
        for prefix in prefixes:
            if name.startswith(f"{prefix}readout."):
                rest = name.removeprefix(f"{prefix}readout.")
                name = f"{prefix}head." + rest.replace("steps.", "relative_pitch.", 1)
                break
        renamed[name] = tensor
    return renamed


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with memory of their own: safetensors refuses a head that shares its matrix with the embedding."""
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return found


def _digest(data: bytes, *, of_critic: bool = False) -> str:
    """Return the SHA-256 of the bytes of the tensors in a safetensors file, in the file's order, hexadecimal.

    Args:
        data: the file.
        of_critic: of the critic's tensors; else of all others.
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    spans = [
        each["data_offsets"]
        for name, each in header.items()
        if name != "__metadata__" and name.startswith(CRITIC) == of_critic
    ]
    digest, view = hashlib.sha256(), memoryview(data)[begin:]
    for first, last in sorted(spans):
        digest.update(view[first:last])
    return digest.hexdigest()


def read(path: Path, called: str) -> Checkpoint:
    """Return the checkpoint in a file; `called` is its name, also in errors.

    Raises:
        CheckpointError: it does not exist, or is damaged.
    """
    header = read_header(path, called)
    found = describe(header, KEY, called, "a language model")
    tokenizer = found.stored.get("tokenizer")
    if not isinstance(tokenizer, dict) or _largest(tokenizer) > MAX_TOKENIZER_NUMBER:
        raise CheckpointError(
            f"the checkpoint '{called}' is damaged: its tokenizer is missing, or has impossible numbers"
        )
    base = found.stored.get("base")
    if base is not None and not (isinstance(base, dict) and isinstance(base.get("num_parameters"), int)):
        raise CheckpointError(f"the checkpoint '{called}' is damaged: it does not say what its base is")
    return Checkpoint(
        name=called,
        path=path,
        arch=found.arch,
        config=_renamed_config(found.config),
        tokenizer_description=tokenizer,
        card=found.card,
        sha256=found.sha256,
        num_parameters=found.num_parameters + (base["num_parameters"] if base else 0),
        critic_sha256=header.metadata.get("critic_sha256"),
        base_described=base,
    )


def _renamed_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's config with the present names of its fields.

    `relative_pitch` was called `references` once, and before that there was one `scale` with a `reference`.
    """
    if "scale" in config:
        scale, reference = config.pop("scale"), config.pop("reference", None)
        config["references"] = [] if reference is None else [[*scale, reference]]
    if "references" in config:
        config["relative_pitch"] = config.pop("references")
    return config


def _largest(description: Any) -> int:
    """Return the largest number in a tokenizer's description, including its keys; the vocabulary's tokens are ignored."""
    if isinstance(description, dict):
        parts = [_largest(v) for k, v in description.items() if k != "vocabulary"]
        return max([0, *parts, *(int(n) for k in description for n in str(k).split("_") if n.isdigit())])
    if isinstance(description, list):
        return max([0, *(_largest(v) for v in description)])
    return description if isinstance(description, int) else 0
