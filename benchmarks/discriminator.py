"""Can a classifier tell sampled music from real music? Cross-validated, of fixed size, for any table of features.

    python benchmarks/discriminator.py real.csv sampled.csv [-n 60] [--seed 1] [--json]

Each csv has a header of feature names and a row per piece; an empty cell is an undefined feature. Accuracy 0.5 is
what guessing gives: the samples cannot be told from real pieces by these features. 1 is always right.

Method: n pieces per side (60, so that figures compare; fewer only where a side has fewer, which is said), subsampled by the
seed; stratified 5-fold cross-validation, 3 repeats with other folds; random forest, gradient boosting, logistic regression of
standardised features. Missing values become the median of the training fold. The standard error is that over repeats: it has
only the chance of folds in it. The chance of the pieces is in the other one, sqrt(0.25 / 2n), that of guessing 2n labels.

Needs scikit-learn: pip install -e ".[bench]"
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZE, FOLDS, REPEATS = 60, 5, 3
TREES = 200
SHUFFLES = 4  # of each feature and fold, for permutation importance
LEAST = 2 * FOLDS  # pieces per side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the classifiers found.

    Attributes:
        n: pieces per side.
        of: how many there were, real and sampled.
        chance_se: standard error of the accuracy of a guess.
        scores: by classifier `accuracy`, `accuracy_se`, `auc`, `auc_se`.
        importance: by feature the accuracy that the random forest loses where it is shuffled in held-out pieces, falling.
    """

    n: int
    of: tuple[int, int]
    chance_se: float
    scores: dict[str, dict[str, float]]
    importance: dict[str, float]


def classifiers(seed: int) -> dict[str, Any]:
    """Return the three classifiers by name, unfitted."""
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def impute() -> Any:
        return SimpleImputer(strategy="median", keep_empty_features=True)

    forest = RandomForestClassifier(TREES, random_state=seed)
    boosting = GradientBoostingClassifier(max_depth=2, subsample=0.7, max_features="sqrt", random_state=seed)
    logistic = LogisticRegression(C=0.1, max_iter=2000)
    return {
        "random forest": make_pipeline(impute(), forest),
        "gradient boosting": make_pipeline(impute(), boosting),
        "logistic": make_pipeline(impute(), StandardScaler(), logistic),
    }


