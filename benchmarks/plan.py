"""What each part of the plan of score tokens is worth to a model: the loss of the notes, where the part is unknown.

    python benchmarks/plan.py score --corpus CORPUS --split validation

Whole pieces of a split, chosen by hash up to --most-tokens, each read from its beginning. In bits/note: the loss of all
tokens, of those of the plan, and of the others (positions, tempi, programs, pitches, velocities and durations); then that of
the others with one part of the plan unknown at a time, and with all of it unknown. A part that is unknown is so in training
with probability .15, so the model knows such music. A part can be worth something to the notes and cost as much itself: the
plan is computed from the notes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musiclm import checkpoint, evaluation
from musiclm.data import Piece, open_source
from musiclm.tokenizers.score import ScoreTokenizer
from musiclm.tokenizers.score_plan import PARTS
from musiclm.tokenizers.vocabulary import PLAN, is_kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--most-tokens", type=int, default=100_000)
    parser.add_argument("--names", type=Path, help="a JSON list of pieces by the ends of their names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two short pieces")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    found = checkpoint.load(a.model)
    tokenizer, model = found.tokenizer(), found.model()
    if not isinstance(tokenizer, ScoreTokenizer) or tokenizer.plan is None:
        raise SystemExit(f"the model '{a.model}' has tokens without a plan")
    split = open_source(a.corpus, tokenizer).pieces(a.split)
    pieces = evaluation.sample_pieces(split, 4_000 if a.quick else a.most_tokens)
    if a.names:
        names = tuple(json.loads(a.names.read_text()))
        pieces = [piece for piece in split if piece.name.endswith(names)]
    measured: dict[str, Any] = {"model": a.model, "split": a.split, "num_pieces": len(pieces)}
    measured |= {"num_notes": sum(piece.num_notes for piece in pieces)}
    of_plan, of_notes = bits_per_note(model, tokenizer, pieces)
    measured |= {"bits_per_note": of_plan + of_notes, "plan": of_plan, "notes": of_notes, "notes_without": {}}
    for name, parts in {**{part: [part] for part in PARTS}, "all": list(PARTS)}.items():
        hidden = [dataclasses.replace(p, tokens=tokenizer.plan.without_parts(p.tokens, parts)) for p in pieces]
        measured["notes_without"][name] = bits_per_note(model, tokenizer, hidden)[1]
    if a.json:
        print(json.dumps(measured))
        return
    print(f"{a.split}: {len(pieces)} pieces, {measured['num_notes']} notes; bits/note")
    print(f"all tokens {of_plan + of_notes:.3f}, the plan {of_plan:.3f}, the others {of_notes:.3f}")
    for name, bits in measured["notes_without"].items():
        print(f"the others, {name} unknown: {bits:.3f} ({bits - of_notes:+.3f})")


def bits_per_note(model: Any, tokenizer: ScoreTokenizer, pieces: list[Piece]) -> tuple[float, float]:
    """Return the loss of the plan's tokens and of the others, in bits per note of the pieces.

    Programs, time signature and tempo of a header count as the plan's.
    """
    assert tokenizer.plan is not None
    is_plan = is_kind(tokenizer.vocabulary, *PLAN)
    of_plan = of_notes = 0.0
    for piece, nats in evaluation.token_losses(model, tokenizer, pieces):
        ids = np.asarray(piece.tokens, np.int64)
        in_plan = is_plan[ids]
        in_plan[: 1 + tokenizer.plan.header_size(ids[1:])] = True
        counted = tokenizer.eval_mask(ids)[1:]
        of_plan += float(nats[counted & in_plan[1:]].sum())
        of_notes += float(nats[counted & ~in_plan[1:]].sum())
    num_notes = sum(piece.num_notes for piece in pieces)
    return of_plan / math.log(2) / num_notes, of_notes / math.log(2) / num_notes


if __name__ == "__main__":
    main()
