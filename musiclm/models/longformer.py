"""The Longformer (Beltagy et al. 2020) as a causal model: a sliding window, and global tokens at any distance.

Each token attends to the `window` tokens up to itself, in some heads with gaps (dilation), and to the last `num_global`
global tokens: bars and sections, where the tokenizer has them. A global token has read the music before it, so attention to
it reaches back by many bars at a small cost. A global token in the window counts once. Time and memory are linear in the
length of the music, and the state is bounded: two ring buffers per layer.

What differs from the paper:
- A token sees only what is before it. So global tokens do not attend to the whole sequence, they are only attended to.
- As in the paper they have projections of their own, here of keys and values, used wherever they are attended to. Queries
  have one projection for all tokens.
- Positions are rotations of queries and keys (Su et al. 2021), not learned vectors for absolute positions: distances are all
  that a window needs, they are the same at any length of music, and they keep the streaming invariant. The distance to a
  global token outside the window is counted in global tokens ("three bars ago"), which is at most `num_global`, so that no
  distance occurs later that did not occur in training.

Without `global_ids` it is attention to a sliding window.

B batch, H heads, T new tokens, S cached and new tokens, L slots of a ring, G global tokens that are kept, D size of the
model, E size of a head, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import resolve_precision
from .base import Embedding, Head, LanguageModel, State
from .layers import quantized
from .layers.blocks import Block, TransformerConfig, initialize, merge_heads, split_heads
from .layers.dropout import Dropout
from .layers.incremental import IncrementalBlock, IncrementalModel, pack
from .layers.positions import rotate, rotations
from .layers.window_attention import GlobalTokens, Group, at, head_groups, in_window, make_spans, window_attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TransformerConfig):
    """The hyperparameters of a Longformer; the size of a head is even.

    Attributes:
        window: number of tokens that a head attends to, including the token itself.
        dilations: of each head, the distance between two tokens of its window; () for 1 everywhere.
        num_global: number of global tokens that a token attends to.
        global_ids: the ids of global tokens. Training takes them from the tokenizer.
    """

    window: int = 256
    dilations: tuple[int, ...] = ()
    num_global: int = 64
    global_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_size(2)
        for name in ("dilations", "global_ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if self.dilations and (len(self.dilations) != self.num_heads or min(self.dilations) < 1):
            raise ValueError(f"dilations must be {self.num_heads} numbers from 1, one per head, not {self.dilations}")
        if any(not 0 <= i < self.vocab_size for i in self.global_ids):
            raise ValueError(f"global_ids must be ids below {self.vocab_size}, not {self.global_ids}")


PRESETS = {
    "tiny": {
        "size": 128, "num_layers": 2, "num_heads": 2, "window": 128, "dilations": (1, 4), "num_global": 64, "dropout": 0.1,
    },
    "small": {
        "size": 256, "num_layers": 4, "num_heads": 4, "window": 256, "dilations": (1, 1, 1, 4), "num_global": 64,
        "dropout": 0.1,
    },
    "base": {
        "size": 384, "num_layers": 6, "num_heads": 6, "window": 512, "dilations": (1, 1, 1, 1, 1, 4), "num_global": 64,
        "dropout": 0.1,
    },
}  # fmt: skip
TRAINING = {"learning_rate": 1.5e-3, "batch_size": 2, "window": 1024}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """What all layers need to know of a pass over new tokens.

    Attributes:
        num_before: tokens before the new ones.
        num_new: T.
        near: rotations by the position of each new token, (T, E / 2).
        is_global_BT: which of the new tokens are global; None in a model without global tokens, like all that follows.
        far: rotations by the number of global tokens up to each new token, (B, 1, T, E / 2).
        global_tokens: the global tokens, kept and new.
        kept_BG: their slots that the next pass keeps.
        groups: of heads; empty for a single token.
        far_masks: of a single token and each group of heads, 0 for kept global tokens to attend to, else -inf, (B, 1, 1, G).
    """

    num_before: int
    num_new: int
    near: Tensor
    is_global_BT: Tensor | None = None
    far: Tensor | None = None
    global_tokens: GlobalTokens | None = None
    kept_BG: Tensor | None = None
    groups: Sequence[Group] = ()
    far_masks: Sequence[Tensor] = ()


class Model(LanguageModel):
    """Embedding, then pre-norm blocks.

    The state is the number of tokens so far, (B,); with `global_ids` the number of global ones, (B,), and the positions of
    the last of them, (B, G); then of each layer the keys and values of each group of heads with one dilation, (B, H, L, E)
    with token p in slot p mod L; with `global_ids` also those of the last global tokens, (B, H, G, E), the newest last. Keys
    are rotated.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embedding = Embedding(config, config.size)
        self.dropout = Dropout(config.dropout)
        blocks = [Block(Attention(config), config.size, config.dropout) for _ in range(config.num_layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.size)
        self.head = Head(config, config.size)
        initialize(self, blocks)

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x_BTD = self.dropout(self.embedding(tokens, features))
        plan, common, layers = begin_pass(self.config, tokens, state, x_BTD.dtype)
        after: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x_BTD, kept = block(x_BTD, (layers[i], plan))
            after += kept
        return self.norm(x_BTD), (*common, *after)

    def for_generation(self, precision: str = "auto") -> LanguageModel:
        return IncrementalLongformer(self, resolve_precision(precision, next(self.parameters()).device))


def begin_pass(
    config: Config, tokens: Tensor, state: State | None, dtype: torch.dtype
) -> tuple[Pass, State, Sequence[State | None]]:
    """Return what a pass over tokens needs, the part of the new state that layers share, and each layer's old state."""
    num_tokens, device = tokens.shape[1], tokens.device
    num_before = 0 if state is None else int(state[0][0])
    positions_T = torch.arange(num_before, num_before + num_tokens, device=device)
    head_size = config.size // config.num_heads
    fields: dict[str, Any] = {"near": rotations(positions_T, head_size)}
    common: State = (torch.full_like(tokens[:, 0], num_before + num_tokens),)
    num_common = 1
    if config.global_ids:
        num_common = 3
        if state is None:
            kept = common[0] * 0, common[0].new_zeros(len(tokens), config.num_global)
        else:
            kept = state[1], state[2]
        is_global_BT = torch.isin(tokens, torch.tensor(config.global_ids, device=device))
        global_tokens, slots_BG = find_global_tokens(is_global_BT, positions_T, *kept)
        common += global_tokens.counts_BT[:, -1], global_tokens.positions_BJ.gather(1, slots_BG)
        fields |= {"is_global_BT": is_global_BT, "global_tokens": global_tokens, "kept_BG": slots_BG}
        fields["far"] = rotations(global_tokens.counts_BT, head_size)[:, None]
    like = torch.zeros((), dtype=dtype, device=device)
    dilations = config.dilations or (1,) * config.num_heads
    if num_tokens == 1 and state is not None and config.global_ids:
        fields["far_masks"] = [_far_mask(common, config.window, d, like) for _, d in head_groups(dilations)]
    if num_tokens > 1 or state is None or torch.is_grad_enabled():
        num_cached = min(num_before, config.window * max(dilations))
        fields["groups"] = [
            Group(
                heads,
                make_spans(num_tokens, num_cached, config.window, d, num_before, fields.get("global_tokens"), like),
            )
            for heads, d in head_groups(dilations)
        ]
    each = 0 if state is None else (len(state) - num_common) // config.num_layers
    layers = [
        None if state is None else state[num_common + each * i : num_common + each * (i + 1)]
        for i in range(config.num_layers)
    ]
    return Pass(num_before=num_before, num_new=num_tokens, **fields), common, layers


def find_global_tokens(
    is_global_BT: Tensor, positions_T: Tensor, before_B: Tensor, positions_BG: Tensor
) -> tuple[GlobalTokens, Tensor]:
    """Return the global tokens of a pass, and the slots of those that are the last after it, (B, G)."""
    num_kept = positions_BG.shape[1]
    counts_BT = before_B[:, None] + is_global_BT.cumsum(1)
    num_new_B = counts_BT[:, -1] - before_B
    indices_BJ = torch.argsort(~is_global_BT, dim=1, stable=True)[:, : int(num_new_B.max())]
    global_tokens = GlobalTokens(
        num_kept=num_kept,
        positions_BJ=torch.cat([positions_BG, positions_T[indices_BJ]], 1),
        before_B=before_B,
        counts_BT=counts_BT,
        indices_BJ=indices_BJ,
    )
    return global_tokens, num_new_B[:, None] + torch.arange(num_kept, device=before_B.device)


def _far_mask(common: State, window: int, dilation: int, like: Tensor) -> Tensor:
    """Return the mask of kept global tokens for the last token of a state, (B, 1, 1, G)."""
    count_B, count_global_B, positions_BG = common
    numbers_BG = count_global_B[:, None] - torch.arange(positions_BG.shape[1], 0, -1, device=like.device)
    away_BG = count_B[:, None] - 1 - positions_BG
    allowed = (numbers_BG >= 0) & ~in_window(away_BG, window, dilation)
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill_(~allowed, float("-inf"))[:, None, None]


class Attention(nn.Module):
    """Causal attention to a sliding window and to global tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.window = config.num_heads, config.window
        self.heads = head_groups(config.dilations or (1,) * config.num_heads)
        self.queries_keys_values = nn.Linear(config.size, 3 * config.size)
        if config.global_ids:
            self.global_keys_values = nn.Linear(config.size, 2 * config.size)
        self.out = nn.Linear(config.size, config.size)

    def forward(self, x_BTD: Tensor, cache: tuple[State | None, Pass]) -> tuple[Tensor, State]:
        """Return the output, (B, T, D), and the keys and values that the next tokens attend to."""
        kept, plan = cache
        q_BTD, kv_BTK = self.queries_keys_values(x_BTD).split([x_BTD.shape[-1], 2 * x_BTD.shape[-1]], -1)
        if plan.is_global_BT is not None:
            of_global = self.global_keys_values(x_BTD[plan.is_global_BT])
            kv_BTK = kv_BTK.masked_scatter(plan.is_global_BT[..., None], of_global)
        q, k, v = (
            split_heads(t, self.num_heads).contiguous()  # otherwise each span copies them
            for t in (q_BTD, *kv_BTK.chunk(2, -1))
        )
        if kept is not None and plan.num_new == 1 and not torch.is_grad_enabled():
            y_BHTE, kept = self.attend_once(q, k, v, kept, plan)
        else:
            y_BHTE, kept = self.attend(q, k, v, kept, plan)
        return self.out(merge_heads(y_BHTE)), kept

    def attend(self, q: Tensor, k: Tensor, v: Tensor, kept: State | None, plan: Pass) -> tuple[Tensor, State]:
        """Return the attention of new tokens, (B, H, T, E), and the new state of the layer."""
        near = rotate(k, plan.near)
        far: tuple[Any, ...] = ()
        after: list[Tensor] = []
        if plan.global_tokens is not None and plan.far is not None:
            k_far = at(rotate(k, plan.far), plan.global_tokens.indices_BJ)
            v_far = at(v, plan.global_tokens.indices_BJ)
            before = torch.zeros_like(k[:, :, :1]).expand(-1, -1, plan.global_tokens.num_kept, -1)
            k_kept, v_kept = (before, before) if kept is None else kept[-2:]
            k_far = torch.cat([k_kept, k_far], 2)
            far = rotate(q, plan.far), k_far, None if kept is None else v_kept, plan.global_tokens
            assert plan.kept_BG is not None
            after = [at(k_far, plan.kept_BG), at(torch.cat([v_kept, v_far], 2), plan.kept_BG)]
        keys, values, rings = self._continued(near, v, kept, plan)
        y_BHTE = window_attention(rotate(q, plan.near), keys, values, plan.groups, *far)
        return y_BHTE, (*rings, *after)

    def _continued(self, k: Tensor, v: Tensor, kept: State | None, plan: Pass) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return cached and new keys and values in chronological order, (B, H, S, E) each, and the rings after them."""
        num_seen = plan.num_before + plan.num_new
        most = min(plan.num_before, self.window * max(d for _, d in self.heads))
        rings, whole = [], []
        for which, new in enumerate((k, v)):
            parts = []
            for i, (heads, dilation) in enumerate(self.heads):
                num_slots = self.window * dilation
                part = new[:, heads]
                if kept is not None:
                    slots = torch.arange(max(0, plan.num_before - num_slots), plan.num_before, device=k.device)
                    cached = kept[2 * i + which].index_select(2, slots % num_slots)
                    part = torch.cat([F.pad(cached, (0, 0, most - len(slots), 0)), part], 2)  # zeros are out of reach
                parts.append(part)
                slots = torch.arange(max(0, num_seen - num_slots), num_seen, device=k.device) % num_slots
                ring = part.new_zeros(*part.shape[:2], num_slots, part.shape[3])
                rings.append(ring.index_copy(2, slots, part[:, :, part.shape[2] - len(slots) :]))
            whole.append(new if kept is None else torch.cat(parts, 1))
        num_groups = len(self.heads)
        pairs = zip(rings[:num_groups], rings[num_groups:], strict=True)
        return whole[0], whole[1], [ring for pair in pairs for ring in pair]

    def attend_once(self, q: Tensor, k: Tensor, v: Tensor, kept: State, plan: Pass) -> tuple[Tensor, State]:
        """Return the attention of a single token, (B, H, 1, E), and the new state of the layer; the old one is written to.

        Rotations hold the distances, so the slots of a ring need no order. Those of a dilated window are every d-th.
        """
        near_q, near_k = rotate(q, plan.near) * q.shape[-1] ** -0.5, rotate(k, plan.near)
        after: State = ()
        if plan.far is not None:
            assert plan.is_global_BT is not None
            far_q, (k_far, v_far) = rotate(q, plan.far) * q.shape[-1] ** -0.5, kept[-2:]
            if plan.is_global_BT.any():
                is_new = plan.is_global_BT[:, :, None, None]
                k_far = torch.where(is_new, torch.cat([k_far[:, :, 1:], rotate(k, plan.far)], 2), k_far)
                v_far = torch.where(is_new, torch.cat([v_far[:, :, 1:], v], 2), v_far)
            after = k_far, v_far
        outputs = []
        for i, (heads, dilation) in enumerate(self.heads):
            keys, values = kept[2 * i : 2 * i + 2]
            slot = plan.num_before % keys.shape[2]
            keys[:, :, slot], values[:, :, slot] = near_k[:, heads, 0], v[:, heads, 0]
            seen = slice(slot % dilation, min(plan.num_before + 1, keys.shape[2]), dilation)
            scores = near_q[:, heads] @ keys[:, :, seen].transpose(-1, -2)
            if plan.far is None:
                outputs.append(scores.softmax(-1) @ values[:, :, seen])
                continue
            far = far_q[:, heads] @ k_far[:, heads].transpose(-1, -2) + plan.far_masks[i]
            near, far = torch.cat([scores, far], -1).softmax(-1).split([scores.shape[-1], far.shape[-1]], -1)
            outputs.append(near @ values[:, :, seen] + far @ v_far[:, heads])
        y_BHTE = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        return y_BHTE, (*kept[: 2 * len(self.heads)], *after)


class IncrementalLongformer(IncrementalModel):
    """The form of a Longformer for decoding: one token at a time runs on packed weights; the state is the model's own."""

    def __init__(self, whole: Model, precision: str) -> None:
        super().__init__(whole, precision)
        self._embedding = quantized.fuse_embedding(whole.embedding)  # type: ignore[arg-type]
        blocks: Any = whole.blocks
        self._steps = [
            IncrementalBlock(block, block.attention.out, _Attention(block.attention, precision), precision)
            for block in blocks
        ]
        self.norm = whole.norm

    def encode(
        self, tokens: Tensor, state: State | None = None, features: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if state is None or tokens.shape[1] > 1:
            hidden_BTD: Tensor
            hidden_BTD, state = self.whole.encode(tokens, state, features)
            return hidden_BTD, state
        x_BD = self._embedding(tokens, features)[:, 0]
        plan, common, layers = begin_pass(self.config, tokens, state, x_BD.dtype)
        after: list[Tensor] = []
        for step, kept in zip(self._steps, layers, strict=True):
            assert kept is not None
            x_BD, new = step(x_BD, kept, plan)
            after += new
        return self.norm(x_BD)[:, None], (*common, *after)


class _Attention:
    """Attention of one token per batch element."""

    def __init__(self, attention: Attention, precision: str) -> None:
        self.attention = attention
        self.queries_keys_values = pack(attention.queries_keys_values, precision)
        if hasattr(attention, "global_keys_values"):
            self.global_keys_values = pack(attention.global_keys_values, precision)

    def __call__(self, x_BD: Tensor, kept: State, plan: Pass) -> tuple[Tensor, State]:
        """Return the attention, (B, D), and the layer's new state."""
        qkv = self.queries_keys_values(x_BD)
        if plan.is_global_BT is not None and plan.is_global_BT.any():
            of_global = torch.cat([qkv[:, : x_BD.shape[1]], self.global_keys_values(x_BD)], 1)
            qkv = torch.where(plan.is_global_BT, of_global, qkv)
        q, k, v = (split_heads(t[:, None], self.attention.num_heads) for t in qkv.chunk(3, -1))
        y_BHTE, kept = self.attention.attend_once(q, k, v, kept, plan)
        return y_BHTE.flatten(1), kept
