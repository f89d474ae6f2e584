"""Is what `generate --keep 1` chooses better than a plain sample? Paired wins over prompts, by classifiers of real and sampled.

    python benchmarks/keep.py bach-transformer
    python benchmarks/keep.py score-transformer --corpus CORPUS --draw 4,8 --from prompts
    python benchmarks/keep.py bach-transformer --split test --by judge

For each case a batch of variations is sampled: the first one is the plain sample, the others are what is chosen from by the
checkpoint's critic (`Composer.rank`). So the plain sample is never among the candidates, and there are no ties by identity.
Cases are 50 prompts (the first 4 bars of chorales, 8 bars of other music, 8 s of piano; 8 new bars, 16 s of piano) from the
validation split, and 50 seeds without a prompt (16 bars, 32 s).

A piece wins if its probability of being real is higher, by classifiers that are fitted on other cases (5 folds): on the real
music at the same place of pieces of the split, and on all variations of other cases. --by yardstick takes the measures that
the critic itself may use: this is for development. --by judge takes the features of the judge apart
(docs/concepts/judge.md), which nothing that is tuned may use: this is for a final report, once. New music alone is judged. A
piece with too few notes for the judge loses.

Reported: the share of wins (a tie is half a win), its standard error, and the p-value of a two-sided sign test. Needs
scikit-learn: pip install -e ".[bench]"
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from discriminator import classifiers
from symusic import Score

from musiclm import midi
from musiclm.data import Corpus, open_source
from musiclm.errors import MusicLMError
from musiclm.evaluation import yardstick
from musiclm.generation import critic
from musiclm.generation.composer import Composer, Composition
from musiclm.generation.config import GenerationConfig
from musiclm.generation.prompt import Prompt

PROMPT = {"chorale": 4, "score": 8, "piano": 4}  # bars; of piano of two seconds
NEW, LENGTH = 8, 16  # bars behind a prompt, and without one
FOLDS, MOST_REAL = 5, 200

Row = np.ndarray | None
Describe = Callable[[Score], Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt or a seed, and the features of what was sampled.

    Attributes:
        name: of the piece, or the seed.
        rows: of each variation, the plain sample first; None for one that cannot be judged.
        kept: by number of candidates, which variation was chosen.
    """

    name: str
    rows: list[Row]
    kept: dict[int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="with a critic; see recipes/critic.py")
    parser.add_argument("--corpus", help="whose pieces are prompts and real music; left out, the bundled chorales")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="validation")
    parser.add_argument("-n", type=int, default=50, help="cases of each kind (50)")
    parser.add_argument("--draw", default="4,8", help="numbers of candidates, of each of which one is kept (4,8)")
    parser.add_argument("--from", dest="start", choices=["both", "prompts", "unconditional"], default="both")
    parser.add_argument("--by", choices=["yardstick", "judge"], default="yardstick", help="see above")
    parser.add_argument("--seed", type=int, default=1001, help="of the first case (1001)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(a.threads)
    try:
        report = compare(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")
    print(json.dumps(report) if a.json else as_text(report))


def compare(a: argparse.Namespace) -> dict[str, Any]:
    """Return the document of --json."""
    composer = Composer.load(a.model)
    kind = critic.kind_of(composer.checkpoint)
    source = open_source(a.corpus, composer.tokenizer)
    draws = sorted({int(each) for each in a.draw.split(",")})
    describe = described_by(a.by, kind)
    report = {"model": a.model, "kind": kind, "split": a.split, "by": a.by, "seed": a.seed, "corpus": source.name}
    for start in ("prompts", "unconditional"):
        if a.start in ("both", start):
            pieces = list(
                islice(long_pieces(source, kind, a.split, has_prompt=start == "prompts"), max(MOST_REAL, a.n))
            )
            prompts = [pieces[i] if start == "prompts" else None for i in range(min(a.n, len(pieces)))]
            if start == "unconditional":
                prompts = [None] * a.n
            cases = list(sampled(composer, kind, prompts, draws, a.seed, describe))
            real = [describe(new_part(kind, score, start == "prompts")) for _, score in pieces]
            folds = [i % FOLDS if start == "unconditional" else i for i in range(len(real))]
            report[start] = judged(cases, real, folds, draws, a.seed)
    return report


def described_by(by: str, kind: str) -> Describe:
    """Return the features of a piece by the yardstick or by the judge apart."""
    if by == "judge":
        from judge_features import features

        return lambda score: features(score, kind)
    return lambda score: yardstick.matrix([yardstick.values(score, kind, bars=None)], critic.names(kind))[0]


def long_pieces(source: Corpus, kind: str, split: str, *, has_prompt: bool) -> Iterator[tuple[str, Score]]:
    """Yield the pieces of a split that are long enough, in the order of the hashes of their names, cut to what is judged."""
    bars = PROMPT[kind] + NEW if has_prompt else LENGTH
    for piece in sorted(source.pieces(split), key=lambda each: hashlib.sha256(each.name.encode()).digest()):
        score = source.tokenizer.decode(piece.tokens)
        if midi.end(score) < line(kind, score, bars if has_prompt else NEW) - 1e-6:
            continue
        score = midi.cut(score, 0.0, line(kind, score, bars))
        if critic.windows(score, kind, NEW, line(kind, score, PROMPT[kind]) if has_prompt else 0.0):
            yield piece.name, score


def line(kind: str, score: Score, bars: int) -> float:
    """Return where so many bars of a piece end, in quarters."""
    return midi.quarters_at(score, 2.0 * bars) if kind == "piano" else midi.bar_line(score, 0.0, bars)


def new_part(kind: str, score: Score, has_prompt: bool) -> Score:
    """Return what is judged of a piece: all of it, or what follows the prompt."""
    start = line(kind, score, PROMPT[kind]) if has_prompt else 0.0
    return midi.cut(score, start, max(midi.end(score), start + 1.0))


def sampled(
    composer: Composer,
    kind: str,
    prompts: Sequence[tuple[str, Score] | None],
    draws: Sequence[int],
    seed: int,
    describe: Describe,
) -> Iterator[Case]:
    """Yield the cases of prompts, each with its own seed."""
    for number, given in enumerate(prompts):
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{len(prompts)}", end="", file=sys.stderr, flush=True)
        bars = LENGTH if given is None else NEW
        length = {"seconds": 2.0 * bars} if kind == "piano" else {"bars": bars}
        config = composer.completed(GenerationConfig.from_options(**length, draw=1, n=1 + max(draws)))
        size = {"seconds": 2.0 * PROMPT[kind]} if kind == "piano" else {"bars": PROMPT[kind]}
        prompt = composer.prompt(None) if given is None else composer.prompt(given[1], **size)
        made = composer.generate(prompt, config, seed + number)
        yield Case(
            name=f"seed {seed + number}" if given is None else given[0],
            rows=[describe(new_music(prompt, each)) for each in made],
            kept={draw: composer.rank(prompt, made[1 : 1 + draw])[0].composition.index for draw in draws},
        )


def new_music(prompt: Prompt, composition: Composition) -> Score:
    """Return the new music of a composition as its tokens say it."""
    score = prompt.decoded(composition.ids)
    return midi.cut(score, prompt.quarters, max(midi.end(composition.score), prompt.quarters + 1.0))


def judged(
    cases: Sequence[Case], real: Sequence[Row], folds: Sequence[int], draws: Sequence[int], seed: int
) -> dict[str, Any]:
    """Return wins of what was kept over the plain samples by number of candidates and classifier.

    Args:
        cases: case i is held out in fold i % `FOLDS`.
        real: the features of real music.
        folds: number of each real piece; it is held out in this one % `FOLDS`, with the case whose prompt it has.
        draws: numbers of candidates.
        seed: of the classifiers.
    """
    chance: dict[str, dict[tuple[int, int], float]] = {name: {} for name in classifiers(seed)}
    for fold in range(FOLDS):
        held_out = [i for i in range(len(cases)) if i % FOLDS == fold]
        others = [row for i, case in enumerate(cases) if i % FOLDS != fold for row in case.rows if row is not None]
        known = [row for row, i in zip(real, folds, strict=True) if i % FOLDS != fold and row is not None]
        size = min(len(others), len(known))
        x, y = np.array(balanced(known, size, seed) + balanced(others, size, seed)), np.repeat([0, 1], size)
        where = [(i, j) for i in held_out for j, row in enumerate(cases[i].rows) if row is not None]
        for name, classifier in classifiers(seed).items() if where else ():
            classifier.fit(x, y)
            rows = np.array([cases[i].rows[j] for i, j in where])
            chance[name] |= zip(where, classifier.predict_proba(rows)[:, 0].tolist(), strict=True)
    return {
        "cases": len(cases),
        "real": sum(row is not None for row in real),
        "not_judged": sum(row is None for case in cases for row in case.rows),
        "wins": {
            name: {str(draw): wins(cases, found, draw) for draw in draws} for name, found in chance.items()
        },
    }  # fmt: skip


def balanced(rows: list[np.ndarray], size: int, seed: int) -> list[np.ndarray]:
    """Return so many of some rows."""
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))[:size]]


