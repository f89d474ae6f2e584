"""Plot how far back models depend on their input, and what absolute and relative positions learn, for a lecture.

    python recipes/chorales.py -o work/ --arch rnn,absolute,transformer --minutes 30
    python benchmarks/memory.py work/rnn bach-lstm bach-gru work/transformer \\
        --places work/absolute work/transformer -o examples/memory.png

Left: |d ln p(token) / d embedding of the token d places before|, the mean over crops from the beginnings of validation
chorales, each model's curve over its own value at d = 0 (1 where the last token is); distances in bins that grow. A
recurrent network multiplies that gradient by a matrix at each step, so it shrinks exponentially in d (Bengio et al. 1994);
gates let it pass; attention reaches each position in one step. Right: nats/cell by position in the piece, whole
validation chorales read from the beginning, in bins of 64 tokens. Beyond the crops of training, absolute positions were
never seen; distances are the same everywhere.

Models alone, or --places alone, give one panel. --json has the curves. --quick plots untrained models, to see that it
works.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musiclm import checkpoint, models
from musiclm.data import open_source
from musiclm.evaluation import sample_pieces, token_losses
from musiclm.models import base

COLOURS = {"rnn": "#b5485d", "lstm": "#d9822b", "gru": "#3f9b62", "transformer": "#3b6fb6", "absolute": "#7a5ba6"}
WORDS = {"transformer": "relative distances (transformer)", "absolute": "absolute positions (absolute)"}
STYLES = ("-", "--", ":")
PLACES_A_BIN = 64
FEWEST = 10  # pieces that a bin of places is a mean of


def windows(pieces: Sequence[Any], length: int, count: int) -> torch.Tensor:
    """Return the first length + 1 tokens of some pieces that have them."""
    chosen = [piece.tokens[: length + 1] for piece in pieces if len(piece.tokens) > length][:count]
    return torch.from_numpy(np.stack(chosen).astype(np.int64))


def gradients(model: base.LanguageModel, tokenizer: Any, tokens: torch.Tensor) -> np.ndarray:
    """Return the mean length of the gradient of ln p(last token) by each embedding, by distance, (T,)."""
    features = tokenizer.features(tokens[:, :-1], None)[0] if tokenizer.feature_sizes else None
    embedded: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[0]

    hook = model.embedding.register_forward_hook(keep)  # type: ignore[union-attr,operator]
    logits, _ = model(tokens[:, :-1], None, features)
    hook.remove()
    log_p = logits[:, -1].log_softmax(-1).gather(1, tokens[:, -1:]).sum()
    (gradient,) = torch.autograd.grad(log_p, embedded)
    return np.asarray(gradient.norm(dim=-1).mean(0).flip(0).double())


def binned(by_distance: np.ndarray) -> dict[str, list[float]]:
    """Return means over bins of distances 1, 2, 3, … that grow by a quarter; distance 0 is what all is divided by."""
    edges = np.unique(np.round(1.25 ** np.arange(0, 60)).astype(int))
    edges = np.append(edges[edges < len(by_distance)], len(by_distance))
    pairs = list(itertools.pairwise(edges.tolist()))
    return {
        "distance": [float((first + last - 1) / 2) for first, last in pairs],
        "gradient": [float(by_distance[first:last].mean() / by_distance[0]) for first, last in pairs],
    }


def by_place(model: base.LanguageModel, tokenizer: Any, pieces: Sequence[Any]) -> dict[str, list[float]]:
    """Return the mean nats of the tokens that count, by place in the piece."""
    longest = max(len(piece.tokens) for piece in pieces)
    nats, counts, alive = (np.zeros(longest) for _ in range(3))
    for piece, of_piece in token_losses(model, tokenizer, pieces):
        counted = tokenizer.eval_mask(piece.tokens[1:])
        nats[: len(of_piece)] += of_piece * counted
        counts[: len(of_piece)] += counted
        alive[: len(of_piece)] += 1
    last = int((alive >= min(FEWEST, len(pieces))).sum()) // PLACES_A_BIN * PLACES_A_BIN
    sums = [values[:last].reshape(-1, PLACES_A_BIN).sum(1) for values in (nats, counts)]
    places = np.arange(0, last, PLACES_A_BIN) + PLACES_A_BIN / 2
    return {"place": places.tolist(), "nats": (sums[0] / sums[1]).tolist()}


def plot(report: dict[str, Any], path: Path) -> None:
    """Write the picture: one panel, or two if the report has both parts."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    panels = [panel for part, panel in (("gradients", plot_gradients), ("places", plot_places)) if report[part]]
    figure, axes = plt.subplots(1, len(panels), figsize=(6.25 * len(panels), 4.8), dpi=110, squeeze=False)
    for ax, panel in zip(axes[0], panels, strict=True):
        panel(ax, report)
    figure.tight_layout()
    figure.savefig(path)


