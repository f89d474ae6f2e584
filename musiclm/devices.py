"""Device and precision policy: where a model runs on this machine, and in which number format its weights are stored.

A *precision* is what a user asks for and what a file records: fp32, bf16, fp16, int8 or "auto". An *engine* is the
implementation that computes it on this CPU. The two differ for int8: on a CPU without AVX-512 VNNI, FBGEMM adds pairs of
8-bit products in 16 bits (the instruction vpmaddubsw), and large pairs saturate. There the weights are quantized more
coarsely, so that every pair fits. A self-check, and not the CPU's name, decides which engines are right.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MusicLMError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "fp16", "int8")

ENGINES = {
    "fbgemm-int8": "int8",
    "fbgemm-int8-pairs": "int8",
    "fbgemm-fp16": "fp16",
    "fp32": "fp32",
    "bf16": "bf16",
}
"""The precision that each engine computes; "auto" prefers the first of those that are about as fast."""

OPERATORS = (
    "linear_prepack",
    "linear_unpack",
    "linear_dynamic",
    "linear_prepack_fp16",
    "linear_dynamic_fp16",
    "embedding_bag_byte_prepack",
    "embedding_bag_byte_unpack",
    "embedding_bag_byte_rowwise_offsets",
)
"""The operators of `torch.ops.quantized` that generation uses; torch has deprecated them."""

MAX_ERROR = 0.02  # of the self-check, relative to the largest output; saturation gives 0.3, rounding 0.005
MARGIN = 1.25  # "auto" leaves an engine only for one that is so many times as fast: noise must not change the choice

_packing = threading.RLock()


def resolve_device(name: str) -> str:
    """Return cpu, cuda or mps; "auto" is cuda if it is available, else cpu.

    Raises:
        MusicLMError: the device is not available.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if present["cuda"] else "cpu"
    if not present[name]:
        raise MusicLMError(f"no device '{name}' on this machine: --device cpu works everywhere")
    return name


def resolve_bf16(precision: str | None, device: str) -> bool:
    """Return whether to compute in bfloat16; "auto" (None) does on cuda, and on a CPU that is faster in it."""
    if precision in (None, "auto"):
        return device == "cuda" or (device == "cpu" and faster_in_bf16())
    return precision == "bf16"


def faster_in_bf16() -> bool:
    """Return whether this CPU multiplies matrices faster in bfloat16 than in float32: one product is timed in both.

    A CPU without bfloat16 instructions emulates them, which is slower.
    """
    import torch

    took = {}
    for size in (128, 512):  # an emulated product takes seconds at the full size: the small one is enough to tell
        for dtype in (torch.float32, torch.bfloat16):
            a, b = torch.ones(2 * size, size, dtype=dtype), torch.ones(size, 2 * size, dtype=dtype)
            a @ b
            best = math.inf
            for _ in range(5):
                began = time.perf_counter()
                a @ b
                best = min(best, time.perf_counter() - began)
            took[dtype] = best
        if took[torch.bfloat16] > 4 * took[torch.float32]:
            return False
    return took[torch.bfloat16] < 0.7 * took[torch.float32]


def missing_operators() -> list[str]:
    """Return what this torch lacks of FBGEMM: names of `OPERATORS`, or the library itself."""
    import torch

    engines = getattr(getattr(torch.backends, "quantized", None), "supported_engines", [])
    operators = getattr(torch.ops, "quantized", None)
    missing = [] if "fbgemm" in engines else ["fbgemm"]
    missing += [] if hasattr(torch, "quantize_per_channel") else ["quantize_per_channel"]
    return missing + [name for name in OPERATORS if not hasattr(operators, name)]


def has_fbgemm(device: torch.device | str) -> bool:
    """Return whether a device has every FBGEMM operator that fp16 and int8 weights need."""
    import torch

    return torch.device(device).type == "cpu" and not missing_operators()


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Return the precision of the weights on a device: `precision` itself, or what "auto" is there.

    "auto" is the fastest on x86 of int8, fp16 and fp32 whose products pass the self-check (see `fastest_engine`), bf16
    on an NVIDIA GPU, and fp32 elsewhere. The name of an engine is returned as it is: it pins how int8 is computed.
    Where torch has dropped an operator that the precision needs, the answer is fp32, with a warning in the log.

    Raises:
        ValueError: there is no such precision, or not on this device.
    """
    import torch

    kind = torch.device(device).type
    if precision == "auto":
        if has_fbgemm(device):
            return ENGINES[fastest_engine()]
        if kind == "cpu" and _is_x86():
            _warn_of_fallback("auto", tuple(missing_operators()))
        return "bf16" if kind == "cuda" else "fp32"
    if precision not in (*PRECISIONS, *ENGINES):
        raise ValueError(f"no precision '{precision}': one of auto, {', '.join(PRECISIONS)}")
    if ENGINES.get(precision, precision) in ("fp32", "bf16"):
        return precision
    if not has_fbgemm(device):
        missing = missing_operators()
        if kind != "cpu" or not _is_x86() or not missing:
            raise ValueError(f"no precision '{precision}' here: it needs an x86 CPU; fp32 works everywhere")
        _warn_of_fallback(precision, tuple(missing))
        return "fp32"
    if _engine_of(precision) is None:
        _warn_of_fallback(precision, ())
        return "fp32"
    return precision


def engine(precision: str) -> str:
    """Return the engine that computes a precision, as `resolve_precision` returned it, on this machine's CPU."""
    found = _engine_of(precision)
    if found is None:
        raise ValueError(f"no engine computes the precision '{precision}' on this CPU; fp32 works everywhere")
    return found