def wins(cases: Sequence[Case], found: dict[tuple[int, int], float], draw: int) -> dict[str, float]:
    """Return the share of cases that the kept variation wins, its standard error, and the p-value of a sign test."""
    pairs = [(found.get((i, case.kept[draw]), -1.0), found.get((i, 0), -1.0)) for i, case in enumerate(cases)]
    won, lost = sum(kept > plain for kept, plain in pairs), sum(kept < plain for kept, plain in pairs)
    share = (won + (len(pairs) - won - lost) / 2) / len(pairs)
    return {
        "share": share,
        "standard_error": math.sqrt(share * (1 - share) / len(pairs)),
        "won": won,
        "lost": lost,
        "p": sign_test(won, lost),
    }


def sign_test(won: int, lost: int) -> float:
    """Return the two-sided p-value of so many wins and losses, if both were equally probable; ties do not count."""
    count, most = won + lost, max(won, lost)
    tail = sum(math.comb(count, k) for k in range(most, count + 1)) / 2**count
    return min(1.0, 2 * tail)


def as_text(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines = [f"{report['model']}, {report['kind']}, {report['split']} of {report['corpus']}, by the {report['by']}"]
    for start in ("prompts", "unconditional"):
        for name, found in report.get(start, {}).get("wins", {}).items():
            cells = [
                f"best of {draw} wins {each['share']:.2f} ± {each['standard_error']:.2f} ({each['won']}:{each['lost']},"
                f" p {each['p']:.3f})"
                for draw, each in found.items()
            ]
            lines.append(f"{start:14}{report[start]['cases']:4} {name:18} {'; '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
