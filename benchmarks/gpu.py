"""Training and decoding on one GPU: tokens/s, model FLOPs utilization, and Hugging Face's GPT-2 beside them.

    pip install "transformers>=4.48"         # for the GPT-2; without it those rows are left out, and said
    python benchmarks/gpu.py --json          # one CUDA device, under eight minutes
    python benchmarks/gpu.py --dry-run --json  # the same code on a CPU with tiny sizes: no figures to quote

Training: `rotary` and `transformer` (relative positions) of about 20 and 100 million parameters in matrices, context and crops
of 2,048 tokens. A step is forward under autocast to bfloat16 (compiled by torch.compile where that works; see "compiled"),
cross-entropy in float32, backward, clipping, fused AdamW. Dropout is 0. The batch is the largest power of two that fits, up to
--batch-tokens. Rounds alternate between the models and a matrix product; a ratio is the median of the rounds' ratios.

FLOPs of a token in training: 6 N + 6 L D T for `rotary`, 6 N + 9 L D T for `transformer`. N is the number of weights in
linear layers (2 FLOPs forward, 4 backward each), T the crop's length, L layers, D the size. A token attends to T / 2 tokens on
average: queries times keys and weights times values are 2 D T forward, three times that with backward (Chowdhery et al. 2022,
appendix B, halved for causal attention). Relative attention has a third product, queries times distances. What a backward pass
computes again is not counted, nor are embeddings, norms and the optimizer. `fraction_of_matmul_peak`, the utilization, is
those FLOPs/s over the FLOP/s of a bfloat16 product of two square matrices in the same round.

Decoding: a `rotary` and a `transformer` of the smaller size in bfloat16, and a GPT-2 of that depth and width in bfloat16 with
its cache by `generate`; each samples --tokens tokens behind one prompt token at batch sizes 1, 16 and 256, in turn.
`synchronizations_per_token` counts how often a decoding step of ours waits for the device (CUDA's sync debug mode).

Agreement: the largest difference between relative attention as it runs on the device and the reference in float64 on the
same numbers, of the output and of each gradient, relative to the largest magnitude of the reference.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musiclm import models
from musiclm.generation.decode import sample_ids
from musiclm.models.layers.relative_attention import reference_relative_attention, relative_attention

VOCAB = 713  # ids of the `score` tokenizer
ARCHS = ("rotary", "transformer")
PRODUCTS_PER_PAIR = {"rotary": 2, "transformer": 3}  # of a query with a key: scores, values, distances


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """A model's width and depth."""

    size: int
    num_layers: int
    num_heads: int