def engine_label(precision: str, device: torch.device | str) -> str:
    """Return what decides the last bits of a result beside the version of torch: "fbgemm-int8-pairs/x86_64-avx2".

    The part behind the slash is the CPU's architecture and the widest vector instructions that torch uses on it. On a
    GPU the label is the precision and the GPU's name.
    """
    import torch

    precision = resolve_precision(precision, device)
    kind = torch.device(device).type
    if kind != "cpu":
        return f"{precision}/{torch.cuda.get_device_name(device) if kind == 'cuda' else kind}"
    return f"{engine(precision)}/{platform.machine().lower()}-{torch.backends.cpu.get_cpu_capability().lower()}"


def precision_like(precision: str, label: str, device: torch.device | str) -> str:
    """Return the precision that repeats best what was computed in `precision` by the engine of an `engine_label`.

    That is the engine itself where it passes the self-check here, else the precision, else "auto". An empty label
    stands for an unknown engine.
    """
    for name in (label.partition("/")[0], precision):
        with contextlib.suppress(ValueError):
            if name and has_engine(name, device):
                return resolve_precision(name, device)
    return resolve_precision("auto", device)


def has_engine(precision: str, device: torch.device | str) -> bool:
    """Return whether a device computes a precision, or an engine, right."""
    if ENGINES.get(precision, precision) in ("fp16", "int8"):
        return has_fbgemm(device) and _engine_of(precision) is not None
    return precision in ("auto", "fp32", "bf16")


@functools.cache
def int8_engine() -> str | None:
    """Return the int8 engine that this CPU computes right, the finer one first; None if there is none."""
    return next((name for name, precision in ENGINES.items() if precision == "int8" and is_right(name)), None)


@functools.cache
def is_right(engine: str) -> bool:
    """Return whether the products of an FBGEMM engine are right on this CPU, checked on values that saturate 16 bits.

    The activations, and the weights of an output, are large and have one sign. Patterns of zeros show which weights the
    CPU adds in 16 bits. One row and several rows are compared with float32; the check takes a few milliseconds.
    """
    import torch

    size = 256
    x = torch.linspace(0.75, 1, size).expand(3, -1).contiguous()
    patterns = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]).repeat(1, size // 4)
    weight = torch.cat([patterns, -patterns]).repeat(8, 1) * torch.linspace(1, 0.75, size)
    exact = x @ weight.T
    try:
        product, packed = fbgemm_product(engine), pack_for_fbgemm(engine, weight, torch.zeros(len(weight)))
        error = max(float((product(rows, packed) / exact[: len(rows)] - 1).abs().max()) for rows in (x[:1], x))
    except RuntimeError as refusal:
        log.debug("%s: not on this CPU (%s)", engine, refusal)
        return False
    log.debug("%s: its products on this CPU are off by %.1f %% at most", engine, 100 * error)
    return error < MAX_ERROR


@functools.cache
def fastest_engine() -> str:
    """Return the fastest engine of FBGEMM's and fp32 that is right on this CPU, for one row at a time.

    One product is timed in each; the first of `ENGINES` wins unless another is `MARGIN` times as fast. The choice is stored
    in the user's cache, so that it is made once per CPU and version of torch: the same seed must give the same bytes in
    every process. Where it cannot be stored, the first engine of `ENGINES` that is right is taken without timing.
    """
    candidates = [name for name in (int8_engine(), "fbgemm-fp16" if is_right("fbgemm-fp16") else None) if name]
    if not candidates:
        return "fp32"
    path = choice_path(candidates)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (stored := path.read_text("ascii").strip()) in (*candidates, "fp32"):
            log.debug("precision auto: %s (measured before: %s)", stored, path)
            return stored
    took = time_products([*candidates, "fp32"])
    best = next(name for name in took if took[name] <= MARGIN * min(took.values()))
    times = ", ".join(f"{name} {1e6 * seconds:.0f} us" for name, seconds in took.items())
    log.debug("precision auto: %s (a product of 1 x 512 and 512 x 2,048: %s)", best, times)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="ascii") as file:  # of several processes the first decides
            file.write(best)
    except FileExistsError:
        return _stored_choice(path, candidates)
    except OSError:
        return candidates[0]
    return best


