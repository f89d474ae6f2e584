"""Comparison of architectures.

`runs` trains them on the same data. `lengths` measures what a training step and a generated token cost at growing lengths,
each in a process of its own (`cost`), beside attention that stores its scores (`naive`).
"""

from __future__ import annotations

from .runs import ARCHS, PROMPT_BARS, Comparison, ComparisonConfig

__all__ = ["ARCHS", "PROMPT_BARS", "Comparison", "ComparisonConfig"]
