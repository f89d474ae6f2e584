"""Model cards: as JSON for programs, and as a page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from .format import Checkpoint
from .model_file import PERFORMER, ModelFile


def figures(checkpoints: Sequence[Checkpoint | ModelFile]) -> Iterator[dict[str, Any]]:
    """Yield the entries of `musiclm models --json`."""
    for c in checkpoints:
        yield {
            "name": c.name,
            "arch": c.arch,
            "tokenizer": c.tokenizer if isinstance(c, ModelFile) else c.tokenizer_description.get("name"),
            "num_parameters": c.num_parameters,
            "bytes": c.path.stat().st_size,
            "data": c.card.get("data"),
            "licence": c.card.get("licence"),
            "figures": figures if isinstance(figures := c.card.get("figures"), dict) else {},
        }


def page(checkpoint: Checkpoint, name: str) -> str:
    """Return a checkpoint's card as a page of Markdown: checkpoints/NAME.md."""
    card = dict(checkpoint.card)
    figure_rows = "\n".join(f"| {k} | {v} |" for k, v in card.pop("figures", {}).items())
    samples = _samples_table(card.pop("samples", None)) + _music_table(card.pop("music", None))
    if "critic" in card:
        card["critic"] = _critic(card["critic"])
    if checkpoint.base is not None and checkpoint.base_described is not None:
        shared = checkpoint.base_described["num_parameters"]
        card["base"] = f"{shared:,} parameters are those of {checkpoint.base.name}, and are not in the file"
    facts = "\n".join(f"- **{k.replace('_', ' ')}**: {v}" for k, v in card.items())
    return f"""# {name}

{checkpoint.arch}, {checkpoint.num_parameters:,} parameters, tokenizer `{checkpoint.tokenizer_description["name"]}`.

{facts}
- **config**: `{json.dumps(checkpoint.config)}`
- **sha256 of the weights**: `{checkpoint.sha256}`

| figure | value |
|---|---|
{figure_rows}
{samples}"""


def model_page(model: ModelFile, name: str) -> str:
    """Return the card of a performer or a tagger as a page of Markdown: checkpoints/NAME.md."""
    card = dict(model.card)
    rows = "\n".join(f"| {k.replace('_', ' ')} | {v} |" for k, v in card.pop("figures", {}).items())
    if "labels" in card:
        counts = ", ".join(f"{label} {count:,}" for label, count in sorted(card.pop("labels").items()))
        card["training_pieces"] = counts
    facts = "\n".join(f"- **{k.replace('_', ' ')}**: {v}" for k, v in card.items())
    return f"""# {name}

{_performer(model) if model.role is PERFORMER else _tagger(model)}

{facts}
- **config**: `{json.dumps(model.described["config"])}`
- **sha256 of the weights**: `{model.sha256}`

| figure | value |
|---|---|
{rows}
"""


def _performer(model: ModelFile) -> str:
    return f"A performer of {model.kind}: {model.arch}, {model.num_parameters:,} parameters."


def _tagger(model: ModelFile) -> str:
    stored = model.described
    return (
        f"A tagger of {len(stored['labels'])} labels: {model.arch}, {stored['pooling']} pooling, {model.num_parameters:,} "
        f"parameters, tokenizer `{model.tokenizer}`, temperature {stored['temperature']:.3f}, unsure below "
        f"{stored['threshold']:.2f}."
    )


def _critic(described: dict[str, Any]) -> str:
    """Return what a card has of a critic as a sentence."""
    pieces = described.get("pieces", {})
    sides = f"{pieces.get('real')} real and {pieces.get('sampled')} sampled pieces"
    return (
        f"ranks variations by {len(described['measures'])} measures of windows of {described['bars']} bars "
        f"({described['kind']}); {described.get('trained_on', 'unknown pieces')}, {sides}; area under the ROC curve for "
        f"held-out ones {described.get('piece_auc')}"
    )


def _samples_table(samples: dict[str, Any] | None) -> str:
    """Return a Markdown table that compares samples with real pieces: the mean of each metric and its overlapped area."""
    if not samples:
        return ""
    sets = samples["sets"]
    names = list(next(iter(sets.values())))

    def cell(value: Any) -> str:
        if value is None or not isinstance(value, dict):
            return "" if value is None else f"{value:.3f}"
        area = value.get("overlapped_area")
        return f"{value['mean']:.3f}" + ("" if area is None else f" ({area:.2f})")

    rows = "\n".join(
        f"| {n.replace('_', ' ')} | " + " | ".join(cell(s[n]) for s in sets.values()) + " |" for n in names
    )
    head = " | ".join(f"{each} ({samples['num_samples']})" for each in sets)
    return f"""
Music by `{samples["command"]}`: means, and in brackets the overlapped area with the real pieces.

| | {head} |
|---|{"---|" * len(sets)}
{rows}
"""


def _music_table(music: dict[str, Any] | None) -> str:
    """Return a Markdown table of the measures of samples beside those of real pieces; see docs/concepts/metrics.md."""
    if not music:
        return ""
    rows = "\n".join(f"| {name} | {' | '.join(cells)} |" for name, *cells in music["measures"])
    return f"""
Music by `{music["command"]}`: mean ± standard error, {music["num_samples"]} samples, {music["num_reference"]} real pieces.

| | samples | real pieces |
|---|---|---|
{rows}
"""
