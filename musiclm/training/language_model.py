"""Training a language model by next-token cross-entropy: its loss on the parts of a batch, computed by one process or several.

B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.crops import IGNORE, Batch
from ..data.loader import load
from ..evaluation.paired import predict
from ..models.base import LanguageModel, State
from ..models.layers.dropout import Dropout, by_element
from .carry import CarriedState
from .loop import Loss, Step, TrainingState, fit
from .optim import Recipe, make_optimizers
from .ranks import ALONE, Ranks

DISTILLATION_WEIGHT = 0.9


def train(
    model: LanguageModel,
    batches: Callable[..., Batch] | Iterable[Batch],
    recipe: Recipe,
    *,
    average: LanguageModel,
    start: TrainingState | None = None,
    teacher: LanguageModel | None = None,
    distillation_weight: float = DISTILLATION_WEIGHT,
    clock: Callable[[], float] = time.monotonic,
    should_stop: Callable[[], bool] = bool,
    accumulation: int = 1,
    ranks: Ranks = ALONE,
) -> Iterator[Step[LanguageModel]]:
    """Return the steps of training a language model by next-token cross-entropy; see `fit` for the other arguments.

    Where batches continue each other (`Batch.begins`), the model's state is carried, see `CarriedState`.

    Args:
        batches: crops of `musiclm.data`, which give elements of a batch by its number; or the batches in order, for one
            process that computes them whole.
        teacher: a model on the same device, to distil: its probabilities are soft labels (Hinton et al. 2015).
        distillation_weight: the weight of the soft-label loss, 0 … 1; the next-token loss has the rest.
        accumulation: in how many parts a process computes its share of a batch, one after the other, which takes less memory.
    """
    device = next(model.parameters()).device
    elements = None
    if accumulation > 1 or ranks.size > 1:
        elements = ranks.elements(batches.batch_size, accumulation)  # type: ignore[union-attr]
    losses = BatchLoss(
        ranks.parallel(Predicting(model)),
        recipe,
        elements,
        CarriedState({} if start is None else start.tensors, device, elements, ranks),
        ranks,
        teacher,
        distillation_weight,
    )

    def before_step(step: int) -> None:
        model.on_step(step)
        average.on_step(step)

    return fit(
        model,
        _divided(batches, elements, 0 if start is None else start.step, device),
        losses,
        recipe,
        average=average,
        optimizers=make_optimizers(model, recipe),
        start=start,
        clock=clock,
        should_stop=should_stop,
        before_step=before_step,
        carried=losses.carried.tensors,
        ranks=ranks,
    )


class Predicting(nn.Module):
    """A language model whose forward pass is `predict`, so that processes can train it in parallel."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        """Return the logits of a batch, (B, T, V), and the new state."""
        return predict(self.model, batch, state)


class BatchLoss:
    """The loss of a batch, part by part, as `fit` takes it.

    Args:
        predicting: a `Predicting`, wrapped where several processes train it.
        recipe: of the run.
        elements: of each part which elements of the batch it has; None for all of them in one part.
        carried: the state between batches that continue each other.
        ranks: the processes that compute the batch.
        teacher: see `train`.
        distillation_weight: see `train`.
    """

    def __init__(
        self,
        predicting: nn.Module,
        recipe: Recipe,
        elements: Sequence[range] | None,
        carried: CarriedState,
        ranks: Ranks,
        teacher: LanguageModel | None,
        distillation_weight: float,
    ) -> None:
        self.predicting, self.recipe, self.elements, self.carried = predicting, recipe, elements, carried
        self.ranks, self.teacher, self.distillation_weight = ranks, teacher, distillation_weight
        self.has_dropout = any(isinstance(module, Dropout) and module.p for module in predicting.modules())

    def __call__(self, model: LanguageModel, parts: Sequence[Batch], step: int) -> Iterator[Loss]:
        """Yield the loss of each part; all of them, of all processes, sum to the mean over the targets of the batch."""
        device = next(model.parameters()).device
        (num_targets,) = self.ranks.total([sum(part.num_tokens for part in parts)])
        for i, part in enumerate(parts):
            batch = part.to(device)
            elements = range(len(batch.tokens)) if self.elements is None else self.elements[i]
            with self._masks(step, elements, device), self._gathering(is_last=i == len(parts) - 1):
                with self.recipe.autocast(device):
                    logits, state = self.predicting(batch, self.carried.before(batch, i))
                self.carried.keep(batch, state, i)
                total, nats = self._means(logits.float(), batch, part.num_tokens)
                share = part.num_tokens / max(1.0, num_targets)
                gradient_share = share * self.ranks.size  # gradients are averaged over the processes
                yield Loss(total=total * gradient_share, nats=nats.detach() * share, num_targets=part.num_tokens)

    def _masks(self, step: int, elements: range, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """Return the context of a part's dropout; without dropout, a generator for each element is a waste of time."""
        return by_element(self.recipe.seed, step, elements, device) if self.has_dropout else contextlib.nullcontext()

    def _gathering(self, *, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a part: the processes exchange gradients in the last one."""
        if is_last or not self.ranks.is_joined:
            return contextlib.nullcontext()
        return self.predicting.no_sync()  # type: ignore[operator]

    def _means(self, logits_BTV: Tensor, batch: Batch, num_targets: int) -> tuple[Tensor, Tensor]:
        """Return the minimized loss and the cross-entropy, means over the targets of a part."""
        if not num_targets:  # counted on the CPU: to count on a GPU is to wait for it
            return logits_BTV.sum() * 0.0, logits_BTV.new_zeros(())
        nats = F.cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        if self.teacher is None:
            return nats, nats
        labels = _soft_labels(self.teacher, batch, self.recipe)
        soft = F.cross_entropy(logits_BTV[batch.mask], labels[batch.mask])
        return self.distillation_weight * soft + (1 - self.distillation_weight) * nats, nats


def _divided(
    batches: Callable[..., Batch] | Iterable[Batch], elements: Sequence[range] | None, first: int, device: torch.device
) -> Iterable[list[Batch]]:
    """Return the parts of each batch, from batch `first` on; see `train` and `_parts`."""
    if callable(batches):
        return load(functools.partial(_parts, batches, elements), first, device)
    return ([batch] for batch in batches)


def _parts(batches: Callable[..., Batch], elements: Sequence[range] | None, number: int) -> list[Batch]:
    """Return the parts of batch `number` that a process computes; the whole of it without `elements`."""
    if elements is None:
        return [batches(number)]
    first = elements[0].start
    share = batches(number, slice(first, elements[-1].stop))
    return [share.elements(slice(part.start - first, part.stop - first)) for part in elements]


@torch.no_grad()
def _soft_labels(teacher: LanguageModel, batch: Batch, recipe: Recipe) -> Tensor:
    """Return a teacher's probabilities of the targets of a batch, (B, T, V)."""
    with recipe.autocast(batch.tokens.device):
        logits, _ = predict(teacher, batch)
    return logits.float().softmax(-1)