def plot_gradients(left: Any, report: dict[str, Any]) -> None:
    """Plot the gradient of a prediction by distance."""
    seen: list[str] = []
    for name, curve in report["gradients"].items():
        arch = curve["arch"]
        style = STYLES[seen.count(arch) % len(STYLES)]  # several models of one architecture have one colour
        seen.append(arch)
        left.plot(curve["distance"], curve["gradient"], style, color=COLOURS.get(arch, "#444444"), lw=2.2, label=name)
    left.set(xscale="log", yscale="log", xlabel="distance into the past, tokens (4 are a sixteenth)")
    left.set_ylabel("gradient of a prediction\n(the last token's is 1)")
    left.set_title("Gradient of a prediction by distance", loc="left")
    top = max(max(curve["gradient"]) for curve in report["gradients"].values())
    left.set_ylim(max(1e-7, min(min(c["gradient"]) for c in report["gradients"].values()) / 2), 2 * max(top, 1.0))
    left.legend(frameon=False, loc="lower left")


def plot_places(right: Any, report: dict[str, Any]) -> None:
    """Plot the loss by position in the piece."""
    for curve in report["places"].values():
        arch = curve["arch"]
        right.plot(curve["place"], curve["nats"], color=COLOURS.get(arch), lw=2.2, label=WORDS.get(arch, arch))
    context = report["context"]
    right.axvline(context, color="#888888", ls="--", lw=1)
    right.set(xlabel="position in the piece, tokens", ylabel="nats/cell")
    found = [nats for curve in report["places"].values() for nats in curve["nats"]]
    right.set_ylim(min(found) - 0.3 * np.ptp(found) - 0.02, max(found) + 0.35 * np.ptp(found) + 0.02)
    right.annotate(
        "training sequences\nend here",
        (context, right.get_ylim()[1] * 0.97),
        (6, 0),
        textcoords="offset points",
        va="top",
    )
    right.set_title("Absolute positions or relative distances?", loc="left")
    right.legend(frameon=False, loc="lower left")


def loaded(name: str) -> tuple[str, base.LanguageModel, Any]:
    """Return the architecture, the model and the tokenizer of a checkpoint; its features may be of another version."""
    found = checkpoint.load(name)
    return found.arch, found.model().eval(), found.tokenizer()


def untrained(arch: str, tokenizer: Any) -> tuple[str, base.LanguageModel, Any]:
    """Return a tiny model with random weights."""
    sizes = models.preset(arch, "tiny") | tokenizer.model_config
    return arch, models.create(arch, tokenizer.vocab_size, **sizes).eval(), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="of the left picture: names, run folders or files, of one tokenizer")
    parser.add_argument("--places", nargs="+", default=[], metavar="MODEL", help="of the right one")
    parser.add_argument("--data", help="a corpus; left out, the bundled chorales")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window, on the left")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument(
        "--most-tokens", type=int, help="of whole pieces, on the right; left out, all validation pieces"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("-o", "--output", type=Path, help="the PNG")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.quick and not (arguments.models or arguments.places):
        parser.error("models for the left picture or --places for the right one are needed, or --quick")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    opened = open_source(arguments.data)
    tokenizer, pieces = opened.tokenizer, opened.pieces("validation")
    if arguments.quick:
        arguments.length, arguments.windows, arguments.most_tokens = 64, 2, 2000
        left = [(arch, *untrained(arch, tokenizer)) for arch in models.names()]
        right = [(arch, *untrained(arch, tokenizer)) for arch in ("absolute", "transformer")]
    else:
        left = [(name, *loaded(name)) for name in arguments.models]
        right = [(name, *loaded(name)) for name in arguments.places]
    tokens = windows(pieces, arguments.length, arguments.windows)
    whole = sample_pieces(pieces, arguments.most_tokens)
    report: dict[str, Any] = {
        "data": opened.name,
        "split": "validation",
        "num_windows": len(tokens),
        "num_pieces": len(whole),
        "context": min((model.config.context for _, _, model, _ in right), default=None),
        "gradients": {
            Path(name).name: {"arch": arch, **binned(gradients(model, own, tokens))} for name, arch, model, own in left
        },
        "places": {Path(name).name: {"arch": arch, **by_place(model, own, whole)} for name, arch, model, own in right},
    }
    if arguments.output:
        plot(report, arguments.output)
    if arguments.json:
        print(json.dumps(report, indent=1))
    elif arguments.output:
        print(arguments.output)


if __name__ == "__main__":
    main()
