"""Speed of sampling, beside Hugging Face's generate, and beside the matrix-vector products alone.

    pip install transformers && python benchmarks/generation.py [--quick] [--json] [--threads 1]

Models have random weights: 6 layers of 512 with 8 heads, 713 ids (the `score` tokenizer's), a context of 1,024. Hugging
Face runs a GPT-2 of that size in float32 and in bfloat16 with its cache; the faster counts. Each side samples the
same number of tokens after one prompt token, in turn, for several rounds; the best round of each counts. With one thread,
seconds are CPU seconds: wall-clock time on a busy machine mostly measures the other processes. The limit is the time of the
model's linear layers alone, one after the other for one batch element, in the same precision. Ratios are of speeds: above 1,
musiclm is faster. `ratio_to_gemv_limit` is that of the precision which `generate` chooses.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does

import torch

from musiclm import devices, models
from musiclm.generation.decode import sample_ids
from musiclm.models.base import LanguageModel
from musiclm.models.layers import quantized

VOCABULARY = 713


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def best(
    sides: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the seconds of each side's best round, all sides in turn."""
    seconds = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, run in sides.items():
            began = clock()
            run()
            seconds[name] = min(seconds[name], clock() - began)
    return seconds


def clock_of(threads: int) -> Callable[[], float]:
    """Return what counts the seconds of this process: of one thread those of the CPU, whoever else is waiting for it."""
    return time.process_time if threads == 1 else time.perf_counter


def draw(model: LanguageModel, batch: int, tokens: int) -> Callable[[], None]:
    prompt = torch.zeros(batch, 1, dtype=torch.int64)

    def run() -> None:
        for _ in islice(sample_ids(model, prompt), tokens):
            pass

    return run


