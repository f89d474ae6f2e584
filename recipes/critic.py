"""Give a checkpoint a critic, which `generate --keep` and `--draw` choose by: real training pieces against pieces of the model.

    python recipes/critic.py bach-transformer --samples samples/bach -o checkpoints/bach-transformer.safetensors
    python recipes/critic.py score-transformer --corpus CORPUS --samples samples/score --threads 2 -o OUTPUT

Half of the n samples are unconditional (16 bars), half continue training pieces (8 bars behind 4 of chorales, behind 8 of other
music; of piano 16 s behind 8 s), four of each prompt. They are sampled with what the checkpoint recommends, but without its
choice among several. They are written to --samples batch by batch, and taken from there where they are: a run that was killed
continues. Samples of other weights or other options are refused.

Real windows come from the training split alone, and from the same places: the first 16 bars, and what follows the prompts.

What a critic chooses has to be better by features that it does not see. The strength of the L2 penalty is chosen by it: critics
are fitted on a random half of the measures, others, for judging, on the other half (with the penalty of the lowest loss), all
cross-validated over pieces. The first ones choose among four unconditional samples (three behind a prompt), and their choice
competes with one more sample. The penalty with the most wins is taken. The other figures are of held-out pieces, too: how often
the critic tells a real window from a sampled one, and a piece by the mean of its windows.

Needs scikit-learn: pip install -e ".[bench]"
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from symusic import Score

from musiclm import __version__, checkpoint, midi
from musiclm.checkpoint import card as cards
from musiclm.checkpoint import with_critic
from musiclm.data import Corpus, open_source
from musiclm.errors import MusicLMError
from musiclm.evaluation import texture, yardstick
from musiclm.evaluation.music_metrics import notes_of
from musiclm.files import write_whole
from musiclm.generation import critic
from musiclm.generation.composer import Composer
from musiclm.generation.config import GenerationConfig

LENGTH, NEW = 16, 8  # bars of unconditional music, and behind a prompt
PROMPT = {"chorale": 4, "score": 8, "piano": 4}  # bars; of piano of two seconds
PER_PROMPT = 4
REAL = 180  # real pieces at least, for the beginnings; they cost little
STRENGTHS = tuple(np.logspace(-4, 1, 6).tolist())  # inverse of the L2 penalty
FOLDS = 5
HALVES = 8  # random halves of the measures
CONTESTS = 100  # of unconditional samples, for each half
DRAWN = 4  # among which one is chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """Real or sampled music.

    Attributes:
        score: the music, with its prompt before it.
        start: where new music begins, in quarters.
        group: examples of one group share a prompt or a piece, and are held out together.
        is_real: whether it is real.
    """

    score: Score
    start: float
    group: str
    is_real: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a bundled name, a checkpoint file or a run folder")
    parser.add_argument("--corpus", help="whose training split it is; left out, the bundled chorales")
    parser.add_argument("-n", type=int, default=240, help="samples (240)")
    parser.add_argument("--samples", type=Path, required=True, metavar="FOLDER", help="where they are, or will be")
    parser.add_argument("--bars", type=int, default=8, help="of a window, an even number (8)")
    parser.add_argument("--batch", type=int, default=30, help="unconditional pieces sampled at once (30)")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch (1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument(
        "--halves", type=int, default=0, metavar="R", help="see above; R random halves of the measures (0)"
    )
    parser.add_argument("-o", "--output", type=Path, help="the checkpoint with its critic; left out, figures alone")
    a = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    torch.set_num_threads(a.threads)
    try:
        run(a)
    except (MusicLMError, ValueError) as error:
        parser.exit(1, f"Error: {error}\n")


def run(a: argparse.Namespace) -> None:
    composer = Composer.load(a.model)
    kind = critic.kind_of(composer.checkpoint)
    source = open_source(a.corpus, composer.tokenizer)
    if source.tokenizer.describe() != composer.tokenizer.describe():
        raise ValueError(f"the tokens of {source.name} are not those of {a.model}")
    sampled = list(Samples(composer, kind, source, a).examples())
    real = list(real_examples(kind, source, sampled))
    print(f"\r{a.model}, {kind}: {len(sampled)} sampled, {len(real)} real pieces of {source.name}", file=sys.stderr)
    data = Data.of([*real, *sampled], kind, a.bars)
    made, figures = fitted(data, kind, a.bars)
    print(json.dumps(figures, indent=1))
    print("\n".join(largest(made)))
    if a.output:
        described = {**made.described(), **figures, "trained_on": f"training pieces of {source.name}"}
        card = composer.checkpoint.card | {"critic": described}
        write_whole(a.output, with_critic(composer.checkpoint, made.tensors(), card), force=True)
        page = cards.page(checkpoint.load(str(a.output)), a.output.stem)
        write_whole(a.output.with_suffix(".md"), page.encode(), force=True)


class Samples:
    """Samples of a model in a folder, made where they are not there.

    Args:
        composer: the model.
        kind: of music.
        source: whose training pieces are continued.
        a: the arguments of the command.
    """

    def __init__(self, composer: Composer, kind: str, source: Corpus, a: argparse.Namespace) -> None:
        self.composer, self.kind, self.source = composer, kind, source
        self.folder, self.n, self.batch, self.seed = a.samples, a.n, a.batch, a.seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = composer.completed(GenerationConfig())
        made_by = {
            "model": composer.checkpoint.sha256,
            "musiclm": __version__,
            "kind": kind,
            "corpus": source.name,
            "batch": self.batch,
            "seed": self.seed,
            "options": self.config.to_record(),
        }
        self.note = self.folder / "samples.json"
        if not self.note.exists():
            self.note.write_text(json.dumps(made_by, indent=1))
        elif json.loads(self.note.read_text()) != made_by:
            raise ValueError(f"'{self.folder}' has samples of other weights or options: name another folder")

    def examples(self) -> Iterator[Example]:
        """Yield each sample; new ones are written first."""
        per_prompt = min(PER_PROMPT, self.n - self.n // 2)
        unconditional = self.n // 2
        for number, first in enumerate(range(0, unconditional, self.batch)):
            count = min(self.batch, unconditional - first)
            for i, score in enumerate(self._batch(f"free-{number:03}", count, None, self.seed + number)):
                yield Example(score=score, start=0.0, group=f"free-{number:03}-{i}", is_real=False)
        for number, piece in enumerate(prompts(self.kind, self.source, (self.n - unconditional) // per_prompt)):
            start = line(self.kind, piece, PROMPT[self.kind])
            for score in self._batch(f"after-{number:03}", per_prompt, piece, self.seed + number):
                yield Example(score=score, start=start, group=f"after-{number:03}", is_real=False)

    def _batch(self, name: str, count: int, piece: Score | None, seed: int) -> list[Score]:
        """Return the scores of one batch, from the folder if all of them are there; a piece's beginning is the prompt."""
        paths = [self.folder / f"{name}-{i:02}.mid" for i in range(count)]
        if not all(path.exists() for path in paths):
            print(f"\r{name} of {self.folder} ", end="", file=sys.stderr, flush=True)
            prompt = self.composer.prompt(piece, **prompt_length(self.kind, piece))
            config = dataclasses.replace(self.config, n=count, length=length(self.kind, piece))
            made = self.composer.generate(prompt, config, seed)
            for path, composition in zip(paths, made, strict=True):
                write_whole(path, midi.to_bytes(composition.score), force=True)
        return [midi.parse(path.read_bytes(), str(path)) for path in paths]


