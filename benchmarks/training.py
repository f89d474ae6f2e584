"""Training speed of the architectures, beside Hugging Face's GPT-2 and relative attention written the plain way.

    pip install "transformers>=4.48"                  # for the GPT-2; without it that row is left out, and said
    python benchmarks/training.py                     # some minutes on two quiet cores
    python benchmarks/training.py --quick             # under a minute: tiny models, no figures to quote
    python benchmarks/training.py --levers            # and what bfloat16, the fused optimiser and torch.compile are worth
    python benchmarks/training.py --device cuda

A step is the same loop for all: forward under autocast to bfloat16 (float32 where a CPU is slower in it), cross-entropy in
float32, backward, clipping, fused AdamW. The three transformers have the same width, depth, heads, dropout (of attention
weights none), tokens and batch; the plain one is torch.nn.TransformerEncoder whose attention gathers a vector for each
pair of positions, L x L x D in memory. All run by turns, --rounds times; a ratio is the median of the rounds' ratios, of
tokens/s, ours over theirs. `--levers` adds models without one thing, and one through torch.compile, to the same
rounds: `speed_with_lever` is their speed over the plain one's. `--clock cpu` counts CPU seconds instead: on a busy machine,
with one thread.

fraction_of_matmul_peak: 6 FLOP/token for each weight in a matrix, and 6 L D a layer for causal attention without
positions, over what a product of two 2048 x 2048 matrices of that precision reaches in the same rounds.

memory: how far the resident memory of a process (on CUDA the allocator's peak) rises in a training step of one crop of
L tokens, over what it was with the model and its optimiser ready; each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB = 512
LENGTHS = (512, 1024, 2048, 4096)
MOST_BYTES = 8 << 30  # what the plain way may take for its pairs of places, else it is left out
PEERS = {"hf_gpt2": "ratio_to_hf_gpt2", "plain_relative": "ratio_to_plain_relative"}
RECURRENT = ("lstm", "gru", "rnn")
LEVERS = [("transformer", "bf16"), ("transformer", "fused AdamW"), ("lstm", "bf16"), ("gru", "bf16")]


class PlainAttention(nn.Module):
    """Relative attention as one would write it down: a vector for each pair of places, gathered. (Shaw et al. 2018)"""

    batch_first = True

    def __init__(self, size: int, num_heads: int, length: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)
        self.distances = nn.Embedding(length, size)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        length, size = x.shape[1:]
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)) for t in self.queries_keys_values(x).chunk(3, -1))
        places = torch.arange(length, device=x.device)
        away = places[:, None] - places[None]
        pairs = self.distances(away.clamp(min=0)).to(q.dtype).unflatten(-1, (self.num_heads, -1))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) + torch.einsum("bqhe,qkhe->bhqk", q, pairs)
        scores = scores * (size // self.num_heads) ** -0.5
        weights = scores.masked_fill(away < 0, float("-inf")).softmax(-1)
        return self.out(torch.einsum("bhqk,bkhe->bqhe", weights, v).flatten(2)), None


class Plain(nn.Module):
    """torch.nn.TransformerEncoder with `PlainAttention`."""

    def __init__(self, size: int, num_layers: int, num_heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, size)
        self.dropout = nn.Dropout(dropout)
        options: dict[str, Any] = {"activation": "gelu", "batch_first": True, "norm_first": True, "dropout": dropout}
        layer = nn.TransformerEncoderLayer(size, num_heads, 4 * size, **options)
        layer.self_attn = PlainAttention(size, num_heads, length)  # type: ignore[assignment]
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(size), enable_nested_tensor=False)
        self.readout = nn.Linear(size, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.layers(self.dropout(self.embedding(tokens))))
        return logits


def made(name: str, preset: str, length: int) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    """Return a model and how it gives logits; `transformers` has to be there for hf_gpt2."""
    from musiclm import models

    sizes = models.preset("transformer", preset)
    size, num_layers, num_heads, dropout = (sizes[key] for key in ("size", "num_layers", "num_heads", "dropout"))
    if name == "hf_gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=VOCAB,
            n_positions=length,
            n_embd=size,
            n_layer=num_layers,
            n_head=num_heads,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        return GPT2LMHeadModel(config), lambda model, tokens: model(input_ids=tokens).logits
    if name == "plain_relative":
        return Plain(size, num_layers, num_heads, length, dropout), lambda model, tokens: model(tokens)
    own = models.preset(name, preset)
    if "context" in own:
        own["context"] = length
    return models.create(name, VOCAB, **own), lambda model, tokens: model(tokens)[0]


class Contestant:
    """A model with its optimiser, ready to take steps."""

    def __init__(
        self, name: str, options: argparse.Namespace, batch_size: int, length: int, *, without: str = ""
    ) -> None:
        torch.manual_seed(0)
        self.name, self.options = name + (f" without {without}" if without else ""), options
        self.bf16 = options.precision == "bf16" and without != "bf16"
        self.num_tokens = batch_size * length
        model, self._logits = made(name, options.preset, length)
        self.model = model.to(options.device).train()
        self.num_parameters = sum(p.numel() for p in model.parameters())
        matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
        recurrent = [p for m in model.modules() if isinstance(m, nn.RNNBase) for p in m.parameters() if p.ndim == 2]
        self.num_in_matrices = sum(p.numel() for p in [*matrices, *recurrent])
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=without != "fused AdamW")
        ids = torch.randint(0, VOCAB, (batch_size, length + 1), device=options.device)
        self.tokens, self.targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        self.run = self.model

    def step(self) -> None:
        """Take one training step."""
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.bf16):
            logits = self._logits(self.run, self.tokens)
        loss = F.cross_entropy(logits.float().flatten(0, 1), self.targets.flatten())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()

    def speed(self, num_steps: int) -> float:
        """Return tokens a second over some steps."""
        return num_steps * self.num_tokens / timed(self.step, num_steps, self.options)


def timed(do: Callable[[], object], times: int, options: argparse.Namespace) -> float:
    """Return the seconds that doing it so many times takes, by the clock that was asked for."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    if options.device == "cuda":
        torch.cuda.synchronize()
    began = clock()
    for _ in range(times):
        do()
    if options.device == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def matmul_speed(options: argparse.Namespace) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    size = 512 if options.quick else 2048
    a = torch.randn(size, size, device=options.device, dtype=torch.bfloat16 if options.precision == "bf16" else None)
    times = 50 if options.device == "cuda" else 3
    return times * 2 * size**3 / timed(lambda: a @ a, times, options)