SIZES = {
    "20M": Size(size=512, num_layers=6, num_heads=8),
    "100M": Size(size=1024, num_layers=8, num_heads=16),
}
DRY_SIZES = {"20M": Size(size=32, num_layers=1, num_heads=2), "100M": Size(size=64, num_layers=2, num_heads=2)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make(arch: str, size: Size, context: int) -> Any:
    torch.manual_seed(0)
    return models.create(arch, VOCAB, **dataclasses.asdict(size), context=context, dropout=0.0)


def flops_per_token(model: nn.Module, arch: str, size: Size, length: int) -> int:
    """Return the FLOPs of a token in training; the formula is in the module's docstring."""
    num_weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return 6 * num_weights + 3 * PRODUCTS_PER_PAIR[arch] * size.num_layers * size.size * length


class Trainer:
    """A model with its optimizer on the device, ready to take steps."""

    def __init__(self, arch: str, name: str, size: Size, a: argparse.Namespace) -> None:
        self.arch, self.name, self.a = arch, name, a
        self.model = make(arch, size, a.length).to(a.device).train()
        self.flops_per_token = flops_per_token(self.model, arch, size, a.length)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.batch_size = max(1, a.batch_tokens // a.length)
        self.compiled = not a.no_compile
        self.loss: Callable[[Tensor], Tensor] = torch.compile(self._loss) if self.compiled else self._loss

    def _loss(self, ids: Tensor) -> Tensor:
        with torch.autocast(self.a.device, torch.bfloat16):
            logits = self.model(ids[:, :-1])[0]
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def step(self) -> None:
        """Take one training step."""
        loss = self.loss(self.ids)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def warm_up(self) -> None:
        """Take steps until one works: with half the batch where memory is short, not compiled where that fails."""
        while True:
            self.ids = torch.randint(0, VOCAB, (self.batch_size, self.a.length + 1), device=self.a.device)
            try:
                timed(self.step, 2, self.a)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
            except Exception as failure:  # of the compiler: whatever it raises, the model itself still runs
                if not self.compiled:
                    raise
                say(f"{self.name} {self.arch}: not compiled ({type(failure).__name__}: {str(failure)[:200]})")
                self.compiled, self.loss = False, self._loss
            else:
                return
            self.optimizer.zero_grad(set_to_none=True)
            torch.compiler.reset()
            if self.a.device == "cuda":
                torch.cuda.empty_cache()

    def tokens_per_second(self) -> float:
        seconds = timed(self.step, self.a.steps, self.a)
        return self.a.steps * self.batch_size * self.a.length / seconds


def timed(do: Callable[[], object], times: int, a: argparse.Namespace) -> float:
    """Return the seconds that doing it so many times takes, the device's work included."""
    synchronize(a)
    began = time.perf_counter()
    for _ in range(times):
        do()
    synchronize(a)
    return time.perf_counter() - began


def synchronize(a: argparse.Namespace) -> None:
    if a.device == "cuda":
        torch.cuda.synchronize()


def matmul_flops(a: argparse.Namespace) -> float:
    """Return the FLOP/s of a bfloat16 product of two square matrices."""
    left, right = (torch.randn(a.matmul, a.matmul, device=a.device).bfloat16() for _ in range(2))
    left @ right
    times = 2 if a.dry_run else 20
    return times * 2 * a.matmul**3 / timed(lambda: left @ right, times, a)


def training(name: str, size: Size, a: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Return a row for each architecture of one size: speed, utilization, memory."""
    trainers = [Trainer(arch, name, size, a) for arch in ARCHS]
    peaks = []
    for each in trainers:
        if a.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        each.warm_up()
        peaks.append(torch.cuda.max_memory_allocated() / 1e9 if a.device == "cuda" else None)
        say(f"{name} {each.arch}: batch {each.batch_size} x {a.length}, compiled: {each.compiled}")
    rounds: list[tuple[float, list[float]]] = []
    while len(rounds) < a.rounds and (not rounds or time.monotonic() < deadline):
        rounds.append((matmul_flops(a), [each.tokens_per_second() for each in trainers]))
    rows = []
    for i, (each, peak) in enumerate(zip(trainers, peaks, strict=True)):
        fractions = [speeds[i] * each.flops_per_token / matmul for matmul, speeds in rounds]
        rows.append(
            {
                "size": name,
                "arch": each.arch,
                "num_parameters": each.model.num_parameters,
                "batch_size": each.batch_size,
                "length": a.length,
                "compiled": each.compiled,
                "rounds": len(rounds),
                "flops_per_token": each.flops_per_token,
                "tokens_per_second": statistics.median(speeds[i] for _, speeds in rounds),
                "matmul_flops_per_second": statistics.median(matmul for matmul, _ in rounds),
                "fraction_of_matmul_peak": statistics.median(fractions),
                "peak_memory_gb": peak,
            }
        )
    return rows


def hugging_face(size: Size, a: argparse.Namespace) -> Any:
    """Return a GPT-2 of this size for decoding; None if transformers is not installed."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        say("transformers is not installed: no ratio to Hugging Face (pip install transformers)")
        return None
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=a.length,
        n_embd=size.size,
        n_layer=size.num_layers,
        n_head=size.num_heads,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    return GPT2LMHeadModel(config).eval().to(a.device, torch.bfloat16)


def decoding(size: Size, a: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Return a row for each batch size: tokens/s of each side and ratios to Hugging Face's."""
    forms = {arch: make(arch, size, a.length).to(a.device).eval().for_generation("bf16") for arch in ARCHS}
    gpt2 = hugging_face(size, a)
    rows = []
    for batch in a.batches:
        prompt = torch.zeros(batch, 1, dtype=torch.int64, device=a.device)
        sides: dict[str, Callable[[], Any]] = {
            arch: lambda form=form, prompt=prompt: list(islice(sample_ids(form, prompt), a.tokens))  # type: ignore[misc]
            for arch, form in forms.items()
        }
        if gpt2 is not None:
            sides["hf_gpt2"] = lambda prompt=prompt: gpt2.generate(  # type: ignore[misc]
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=True,
                top_k=0,
                max_new_tokens=a.tokens,
                min_new_tokens=a.tokens,
            )
        for run in sides.values():
            timed(run, 1, a)
        rounds: list[dict[str, float]] = []
        while len(rounds) < a.rounds and (not rounds or time.monotonic() < deadline):
            rounds.append({side: batch * a.tokens / timed(run, 1, a) for side, run in sides.items()})
        row: dict[str, Any] = {"batch_size": batch, "tokens": a.tokens, "rounds": len(rounds)}
        for side in sides:
            row[f"{side}_tokens_per_second"] = statistics.median(each[side] for each in rounds)
        for arch in ARCHS if gpt2 is not None else ():
            row[f"{arch}_ratio_to_hf"] = statistics.median(each[arch] / each["hf_gpt2"] for each in rounds)
        rows.append(row)
        say(f"decoding at batch {batch}")
    return rows


def synchronizations(size: Size, a: argparse.Namespace) -> dict[str, float] | None:
    """Return how often a decoding step waits for the device, by architecture; None without CUDA."""
    if a.device != "cuda":
        return None
    found, steps = {}, 16
    for arch in ARCHS:
        form = make(arch, size, a.length).to(a.device).eval().for_generation("bf16")
        stream = sample_ids(form, torch.zeros(1, 1, dtype=torch.int64, device=a.device))
        next(stream), next(stream)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            for _ in range(steps):
                next(stream)
            torch.cuda.set_sync_debug_mode("default")
        found[arch] = sum("synchroniz" in str(each.message) for each in caught) / steps
    return found


def agreement(a: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return how far relative attention on the device is from the reference in float64, for each number format."""
    length, context = (48, 32) if a.dry_run else (1000, 700)
    shapes = [
        (2, 4, length, 64),
        (2, 4, length + 24, 64),
        (2, 4, length + 24, 64),
        (4, context, 64),
        (2, 4, length, 64),
    ]
    torch.manual_seed(1)
    numbers = [torch.randn(shape) for shape in shapes]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        given = [t.to(dtype) for t in numbers]  # both sides compute on the same, rounded, numbers
        ours = _with_gradients(relative_attention, [t.to(a.device) for t in given])
        exact = _with_gradients(reference_relative_attention, [t.double() for t in given])
        found[str(dtype).removeprefix("torch.")] = {
            name: float((x.cpu().double() - y).abs().max() / y.abs().max())
            for name, x, y in zip(("output", "dq", "dk", "dv", "ddistances"), ours, exact, strict=True)
        }
    return found


def _with_gradients(attend: Callable[..., Tensor], numbers: list[Tensor]) -> list[Tensor]:
    *inputs, dy = numbers
    inputs = [t.detach().requires_grad_() for t in inputs]
    y = attend(*inputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, dy)]


def report(a: argparse.Namespace) -> dict[str, Any]:
    """Return all figures; rounds that are left when their part of the time is over are not taken."""
    began, seconds = time.monotonic(), 60 * a.minutes
    found: dict[str, Any] = {
        "dry_run": a.dry_run,
        "device": torch.cuda.get_device_name() if a.device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "agreement": agreement(a),
        "training": [],
    }
    sizes = DRY_SIZES if a.dry_run else SIZES
    for i, (name, size) in enumerate(sizes.items()):
        found["training"] += training(name, size, a, began + seconds * (0.35, 0.7)[i])
        if a.device == "cuda":
            torch.cuda.empty_cache()
    found["synchronizations_per_token"] = synchronizations(sizes["20M"], a)
    found["decoding"] = decoding(sizes["20M"], a, began + seconds)
    found["seconds_elapsed"] = time.monotonic() - began
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", "--quick", action="store_true", help="tiny sizes on the CPU: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--minutes", type=float, default=7, help="after which no further round begins")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a crop, and the context")
    parser.add_argument("--batch-tokens", type=int, default=131072, help="of a training batch, at most")
    parser.add_argument("--steps", type=int, default=10, help="of training, per round")
    parser.add_argument("--tokens", type=int, default=256, help="that each batch element samples")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    a = parser.parse_args()
    a.device, a.batches, a.matmul = "cuda", [1, 16, 256], 8192
    if a.dry_run:
        a.device, a.batches, a.matmul, a.no_compile = "cpu", [1, 2], 128, True
        a.length, a.batch_tokens, a.steps, a.tokens, a.rounds = 64, 128, 1, 8, 1
    elif not torch.cuda.is_available():
        parser.error("no CUDA device on this machine: --dry-run runs the same code on a CPU")
    found = report(a)
    print(json.dumps(found, indent=None if a.json else 1))


if __name__ == "__main__":
    main()