def subsample(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return n rows drawn by a seed, (n, F); all of them if there are no more."""
    return rows if len(rows) <= n else rows[np.sort(np.random.RandomState(seed).permutation(len(rows))[:n])]


def discriminate(
    real: np.ndarray,
    sampled: np.ndarray,
    names: Sequence[str],
    *,
    n: int = SIZE,
    seed: int = 1,
    importance: bool = True,
) -> Verdict:
    """Return how well classifiers tell two tables apart.

    Args:
        real, sampled: (pieces, F); NaN where a feature is not defined.
        names: of the F features.
        n: pieces per side.
        seed: of the subsample, the folds and the classifiers.
        importance: whether to measure the importance of features, too; it takes most of the time.

    Raises:
        ValueError: a side has fewer than `LEAST` pieces, or the tables do not have these features.
    """
    if {real.shape[1:], sampled.shape[1:]} != {(len(names),)}:
        raise ValueError(f"tables of {real.shape} and {sampled.shape} do not have {len(names)} features")
    size = min(n, len(real), len(sampled))
    if size < LEAST:
        raise ValueError(f"{len(real)} real and {len(sampled)} sampled pieces: at least {LEAST} of each are needed")
    x = np.concatenate([subsample(real, size, seed), subsample(sampled, size, seed)])
    y = np.repeat([0, 1], size)
    repeats = [_repeat(x, y, 1000 * seed + r, importance=importance and r == 0) for r in range(REPEATS)]
    scores = {}
    for name in classifiers(0):
        values = np.array([found[name] for found, _ in repeats])
        errors = values.std(axis=0, ddof=1) / math.sqrt(REPEATS)
        keys = ("accuracy", "auc", "accuracy_se", "auc_se")
        scores[name] = dict(zip(keys, [*values.mean(axis=0).tolist(), *errors.tolist()], strict=True))
    lost = sorted(zip(names, repeats[0][1].tolist(), strict=True), key=lambda item: -item[1]) if importance else []
    return Verdict(
        n=size,
        of=(len(real), len(sampled)),
        chance_se=math.sqrt(0.25 / (2 * size)),
        scores=scores,
        importance=dict(lost),
    )


def _repeat(x: np.ndarray, y: np.ndarray, seed: int, *, importance: bool) -> tuple[dict[str, list[float]], np.ndarray]:
    """Return accuracy and AUC of each classifier over all folds, and the mean importance of each feature, (F,)."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    chance = {name: np.zeros(len(y)) for name in classifiers(seed)}
    lost = []
    for train, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        for name, model in classifiers(seed).items():
            model.fit(x[train], y[train])
            chance[name][held_out] = model.predict_proba(x[held_out])[:, 1]
            if importance and name == "random forest":
                lost.append(permutation_importance(model, x[held_out], y[held_out], seed))
    scores = {name: [float(((p > 0.5) == y).mean()), float(roc_auc_score(y, p))] for name, p in chance.items()}
    return scores, np.mean(lost, axis=0) if lost else np.zeros(x.shape[1])


def permutation_importance(model: Any, x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Return for each feature the accuracy that a model loses where it is shuffled, mean of `SHUFFLES`, (F,). Breiman 2001.

    All shuffled tables are predicted at once: a call for each takes a minute for 70 features.
    """
    random = np.random.RandomState(seed)
    tables = np.repeat(x[None], x.shape[1] * SHUFFLES, axis=0)
    for i, table in enumerate(tables):
        table[:, i // SHUFFLES] = random.permutation(table[:, i // SHUFFLES])
    right = model.predict(tables.reshape(-1, x.shape[1])).reshape(len(tables), -1) == y
    before = float((model.predict(x) == y).mean())
    return np.asarray(before - right.mean(axis=1).reshape(-1, SHUFFLES).mean(axis=1))


def halves(groups: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of two halves of pieces, about equally many, with no group on both sides.

    Args:
        groups: of each piece the number of its work.
        seed: of the order in which groups are dealt, each to the smaller side.
    """
    number = np.asarray(groups)
    sides: tuple[list[int], list[int]] = ([], [])
    for group in np.random.RandomState(seed).permutation(np.unique(number)):
        smaller = 0 if len(sides[0]) <= len(sides[1]) else 1
        sides[smaller].extend(np.flatnonzero(number == group).tolist())
    return np.array(sides[0], int), np.array(sides[1], int)


def lines(verdict: Verdict, title: str, num_features: int = 10) -> list[str]:
    """Return a verdict as lines of text."""
    short = "" if verdict.n >= SIZE else f" (fewer than {SIZE}: there are {verdict.of[0]} and {verdict.of[1]})"
    text = [f"{title}: {verdict.n} of each{short}; chance 0.5 ± {verdict.chance_se:.3f}"]
    for name, s in verdict.scores.items():
        accuracy, auc = (f"{s[k]:.3f} ± {s[f'{k}_se']:.3f}" for k in ("accuracy", "auc"))
        text.append(f"  {name:18} accuracy {accuracy}   AUC {auc}")
    if verdict.importance and num_features:
        best = list(verdict.importance.items())[:num_features]
        text.append("  most important: " + ", ".join(f"{name} {lost:.3f}" for name, lost in best))
    return text


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the names and the values of a csv, (pieces, F)."""
    with path.open(newline="") as file:
        names, *rows = list(csv.reader(file))
    return names, np.array([[float(c) if c.strip() else math.nan for c in row] for row in rows]).reshape(-1, len(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("sampled", type=Path)
    parser.add_argument("-n", type=int, default=SIZE, help="pieces per side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    a = parser.parse_args()
    (names, real), (others, sampled) = read_table(a.real), read_table(a.sampled)
    if names != others:
        sys.exit("the two tables do not have the same features in the same order")
    verdict = discriminate(real, sampled, names, n=a.n, seed=a.seed)
    print(json.dumps(dataclasses.asdict(verdict)) if a.json else "\n".join(lines(verdict, "real against sampled")))


if __name__ == "__main__":
    main()