def hugging_face(layers: int, size: int, tokens: int, batch: int) -> dict[str, Callable[[], None]]:
    """Return its sides, by name: a GPT-2 in two precisions. None if it is not installed."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        say("transformers is not installed: no ratio to Hugging Face (pip install transformers)")
        return {}
    sides = {}
    for name, dtype in (("hf_fp32", torch.float32), ("hf_bf16", torch.bfloat16)):
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=tokens + 1,
            n_embd=size,
            n_layer=layers,
            n_head=8,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
        model = GPT2LMHeadModel(config).eval().to(dtype)
        prompt = torch.zeros(batch, 1, dtype=torch.int64)

        def run(model: Any = model, prompt: torch.Tensor = prompt) -> None:
            mask = torch.ones_like(prompt)
            out = model.generate(
                prompt, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens
            )
            assert out.shape == (prompt.shape[0], tokens + 1)

        sides[name] = run
    return sides


def products(layers: int, size: int, precision: str, steps: int) -> Callable[[], None]:
    """Return what does the linear layers of `steps` tokens, and nothing else."""
    shapes = [(3 * size, size), (size, size), (4 * size, size), (size, 4 * size)] * layers + [(VOCABULARY, size)]
    held = [
        (quantized.pack_linear(torch.randn(s) * 0.02, torch.zeros(s[0]), precision), torch.randn(1, s[1]))
        for s in shapes
    ]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(steps):
                for product, x in held:
                    product(x)

    return run


def beside_hugging_face(a: argparse.Namespace, batch: int) -> dict[str, Any]:
    """Return tokens a second of all sides at one batch size, and ratios; at one row beside the products alone, too."""
    layers, size, tokens = (2, 128, 64) if a.quick else (6, 512, a.tokens)
    torch.manual_seed(0)
    model = models.create("transformer", VOCABULARY, size=size, num_layers=layers, num_heads=8, context=1024).eval()
    own = devices.resolve_precision("auto", "cpu")
    precisions = [own, "fp16", "bf16"] if batch == 1 and devices.has_fbgemm("cpu") else [own]
    forms = {p: model.for_generation(p) for p in precisions}
    sides: dict[str, Callable[[], Any]] = {p: draw(f, batch, tokens) for p, f in forms.items()}
    if batch == 1:
        sides |= {f"products_{p}": products(layers, size, p, tokens) for p in precisions}
    sides |= hugging_face(layers, size, tokens, batch)
    seconds = best(sides, a.rounds, clock_of(a.threads))
    found: dict[str, Any] = {"precision": own, "num_parameters": model.num_parameters}
    found |= {f"batch{batch}_{name}_tokens_per_second": batch * tokens / s for name, s in seconds.items()}
    hf = [s for name, s in seconds.items() if name.startswith("hf_")]
    if hf:
        found[f"ratio_to_hf_batch{batch}"] = min(hf) / seconds[own]
        found |= {f"ratio_to_hf_batch{batch}_{p}": min(hf) / seconds[p] for p in forms}
    if batch == 1:
        found["ratio_to_gemv_limit"] = seconds[f"products_{own}"] / seconds[own]
        found |= {f"ratio_to_gemv_limit_{p}": seconds[f"products_{p}"] / seconds[p] for p in precisions}
    return found


def batch1(a: argparse.Namespace) -> dict[str, Any]:
    return beside_hugging_face(a, 1)


def batch16(a: argparse.Namespace) -> dict[str, Any]:
    return beside_hugging_face(a, 16)


def recurrent(a: argparse.Namespace) -> dict[str, Any]:
    """Return tokens a second of lstm, gru and transformer of about the same number of parameters."""
    layers, size, tokens = (2, 128, 64) if a.quick else (6, 512, 512)
    made = {"transformer": models.create("transformer", VOCABULARY, size=size, num_layers=layers, num_heads=8)}
    wanted = made["transformer"].num_parameters
    for arch in ("lstm", "gru"):
        with torch.device("meta"):
            width = min(
                range(64, 2048, 16),
                key=lambda d: abs(models.create(arch, VOCABULARY, size=d, num_layers=2).num_parameters - wanted),
            )
        made[arch] = models.create(arch, VOCABULARY, size=width, num_layers=2)
    sides = {name: draw(m.eval().for_generation(), 1, tokens) for name, m in made.items()}
    seconds = best(sides, a.rounds, clock_of(a.threads))
    found: dict[str, Any] = {f"equal_{name}_parameters": m.num_parameters for name, m in made.items()}
    found |= {f"equal_{name}_tokens_per_second": tokens / s for name, s in seconds.items()}
    return found | {f"ratio_of_{n}_to_transformer": seconds["transformer"] / seconds[n] for n in ("lstm", "gru")}


def far_out(a: argparse.Namespace) -> dict[str, Any]:
    """Return what a token costs behind 2,000 and behind 8,000 others: medians of 256 each, in turn."""
    size, layers, context = (64, 1, 256) if a.quick else (512, 6, 1024)
    model = models.create("transformer", VOCABULARY, size=size, num_layers=layers, num_heads=8, context=context)
    form, clock = model.eval().for_generation(), clock_of(a.threads)
    streams = {n: sample_ids(form, torch.zeros(1, n, dtype=torch.int64)) for n in (2000, 8000)}
    took: dict[int, list[float]] = {n: [] for n in streams}
    for stream in streams.values():
        next(stream)  # reads the prompt
    for _ in range(256):
        for n, stream in streams.items():
            began = clock()
            next(stream)
            took[n].append(clock() - began)
    near, far = (sorted(each)[128] for each in took.values())
    return {"token_2000_ms": near * 1e3, "token_8000_ms": far * 1e3, "cost_of_token_8000_to_2000": far / near}


def command(a: argparse.Namespace) -> dict[str, Any]:
    """Return what `musiclm generate` takes from start to end, beside importing torch and the sampling itself."""
    drawn: list[float] = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(a.threads)}
    with tempfile.TemporaryDirectory() as folder:

        def run() -> None:
            done = subprocess.run(
                [sys.executable, "-m", "musiclm", "generate", "--json", "-q", "--seed", "1"],
                cwd=folder, env=environment, check=True, capture_output=True, text=True,
            )  # fmt: skip
            result = json.loads(done.stdout)
            drawn.append(sum(o["num_tokens"] for o in result["outputs"]) / result["tokens_per_second"])

        def torch_alone() -> None:
            subprocess.run([sys.executable, "-c", "import torch"], env=environment, check=True)

        seconds = best({"generate": run, "import_torch": torch_alone}, a.rounds + 1)
    return {
        "command_seconds": seconds["generate"],
        "command_import_torch_seconds": seconds["import_torch"],
        "command_sampling_seconds": min(drawn),
        "cost_of_command_to_torch_and_sampling": seconds["generate"] / (seconds["import_torch"] + min(drawn)),
    }


PARTS = {"batch1": batch1, "batch16": batch16, "recurrent": recurrent, "far": far_out, "command": command}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models: to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1024, help="of the continuation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    a = parser.parse_args()
    if a.quick:
        a.rounds = 1
    torch.set_num_threads(a.threads)
    found: dict[str, Any] = {"threads": a.threads, "rounds": a.rounds}
    for name, part in PARTS.items():
        if a.only in (None, name):
            say(f"{name} …")
            found |= part(a)
    if a.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:46} {value:,.2f}" if isinstance(value, float) else f"{name:46} {value}")


if __name__ == "__main__":
    main()
