"""Memory and speed of architectures against the length of their context, on logarithmic axes, with fitted exponents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import COLOURS, figure, to_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINE_STYLES = {"naive": ("#222222", ":"), "absolute": ("#666666", "--"), "transformer": ("#999999", "-.")}


def memory_picture(report: dict[str, Any], kind: str = ".png") -> bytes:
    """Return activation memory of a training step by length; the report is that of `comparison.lengths.report`."""
    plot = figure(7.5, 5.2)
    axes = plot.subplots()
    _curves(axes, report, "activation_bytes", 1e-6)
    axes.set(ylabel="activation memory of a training step, MB", title="Memory against length (batch size 1)")
    return to_bytes(plot, kind)


def speed_picture(report: dict[str, Any], kind: str = ".png") -> bytes:
    """Return tokens/s of training and of generation by length, side by side."""
    plot = figure(13, 5.2)
    left, right = plot.subplots(1, 2)
    _curves(left, report, "training_tokens_per_second", 1.0)
    left.set(ylabel="tokens/s", title="Training: forward and backward pass (batch size 1)")
    _curves(right, report, "generation_tokens_per_second", 1.0)
    right.set(ylabel="tokens/s", title="Generation: one token at that position")
    return to_bytes(plot, kind)


def labels(report: dict[str, Any], measure: str) -> dict[str, str]:
    """Return the legend: each architecture with its exponent, where there is one.

    The lengths that it is fitted through are named where they are not the last ones of the report.
    """
    last = report["lengths"][-report["fitted_lengths"] :]
    found = {}
    for model in report["models"]:
        exponent = model["exponents"][measure]
        name = model["arch"] + ("" if model["is_architecture"] else " (all scores stored)")
        if exponent is not None:
            name += f": T^{exponent:.2f}"
            fitted = model["fitted_lengths"][measure]
            name += "" if fitted == last else f" (through {', '.join(f'{length:,}' for length in fitted)})"
        found[model["arch"]] = name
    return found


def _curves(axes: Axes, report: dict[str, Any], measure: str, scale: float) -> None:
    """Plot a measure of each architecture by length; baselines are grey."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    lengths, named = report["lengths"], labels(report, measure)
    number = 0
    for model in report["models"]:
        points = [(x, y * scale) for x, y in zip(lengths, model[measure], strict=True) if y]
        colour, style = BASELINE_STYLES.get(model["arch"], (COLOURS[number % len(COLOURS)], "-"))
        number += model["arch"] not in BASELINE_STYLES
        if points:
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, style, marker="o", ms=4, lw=1.8, color=colour, label=named[model["arch"]])
    axes.set(xscale="log", yscale="log", xlabel="length T, tokens")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.minorticks_off()
    axes.grid(color="#e5e8ee", lw=0.7)
    fitted = report["fitted_lengths"]
    title = f"fit through the last {fitted} lengths" if fitted else None
    if axes.lines:
        axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