def speeds(options: argparse.Namespace) -> dict[str, Any]:
    """Return what each contestant reaches, all by turns, and the ratios."""
    from musiclm import models

    names = ["transformer", "absolute", *PEERS]
    try:
        import transformers  # noqa: F401
    except ImportError:
        names.remove("hf_gpt2")
        print("no transformers here: pip install transformers", file=sys.stderr)
    own_shape = dict.fromkeys(names, (options.length, options.batch_size))
    for name in RECURRENT:
        own = models.training(name)
        own_shape[name] = (64, 2) if options.quick else (own["window"], own["batch_size"])
    contestants = [Contestant(name, options, batch, length) for name, (length, batch) in own_shape.items()]
    compiling = {}
    if options.levers:
        for name, without in LEVERS:
            length, batch_size = own_shape[name]
            contestants.append(Contestant(name, options, batch_size, length, without=without))
        compiled = Contestant("transformer", options, options.batch_size, options.length)
        compiled.name = "transformer compiled"
        compiled.run = torch.compile(compiled.model)  # type: ignore[assignment]
        began = time.perf_counter()
        compiled.step()
        compiling["compile_seconds"] = time.perf_counter() - began
        contestants.append(compiled)
    for each in contestants:
        each.speed(1)  # buffers and kernels are made
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds):
        result = {each.name: each.speed(options.steps) for each in contestants}
        result["matmul"] = matmul_speed(options)
        rounds.append(result)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    def median_of(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(value(each) for each in rounds)

    rows = {
        each.name: {
            "num_parameters": each.num_parameters,
            "batch_size": len(each.tokens),
            "length": each.tokens.shape[1],
            "tokens_per_second": median_of(lambda speeds, name=each.name: speeds[name]),  # type: ignore[misc]
        }
        for each in contestants
    }
    ours = contestants[0]
    sizes = models.preset("transformer", options.preset)
    flop = 6 * ours.num_in_matrices + 6 * options.length * sizes["size"] * sizes["num_layers"]
    return {
        "models": rows,
        **{
            ratio: median_of(lambda t, p=peer: t["transformer"] / t[p])
            for peer, ratio in PEERS.items()
            if peer in names
        },  # type: ignore[misc]
        "absolute_ratio_to_hf_gpt2": median_of(lambda t: t["absolute"] / t["hf_gpt2"]) if "hf_gpt2" in names else None,
        "flop_per_token": flop,
        "matmul_gflop_per_second": median_of(lambda speeds: speeds["matmul"]) / 1e9,
        "transformer_gflop_per_second": median_of(lambda speeds: speeds["transformer"] * flop) / 1e9,
        "fraction_of_matmul_peak": median_of(lambda speeds: speeds["transformer"] * flop / speeds["matmul"]),
        "speed_with_lever": {
            each.name: median_of(lambda speeds, name=each.name: speeds[name] / speeds[name.split()[0]])  # type: ignore[misc]
            for each in contestants[len(own_shape) :]
        },
        **compiling,
    }


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how far memory rises in a step, in MB, by model and length; None where the plain way is out of reach."""
    from musiclm import models

    size = models.preset("transformer", options.preset)
    rows = []
    for length in LENGTHS[:1] if options.quick else LENGTHS:
        row: dict[str, Any] = {"length": length}
        for name in ("transformer", "absolute", "hf_gpt2", "plain_relative"):
            # pairs of places, their gradient and what autograd keeps of them, in two precisions
            if name == "plain_relative" and 6 * size["num_layers"] * length**2 * size["size"] > MOST_BYTES:
                row[name] = None
                continue
            options_of_peak = [
                "--peak-of",
                name,
                "--length",
                length,
                "--preset",
                options.preset,
                "--device",
                options.device,
            ]
            options_of_peak += ["--precision", options.precision, "--threads", options.threads]
            command = [sys.executable, __file__, *map(str, options_of_peak)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            row[name] = float(done.stdout) if done.returncode == 0 else None
        rows.append(row)
        print(f"memory at {length}", file=sys.stderr)
    return rows


def peak_of(options: argparse.Namespace) -> float:
    """Return by how many MB a step of one window raises memory."""
    each = Contestant(options.peak_of, options, 1, options.length)
    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        each.step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    each.optimiser.zero_grad()
    for (
        parameter
    ) in each.model.parameters():  # moments and gradients stand already: what a step adds is its activations
        parameter.grad = torch.zeros_like(parameter)
    each.optimiser.step()
    before = peak_resident()
    each.step()
    return (peak_resident() - before) / 1e6


def peak_resident() -> int:
    """Return the most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the kernel's other count has the parent's in it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small", choices=["tiny", "small", "base"])
    parser.add_argument("--length", type=int, default=512, help="tokens a window, of the transformers")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    parser.add_argument("--levers", action="store_true", help="without bfloat16, without a fused optimiser, compiled")
    parser.add_argument("--no-memory", action="store_true", help="speed alone")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.precision == "auto":
        from musiclm.devices import resolve_bf16

        options.precision = "bf16" if resolve_bf16("auto", options.device) else "fp32"
    if options.peak_of:
        print(peak_of(options))
        return
    if options.quick:
        options.preset, options.length, options.batch_size, options.steps, options.rounds = "tiny", 128, 2, 1, 2
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}"
        + (f", {torch.cuda.get_device_name()}" if options.device == "cuda" else ""),
        "torch": torch.__version__,
        "threads": options.threads,
        "precision": options.precision,
        "preset": options.preset,
        "clock": options.clock,
        "rounds": options.rounds,
        **speeds(options),
        "memory_mb": [] if options.no_memory else memory(options),
    }
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    print(f"{report['machine']}, {report['threads']} threads, {report['precision']}, torch {report['torch']}")
    for name, row in report["models"].items():
        windows = f"{row['batch_size']} x {row['length']}"
        print(f"{name:32}{row['num_parameters'] / 1e6:6.2f} M  {windows:>9}{row['tokens_per_second']:12,.0f} tokens/s")
    for key in (*PEERS.values(), "absolute_ratio_to_hf_gpt2", "fraction_of_matmul_peak"):
        if report.get(key) is not None:
            print(f"{key} {report[key]:.2f}")
    for name, ratio in report["speed_with_lever"].items():
        print(f"{name}: {ratio:.2f} times the speed")
    raw = f"{report['transformer_gflop_per_second']:,.0f} of {report['matmul_gflop_per_second']:,.0f} GFLOP/s"
    print(f"  ({raw}, {report['flop_per_token'] / 1e6:.1f} MFLOP a token)")
    if "compile_seconds" in report:
        print(f"compile_seconds {report['compile_seconds']:.0f}")
    for row in report["memory_mb"]:
        shown = (f"{name} {'-' if mb is None else format(mb, ',.0f')}" for name, mb in row.items() if name != "length")
        print(f"memory of a step at {row['length']}, MB: {', '.join(shown)}")


if __name__ == "__main__":
    main()
