"""A decoding step as a CUDA graph: its hundred kernels are launched at once, instead of one after the other by Python.

At small batch sizes a GPU computes a step faster than Python launches it. A graph repeats the same kernels on the same memory.
So in a step that is captured nothing depends on the position but a tensor: the caches have room for the whole context, and
slots that are not filled yet are masked. Captures have not been run on a GPU; the step and the bookkeeping are tested on a CPU.

B batch, D size of the model.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import State

log = logging.getLogger(__name__)

Step = Callable[[Tensor, Tensor | None, State, Tensor], Tensor]
"""(B, 1) tokens, (B, 1, F) features or None, caches that are written into, the position, (1,) -> (B, D) hidden states."""
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], object], Tensor]]
"""A function without arguments -> what repeats it, and the tensor into which the result of each repetition is written."""


class GraphedStep:
    """A step that is captured when its caches come a second time, and replayed as long as they come again.

    Other caches, those of another generation or of a branch, are computed kernel by kernel until they come twice in a row. The
    caches belong to the caller: they are remembered, not kept alive.

    Args:
        step: what is captured.
        capture: `capture` for a GPU.
    """

    def __init__(self, step: Step, capture: Capture) -> None:
        self._step, self._capture = step, capture
        self._last: list[weakref.ref[Tensor]] = []
        self._replay: Callable[[], object] | None = None
        self._can_capture = True

    def __call__(self, tokens: Tensor, features: Tensor | None, caches: State, num_before: int) -> Tensor:
        """Return the hidden states, (B, D), of the token behind `num_before` others."""
        is_repeated = self._is_last(caches)
        if not is_repeated:
            self._last, self._replay = [weakref.ref(t) for t in caches], None
        elif self._replay is None and self._can_capture:
            self._begin(tokens, features, caches, num_before)
        if self._replay is None:
            return self._step(tokens, features, caches, _position(num_before, tokens.device))
        for own, given in zip(self._inputs, (tokens, features), strict=True):
            if own is not None:
                own.copy_(given)
        self._at.fill_(num_before)
        self._replay()
        return self._output.clone()  # the next replay writes into it

    def _is_last(self, caches: Sequence[Tensor]) -> bool:
        return len(caches) == len(self._last) and all(ref() is t for ref, t in zip(self._last, caches, strict=True))

    def _begin(self, tokens: Tensor, features: Tensor | None, caches: State, num_before: int) -> None:
        """Capture the step. Running it several times at one position writes the same into the caches each time."""
        self._inputs: tuple[Tensor, Any] = tokens.clone(), None if features is None else features.clone()
        self._at = _position(num_before, tokens.device)
        try:
            self._replay, self._output = self._capture(lambda: self._step(*self._inputs, caches, self._at))
        except RuntimeError as failure:
            log.warning("decoding without a CUDA graph: %s", failure)
            self._can_capture = False


def _position(num_before: int, device: torch.device) -> Tensor:
    return torch.full((1,), num_before, dtype=torch.int64, device=device)


def capture(run: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    """Return what replays a function's kernels, and the tensor that they write into; runs it twice before that."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    return graph.replay, output