def prompt_length(kind: str, piece: Score | None) -> dict[str, Any]:
    """Return how much of a piece is its prompt, for `Composer.prompt`."""
    if piece is None:
        return {}
    return {"seconds": 2.0 * PROMPT[kind]} if kind == "piano" else {"bars": PROMPT[kind]}


def length(kind: str, piece: Score | None) -> Any:
    """Return how much music is sampled."""
    bars = LENGTH if piece is None else NEW
    given = {"seconds": 2.0 * bars} if kind == "piano" else {"bars": bars}
    return GenerationConfig.from_options(**given).length


def by_hash(source: Corpus) -> list[Any]:
    """Return the training pieces in the order of the hashes of their names."""
    return sorted(
        source.pieces("train"), key=lambda piece: hashlib.sha256(piece.name.encode("utf-8", "replace")).digest()
    )


def prompts(kind: str, source: Corpus, count: int) -> Iterator[Score]:
    """Yield training pieces, cut behind the music that follows the prompt: pieces with pitch that are long enough."""
    found = 0
    for piece in by_hash(source):
        if found == count:
            return
        score = source.tokenizer.decode(piece.tokens)
        stop = line(kind, score, PROMPT[kind] + NEW)
        if midi.end(score) >= stop - 1e-6 and has_pitch(score):
            cut = midi.cut(score, 0.0, stop)
            if critic.windows(cut, kind, NEW, line(kind, cut, PROMPT[kind])):
                found += 1
                yield cut


