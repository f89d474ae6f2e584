"""The head of a frozen body: a logistic regression on pooled states, each of which is computed once.

The body does not change, so reading a crop again would give nothing new. The budget is spent on crops, all of them different;
then the head is fitted to their vectors by L-BFGS, as a linear probe (Alain and Bengio 2017).

N crops, D size of the body, L labels.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..training.checks import Check, Measured
from ..training.optim import Recipe
from .crops import TagBatch
from .model import Network

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # of squared weights, of standardised vectors
USUAL_PENALTY = 1e-3  # without validation pieces
ITERATIONS = 100  # of L-BFGS
FIRST_CHECK = 1 / 16  # of the budget; each of the following is at twice the share


def train_head(
    network: Network,
    crops: Callable[[int], TagBatch],
    measure: Callable[[nn.Module], Measured | None],
    recipe: Recipe,
    *,
    clock: Callable[[], float],
    should_stop: Callable[[], bool] = bool,
) -> Iterator[Check[Network]]:
    """Yield a check of the head that is fitted to what was read so far, at a sixteenth, an eighth, ... and all of the budget.

    A step reads a batch of crops.

    Args:
        network: with a frozen body; it is not changed.
        crops: a function from the number of a step, counted from 0, to its batch.
        measure: returns what a head reaches on pooled vectors of validation pieces; None without any.
        recipe: the budget and the precision.
        clock: of the budget in seconds.
        should_stop: asked before each step.
    """
    network = copy.deepcopy(network).eval()
    vectors: list[Tensor] = []
    targets: list[Tensor] = []
    begin, next_check, merit = clock(), FIRST_CHECK, -math.inf
    best: Network | None = None
    for number in itertools.count(1):
        if should_stop():
            return
        batch = crops(number - 1)
        vectors.append(pooled(network, batch, recipe))
        targets.append(batch.targets)
        seconds = clock() - begin
        progress = recipe.progress(number, seconds)
        if progress < next_check:
            continue
        next_check = min(1.0, max(2 * next_check, 2 * progress))
        loss, found = _fit_best(network.head, torch.cat(vectors), torch.cat(targets), measure)
        reached = math.inf if found is None else found.merit
        is_best = best is None or reached >= merit
        if best is None or is_best:
            best, merit = copy.deepcopy(network), reached
        yield Check(
            step=number,
            seconds=seconds,
            loss=loss,
            validation=None if found is None else found.loss,
            figure=None if found is None else found.figure,
            is_best=is_best,
            best=best,
        )
        if progress >= 1:
            return


@torch.no_grad()
def pooled(network: Network, batch: TagBatch, recipe: Recipe) -> Tensor:
    """Return the vector of each crop that the head reads, (N, D) float32 on the CPU."""
    device = next(network.parameters()).device
    with recipe.autocast(device):
        return network.pooled(batch.to(device)).float().cpu()


def _fit_best(
    head: nn.Linear, vectors_ND: Tensor, targets_N: Tensor, measure: Callable[[nn.Module], Measured | None]
) -> tuple[float, Measured | None]:
    """Fit a head with the penalty that validation selects; return the training loss in nats, and what the head reaches."""
    fitted = []
    for penalty in PENALTIES:
        candidate = copy.deepcopy(head).cpu()
        loss = fit_head(candidate, vectors_ND, targets_N, penalty)
        found = measure(candidate)
        if found is not None or penalty == USUAL_PENALTY:
            fitted.append((candidate, loss, found))
    candidate, loss, found = max(fitted, key=lambda each: 0.0 if each[2] is None else each[2].merit)
    head.load_state_dict(candidate.state_dict())
    return loss, found


def fit_head(head: nn.Linear, vectors_ND: Tensor, targets_N: Tensor, penalty: float) -> float:
    """Fit a linear head to vectors by L-BFGS from zero, and return its cross-entropy in nats without the penalty.

    Args:
        head: is changed.
        vectors_ND: what it reads. They are standardised for the fit, which the weights undo.
        targets_N: the numbers of the labels.
        penalty: of the squared weights of standardised vectors, as a multiple of their sum.
    """
    mean_D, std_D = vectors_ND.mean(0), vectors_ND.std(0, correction=0).clamp(min=1e-6)
    x_ND = (vectors_ND - mean_D) / std_D
    weight_LD = torch.zeros_like(head.weight, requires_grad=True)
    bias_L = torch.zeros_like(head.bias, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_LD, bias_L], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x_ND, weight_LD, bias_L), targets_N) + penalty * weight_LD.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.weight.copy_(weight_LD / std_D)
        head.bias.copy_(bias_L - head.weight @ mean_D)
        return float(F.cross_entropy(head(vectors_ND), targets_N))
