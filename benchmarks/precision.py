"""What holding weights in fewer bits costs: nats a token of models that read pieces as they generate, a token at a time.

    python benchmarks/precision.py [MODEL ...] [--data CORPUS] [--split validation] [--most-tokens 20000] [--json]

The whole model in float32 reads in one pass (as `musiclm evaluate` does), each precision by the steps that `generate`
takes, at one row; int8 at two rows, too, where each row has its own scale (`int8_rows`). Whole pieces, chosen by hash
(`--most-tokens`); which tokens count is the tokenizer's to say.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch

from musiclm import checkpoint, evaluation
from musiclm.data import open_source
from musiclm.devices import resolve_precision
from musiclm.models.base import LanguageModel
from musiclm.tokenizers.base import Tokenizer

FORMS = ("fp32", "bf16", "fp16", "int8", "int8_rows")


@torch.inference_mode()
def nats(model: LanguageModel, tokenizer: Tokenizer, tokens: np.ndarray, num_rows: int) -> np.ndarray:
    """Return the nats of each token but the first, read one at a time in equal rows, (T - 1,)."""
    ids = torch.from_numpy(tokens.astype(np.int64)).expand(num_rows, -1)
    features, _ = tokenizer.features(ids, None)
    state = None
    found = np.zeros(len(tokens) - 1)
    for t in range(len(found)):
        logits, state = model(ids[:, t : t + 1], state, features[:, t : t + 1] if features.shape[-1] else None)
        found[t] = -float(logits[0, -1].log_softmax(0)[ids[0, t + 1]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["bach-transformer", "bach-lstm", "bach-gru"])
    parser.add_argument("--data", help="a corpus; left out: the bundled chorales")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--most-tokens", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="one short piece")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in a.models:
        loaded = checkpoint.load(name)
        tokenizer = loaded.tokenizer()
        source = open_source(a.data, tokenizer)
        pieces = evaluation.sample_pieces(source.pieces(a.split), 1 if a.quick else a.most_tokens)
        model = loaded.model()
        whole = evaluation.measure_loss(model, tokenizer, pieces)
        row = {"model": name, "corpus": source.name, "split": a.split, "num_pieces": len(pieces)}
        row |= {"num_tokens": whole.num_tokens, "whole_fp32": whole.nats_per_token}
        for form in FORMS:
            precision, _, several = form.partition("_")
            try:
                held = model.for_generation(resolve_precision(precision, "cpu"))
            except ValueError as error:
                print(error, file=sys.stderr)
                continue
            total = 0.0
            for p in pieces:
                total += float(
                    nats(held, tokenizer, p.tokens, 2 if several else 1)[tokenizer.eval_mask(p.tokens[1:])].sum()
                )
            row[form] = total / max(1, whole.num_tokens)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    if a.json:
        print(json.dumps(rows))
        return
    shown = [p for p in ("whole_fp32", *FORMS) if p in rows[0]]
    print(f"{'nats a token':20} {'tokens':>8}" + "".join(f"{p:>12}" for p in shown))
    for row in rows:
        print(f"{row['model']:20} {row['num_tokens']:8}" + "".join(f"{row[p]:12.5f}" for p in shown))


if __name__ == "__main__":
    main()
