"""Recording of attention: how much each head of each layer attends to groups of tokens, during a forward pass.

Attention is linear in its values. So a recorded function runs a second time with other values, one-hot rows that say to
which group each token belongs; its output is the attention to each group. This includes whatever the model adds to its
scores, and no matrix of queries x keys is kept.

The recorder is a context variable: each thread has its own, and another thread that runs the same model is not recorded.

B batch, H heads, T queries, S keys, N groups.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

Attend = TypeVar("Attend", bound=Callable[..., Any])


class Recorder:
    """What the layers of a model attended to.

    Attributes:
        groups_SN: the share of each token in each group.
        queries: which tokens' attention is kept, (Q,).
        layers: for each recorded call, the attention of each head and kept query to each group, (B, H, Q, N).
    """

    def __init__(self, groups_SN: Tensor, queries: Tensor) -> None:
        self.groups_SN = groups_SN
        self.queries = queries
        self.layers: list[Tensor] = []


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def record_attention(groups_SN: Tensor, queries: Tensor) -> Iterator[Recorder]:
    """Record the attention of all models that this thread runs within the block.

    Args:
        groups_SN: the share of each token of the sequence in each group; the sequence is processed in one pass.
        queries: indices of the tokens whose attention is kept, (Q,).

    Yields:
        the recorder, empty if the model has no attention function that is `recordable`.
    """
    recorder = Recorder(groups_SN, queries)
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


def recordable(attend: Attend) -> Attend:
    """Make an attention function recordable: (q (B, H, T, E), k (B, H, S, E), v (B, H, S, any), ...) -> (B, H, T, any).

    It may return a tuple that begins with that.
    """

    @functools.wraps(attend)
    def attended(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = None if torch.compiler.is_compiling() else _recorder.get()
        if recorder is not None:
            values_BHSN = recorder.groups_SN.to(v.dtype).expand(*k.shape[:2], -1, -1)
            found = attend(q, k, values_BHSN, *args, **kwargs)
            found_BHTN = found[0] if isinstance(found, tuple) else found
            recorder.layers.append(found_BHTN[:, :, recorder.queries])
        return attend(q, k, v, *args, **kwargs)

    return attended  # type: ignore[return-value]