def line(kind: str, score: Score, bars: int) -> float:
    """Return where so many bars of a piece end, in quarters."""
    return midi.quarters_at(score, 2.0 * bars) if kind == "piano" else midi.bar_line(score, 0.0, bars)


def has_pitch(score: Score) -> bool:
    return not texture.drums_only(notes_of(score))


def real_examples(kind: str, source: Corpus, sampled: Sequence[Example]) -> Iterator[Example]:
    """Yield real music from the places of samples: beginnings of pieces, and what follows each prompt.

    Pieces for drums alone are left out: a model is to write them when it is asked to.
    """
    groups = {example.group for example in sampled}
    num_prompts = sum(group.startswith("after") for group in groups)
    num_free = len(groups) - num_prompts
    for number, score in enumerate(prompts(kind, source, num_prompts)):
        yield Example(score=score, start=line(kind, score, PROMPT[kind]), group=f"after-{number:03}", is_real=True)
    found = 0
    for piece in reversed(by_hash(source)):  # the prompts are the first ones
        if found == max(REAL, num_free):
            return
        score = source.tokenizer.decode(piece.tokens)
        if midi.end(score) >= line(kind, score, NEW) and has_pitch(score):
            found += 1
            score = midi.cut(score, 0.0, line(kind, score, LENGTH))
            yield Example(score=score, start=0.0, group=piece.name, is_real=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The measures of windows.

    Attributes:
        values: (windows, F), NaN where there is nothing to count.
        is_real: (windows,) bool.
        groups: (windows,) what is held out together.
        pieces: (windows,) number of the piece.
    """

    values: np.ndarray
    is_real: np.ndarray
    groups: np.ndarray
    pieces: np.ndarray

    @classmethod
    def of(cls, examples: Sequence[Example], kind: str, bars: int) -> Data:
        """Return the measures of the windows of examples; one without a new note has none."""
        tables = [critic.table(critic.windows(e.score, kind, bars, e.start), kind) for e in examples]
        counts = [len(table) for table in tables]
        return cls(
            values=np.concatenate(tables),
            is_real=np.repeat([e.is_real for e in examples], counts),
            groups=np.repeat([e.group for e in examples], counts),
            pieces=np.repeat(np.arange(len(examples)), counts),
        )

    def by_piece(self, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the log odds of each piece's windows, and whether each piece is real."""
        numbers, first = np.unique(self.pieces, return_index=True)
        return np.array([log_odds[self.pieces == i].mean() for i in numbers]), self.is_real[first]


def fitted(data: Data, kind: str, bars: int) -> tuple[critic.Critic, dict[str, Any]]:
    """Return the critic of windows, its log odds calibrated on held-out pieces, and its figures for them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss, roc_auc_score

    held_out = {strength: cross_validated(data, strength) for strength in STRENGTHS}
    losses = {strength: log_loss(data.is_real, probability(odds)) for strength, odds in held_out.items()}
    judge = min(losses, key=lambda strength: losses[strength])
    wins = {strength: unseen_wins(data, strength, judge) for strength in STRENGTHS if strength <= judge}
    best = max(wins, key=lambda strength: sum(wins[strength].values()))
    odds, is_real = data.by_piece(held_out[best])
    made = fit(data.values, data.is_real, kind, bars, best)
    calibration = LogisticRegression(C=1e6, class_weight="balanced").fit(held_out[best][:, None], data.is_real)
    factor, offset = float(calibration.coef_[0, 0]), float(calibration.intercept_[0])
    figures = {
        "windows": {"real": int(data.is_real.sum()), "sampled": int((~data.is_real).sum())},
        "pieces": {"real": int(is_real.sum()), "sampled": int((~is_real).sum())},
        "inverse_penalty": best,
        "unseen_wins": {f"{strength:g}": found for strength, found in wins.items()},
        "window_auc": round(float(roc_auc_score(data.is_real, held_out[best])), 3),
        "piece_auc": round(float(roc_auc_score(is_real, odds)), 3),
        "piece_accuracy": round(
            float(np.mean([((factor * odds + offset > 0) == is_real)[is_real == s].mean() for s in (0, 1)])), 3
        ),
    }
    return dataclasses.replace(made, weights=made.weights * factor, bias=made.bias * factor + offset), figures


def cross_validated(data: Data, strength: float) -> np.ndarray:
    """Return the log odds of each window by a critic that was fitted on other groups, (windows,)."""
    from sklearn.model_selection import GroupKFold

    found = np.zeros(len(data.values))
    for train, test in GroupKFold(FOLDS).split(data.values, data.is_real, data.groups):
        found[test] = fit(data.values[train], data.is_real[train], "", 0, strength).of_table(data.values[test])
    return found


def fit(values: np.ndarray, is_real: np.ndarray, kind: str, bars: int, strength: float) -> critic.Critic:
    """Return the critic of windows, both sides with the same total weight."""
    from sklearn.linear_model import LogisticRegression

    count = np.maximum(1, (~np.isnan(values)).sum(axis=0))
    filled = np.nan_to_num(values)
    mean = filled.sum(axis=0) / count
    deviation = np.sqrt((np.where(np.isnan(values), 0.0, values - mean) ** 2).sum(axis=0) / count)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    model.fit(critic.terms(values, mean, scale), is_real)
    names = tuple(critic.names(kind)) if kind else ()
    return critic.Critic(
        kind=kind,
        bars=bars,
        names=names,
        mean=mean,
        scale=scale,
        weights=model.coef_[0],
        bias=float(model.intercept_[0]),
    )


def unseen_wins(data: Data, strength: float, judging: float) -> dict[str, float]:
    """Return how often what a critic of half of the measures chooses wins by a critic of the other half; see above.

    Args:
        data: with the groups that `Samples.examples` gives.
        strength: of the critics that choose.
        judging: of those that judge.

    Returns:
        The share of wins over one more sample, unconditional and behind prompts; not the one that has too few samples.
    """
    _, first = np.unique(data.pieces, return_index=True)
    is_sampled, group = ~data.is_real[first], data.groups[first].astype(str)
    free = np.flatnonzero(is_sampled & np.char.startswith(group, "free"))
    behind = [
        np.flatnonzero(is_sampled & (group == name)) for name in sorted(set(group[is_sampled]) - set(group[free]))
    ]
    contests = {
        "unconditional": [],
        "behind_prompts": [(i, [j for j in each if j != i]) for each in behind for i in each],
    }
    found: dict[str, list[bool]] = {name: [] for name in contests}
    for half in range(HALVES):
        random = np.random.default_rng(half)
        halves = np.array_split(random.permutation(data.values.shape[1]), 2)
        parts = [dataclasses.replace(data, values=data.values[:, columns]) for columns in halves]
        choosers, judges = (
            [part.by_piece(cross_validated(part, each))[0] for part in parts] for each in (strength, judging)
        )
        if len(free) > DRAWN:
            mixed = [random.permutation(free)[: 1 + DRAWN] for _ in range(CONTESTS)]
            contests["unconditional"] = [(each[0], list(each[1:])) for each in mixed]
        for chooser, judge in zip(choosers, judges[::-1], strict=True):
            for name, pairs in contests.items():
                best = [(max(others, key=chooser.__getitem__), plain) for plain, others in pairs if others]
                found[name] += [bool(judge[chosen] > judge[plain]) for chosen, plain in best]
    return {name: round(float(np.mean(won)), 3) for name, won in found.items() if won}


def probability(odds: np.ndarray) -> np.ndarray:
    """Return the probability of log odds."""
    return np.asarray(1 / (1 + np.exp(-odds)))


def largest(made: critic.Critic, count: int = 12) -> list[str]:
    """Return the measures with the largest weights as lines of text."""
    order = np.argsort(-np.abs(made.weights))[:count]
    names = [yardstick.MEASURES[name].label for name in made.names]
    names += [f"{name}, squared" for name in names]
    labels = [(names[i], made.weights[i]) for i in order]
    return [
        "log odds of being real, per standard deviation:",
        *(f"  {name:40}{weight:+.2f}" for name, weight in labels),
    ]


if __name__ == "__main__":
    main()