def _stored_choice(path: Path, candidates: list[str]) -> str:
    """Return what another process stores at this moment; the first candidate if that is damaged."""
    for _ in range(20):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (stored := path.read_text("ascii").strip()) in (*candidates, "fp32"):
                return stored
        time.sleep(0.005)
    return candidates[0]


def choice_path(candidates: list[str]) -> Path:
    """Return where the choice among engines is stored: a file for each CPU, version of torch and set of engines."""
    import platformdirs
    import torch

    cpu = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    with contextlib.suppress(OSError):  # on Linux `platform` does not know the model
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        cpu += [line for line in lines if line.startswith("model name")][:1]
    key = hashlib.sha256("\n".join([*cpu, torch.__version__, *candidates]).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("musiclm")) / "engines" / key


def pack_for_fbgemm(engine: str, weight: Tensor, bias: Tensor | None, scales: Tensor | None = None) -> Any:
    """Return a weight, (out, in) float32, and its bias, (out,), packed for an FBGEMM engine.

    Args:
        engine: one of `ENGINES`.
        weight: (out, in) float32.
        bias: (out,) float32, or None.
        scales: of the outputs, (out,) float64, for int8; left out, those of `weight_scales`.
    """
    import torch

    with using_fbgemm():
        if engine == "fbgemm-fp16":
            return torch.ops.quantized.linear_prepack_fp16(weight, bias)
        scales = weight_scales(engine, weight) if scales is None else scales
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(quantized, bias)


def weight_scales(engine: str, weight: Tensor) -> Tensor:
    """Return the quantization step of each output's weights, (out,) float64: |weight| / step is at most 127.

    For "fbgemm-int8-pairs", two neighbours (inputs 0 and 1, 2 and 3, ...) of one sign add up to 127 steps at most. With
    rounding that is 128, and 255 * 128 < 2 ** 15. The weights of the bundled models use about 98 steps so; a limit of 63
    for each weight would be as safe, but coarser.
    """
    import torch.nn.functional as F

    largest = weight.abs().amax(1)
    if engine == "fbgemm-int8-pairs":
        pairs = F.pad(weight, (0, weight.shape[1] % 2)).unflatten(1, (-1, 2))
        for of_one_sign in (pairs.clamp_min(0), -pairs.clamp_max(0)):
            largest = largest.maximum(of_one_sign.sum(2).amax(1))
    return largest.clamp_min(1e-12).double() / 127


def fbgemm_product(engine: str) -> Callable[[Tensor, Any], Tensor]:
    """Return an FBGEMM engine's operator: (rows, in) float32 and a packed weight -> (rows, out) float32."""
    import torch

    quantized = torch.ops.quantized
    operator: Any = quantized.linear_dynamic_fp16 if engine == "fbgemm-fp16" else quantized.linear_dynamic
    return operator.default


@contextlib.contextmanager
def using_fbgemm() -> Iterator[None]:
    """Pack weights for FBGEMM inside the block; one thread at a time, as the setting holds for the whole process.

    torch's default on x86 takes oneDNN for int8 where it can, which is 1.6 times as slow for one row. Packed weights
    remember their engine: products need no setting.
    """
    import torch

    with _packing, warnings.catch_warnings():
        # torch asks to create quantized tensors by torchao; `missing_operators` notices when they are gone
        warnings.filterwarnings("ignore", ".*quantize_per_channel", UserWarning)
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = "fbgemm"
        try:
            yield
        finally:
            torch.backends.quantized.engine = before


def _engine_of(precision: str) -> str | None:
    """Return the engine of a precision, or an engine itself, if it is right on this CPU."""
    if precision == "int8":
        return int8_engine()
    name = "fbgemm-fp16" if precision == "fp16" else precision
    return name if name in ("fp32", "bf16") or is_right(name) else None


def time_products(engines: list[str]) -> dict[str, float]:
    """Return the seconds that one row takes in each engine: the least of a few alternating rounds."""
    import torch
    import torch.nn.functional as F

    x, bias = torch.ones(1, 512), torch.zeros(2048)
    weight = torch.linspace(-1, 1, 512 * 2048).view(2048, 512)  # 4 MB: a smaller one stays in the CPU's inner caches
    runs: dict[str, Callable[[], Tensor]] = {}
    for name in engines:
        if name == "fp32":
            runs[name] = functools.partial(F.linear, x, weight, bias)
        else:
            runs[name] = functools.partial(fbgemm_product(name), x, pack_for_fbgemm(name, weight, bias))
    best = dict.fromkeys(engines, math.inf)
    for _ in range(6):
        for name, product in runs.items():
            for _ in range(3):
                began = time.perf_counter()
                product()
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i686")


@functools.cache
def _warn_of_fallback(precision: str, missing: tuple[str, ...]) -> None:
    """Say once why weights stay in float32."""
    others = f" and {len(missing) - 1} others of FBGEMM's operators" if len(missing) > 1 else ""
    why = f"this torch has no {missing[0]}{others}" if missing else "its products are wrong on this CPU"
    log.warning("precision %s: %s; weights stay in fp32, which is slower", precision, why)
