"""The project's pages use the field's words: none of the phrases below stands in them outside code and quotations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/lecture.md"]
PHRASES = {  # a phrase, as a regular expression: what to write instead
    r"surprise[ds]?": "loss, cross-entropy; surprisal of a note",
    r"(nats|bits) an? (token|cell|event|note|frame|second)": "nats/token, nats per grid cell, bits/note",
    r"draw|draws|drawn|drawing|undrawn": "sample, sampled, sampling; plot",
    r"drawn anew|hotter|colder|anew": "resampled at a higher temperature",
    r"go(es)? on from|go(es|ne)? on with|gone on|going on": "continues",
    r"(is|are|was|were|be) (told|taught)|tells? (a |the )?models?|hears?|heard": "is conditioned on, takes as an input feature",
    r"(learn|learns|learnt|learned|know|knows) .{0,30}by heart": "overfits, memorizes",
    r"what (it|they|a model|the model|such models) expects?": "soft labels, distillation",
    r"mean of what": "ensemble",
    r"softened": "temperature scaling",
    r"moved on|moved further": "weight extrapolation",
    r"held in (int8|fp16|half)": "quantized",
    r"what a model remembers": "recurrent state, KV cache",
    r"laws?": "invariant",
    r"(?-i:windows?)": "crop, training sequence",  # Windows is a system
    r"numbers that were learn(t|ed)": "parameters",
    r"arranged|arrangements?": "permutation, infilling rearrangement",
    r"holes?|what is kept": "masked span, given context",
    r"marks": "special tokens",
    r"rows?": "batch element, variation",
    r"the best of (n|two|three|four|eight|\d+)|weigh(s|ed|ing)?": "best-of-n reranking",
    r"from nothing": "unconditional, from scratch",
    r"levers?": "ablations",
    r"metres?": "time signature",
    r"validation chooses|chosen by validation": "selected on validation",
    r"grammars?|may be drawn|what may be": "constrained decoding, constraint, logit mask",
    r"a step back|goes back to where": "rewinds",
    r"houses?|rooms?": "layout, package",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.I)


def prose(text: str) -> str:
    """Return the text of a page without code, quotations and the targets of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    text = re.sub(r"^>.*$", "", text, flags=re.M)
    text = re.sub(r'"[^"\n]*"|“[^”]*”', "", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def found(text: str) -> list[str]:
    """Return the phrases of the list that stand in a page's prose."""
    return [match.group() for match in PATTERN.finditer(re.sub(r"\s+", " ", prose(text)))]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_uses_the_words_of_the_field(page: str):
    assert found((ROOT / page).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("The loss is 0.34 nats a\ntoken.", ["nats a token"]),
        ("It goes on from a prompt that was drawn from nothing.", ["goes on from", "drawn", "from nothing"]),
        ("A window, a hole and a law.", ["window", "hole", "law"]),
        ("The model is told the key; it learnt the pieces by heart.", ["is told", "learnt the pieces by heart"]),
        ("`--window 16` and `--draw 4`", []),
        ('He wrote "a hole".\n\n> A law.\n\n```sh\nmusiclm surprise x.mid\n```\n[the page](from-nothing/holes.md)', []),
        ("Samples, crops, a masked span and an invariant. Windows is untested.", []),
    ],
)
def test_phrases_are_found_outside_code_and_quotations(text: str, phrases: list[str]):
    assert found(text) == phrases
