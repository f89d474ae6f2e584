"""Comparison of architectures with the same data, tokenizer, budget and seed, in a crash-safe, resumable folder.

    compare.json     the `ComparisonConfig`
    ARCH/            the run of each architecture (`musiclm.training.run`), a run folder for all commands
    ARCH/pace.json   training tokens and seconds, without validations
    ARCH/measured.json   the measurements of its best checkpoint; repeated if that changes
    prompt.mid       the prompt of every model
    ARCH.mid         the continuation by each model
    results.json     the report, as `musiclm compare --json` prints it

The checkpoint of each run is selected on validation; test is only reported. An interrupted comparison continues with the
architecture where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CorpusError, DivergedError, MusicLMError, RunError
from ..files import write_whole
from ..training.config import TrainConfig
from ..training.metrics import Validation
from ..training.run import Run

if TYPE_CHECKING:
    from symusic import Score

    from ..data import Corpus, Piece
    from ..generation.composer import Composer
    from ..training.loop import Step

ARCHS = ("rnn", "lstm", "gru", "transformer")
PROMPT_BARS = 4
FORMAT = 1


@dataclasses.dataclass(kw_only=True)
class ComparisonConfig:
    """The configuration of a comparison: compare.json.

    Attributes:
        archs: names from `musiclm.models.names()`, in the order in which they are trained and shown.
        preset, data, tokenizer, minutes, steps, epochs, seed, threads, device, precision, command: see `TrainConfig`;
            the same for all. The precision is the one that the first run measures as faster.
        samples: how many unconditional samples of each model are in the statistics.
        bars: the length of samples and continuations, and of the real pieces beside them.
        most_tokens: how many tokens of the validation and of the test pieces are measured; whole pieces, by hash.
    """

    archs: list[str]
    preset: str = "small"
    data: str | None = None
    tokenizer: str | None = None
    minutes: float | None = None
    steps: int | None = None
    epochs: float | None = None
    samples: int = 16
    bars: int = 16
    most_tokens: int = 200_000
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: str | None = None
    command: str = ""


class Comparison:
    """A folder of runs that differ in their architecture alone.

    Attributes:
        folder: where.
        request: the configuration.
        diverged: for each architecture whose training diverged the reason; the report has no measurements of it.
    """

    def __init__(self, folder: Path, request: ComparisonConfig) -> None:
        self.folder, self.request = folder, request
        self.diverged: dict[str, str] = {}

    @classmethod
    def create(cls, folder: Path, request: ComparisonConfig, prompt: Score | None = None) -> Comparison:
        """Return a new comparison in a new folder.

        Args:
            folder: where; it is made.
            request: the configuration.
            prompt: the prompt of every model; by default the first bars of a test piece.

        Raises:
            RunError: the folder exists already, or cannot be made.
        """
        from ..midi import write

        if (folder / "compare.json").exists():
            raise RunError(f"'{folder}' is a comparison already: 'musiclm compare --resume {folder}' continues it")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"'{folder}' exists already: choose another place with -o")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"the folder '{folder}' cannot be made: {error.strerror}") from error
        comparison = cls(folder, request)
        if prompt is not None:
            write(prompt, folder / "prompt.mid")
        comparison.write_request()
        return comparison

    @classmethod
    def open(cls, folder: Path) -> Comparison:
        """Return the comparison in a folder.

        Raises:
            RunError: there is no comparison, or it is damaged.
        """
        path = folder / "compare.json"
        if not path.is_file():
            raise RunError(f"no comparison in '{folder}': 'musiclm compare -o {folder}' starts one")
        try:
            stored = json.loads(path.read_text("utf-8"))
            if stored.pop("format") != FORMAT:
                raise RunError(f"'{path}' is of another version of musiclm: compare again")
            return cls(folder, ComparisonConfig(**stored))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"'{path}' is damaged: {error}") from error

    def write_request(self) -> None:
        """Write compare.json."""
        document = {"format": FORMAT, **dataclasses.asdict(self.request)}
        write_whole(self.folder / "compare.json", (json.dumps(document, indent=1) + "\n").encode())

    def discard(self) -> None:
        """Remove the folder if nothing was trained in it."""
        if {path.name for path in self.folder.iterdir()} <= {"compare.json", "prompt.mid"}:
            for path in self.folder.iterdir():
                path.unlink()
            self.folder.rmdir()

    @functools.cached_property
    def corpus(self) -> Corpus:
        """The data on which all architectures are trained and measured.

        Raises:
            CorpusError: there is no data, or one of its splits is empty.
        """
        from .. import tokenizers
        from ..data import SPLITS, open_source

        request = self.request
        found = open_source(request.data, tokenizers.parse(request.tokenizer) if request.tokenizer else None)
        for split in SPLITS:
            if not found.pieces(split):
                raise CorpusError(f"no {split} pieces in '{found.name}': a comparison needs all three splits")
        return found

    def train(self, arch: str) -> Generator[tuple[Step, Validation | None], None, None]:
        """Yield the remaining steps of an architecture's run, as `Run.train` does; none more if it diverges.

        Closing the generator saves the last step.
        """
        request, folder = self.request, self.folder / arch
        shared = {f.name for f in dataclasses.fields(TrainConfig)} & {
            f.name for f in dataclasses.fields(ComparisonConfig)
        }
        asked = {name: getattr(request, name) for name in shared}
        if (folder / "run.json").exists():
            run = Run.open(folder)
            if any(getattr(run.plan, name) != asked[name] for name in ("minutes", "steps", "epochs")):
                run.plan = dataclasses.replace(run.plan, **asked)  # a larger budget
                run.write_plan()
        else:
            run = Run.create(folder, TrainConfig(arch=arch, **asked), force=True)  # killed before run.json was written
        steps = run.train()
        pace = self._pace(arch)
        last_tokens, began = 0, 0.0
        try:
            for step, validation in steps:
                if request.precision is None:
                    request.precision = run.plan.precision
                    self.write_request()
                if began and validation is None:
                    pace["tokens"] += step.tokens - last_tokens
                    pace["seconds"] += time.monotonic() - began
                yield step, validation
                last_tokens, began = step.tokens, time.monotonic()
        except DivergedError as error:
            self.diverged[arch] = str(error)
        finally:
            steps.close()  # saves, while the run is still locked
            write_whole(folder / "pace.json", (json.dumps(pace) + "\n").encode())
            run.close()

    def _pace(self, arch: str) -> dict[str, float]:
        try:
            stored: dict[str, float] = json.loads((self.folder / arch / "pace.json").read_text("utf-8"))
            return {key: float(stored[key]) for key in ("tokens", "seconds")}
        except (OSError, ValueError, KeyError, TypeError):  # missing or cut off: counting begins here
            return {"tokens": 0.0, "seconds": 0.0}

    def measured(self, arch: str) -> dict[str, Any] | None:
        """Return the measurements of an architecture's checkpoint after the whole budget; None if there are none."""
        from .. import checkpoint

        try:
            document: dict[str, Any] = json.loads((self.folder / arch / "measured.json").read_text("utf-8"))
            is_same = document.pop("budget") == self._budget()
            is_same &= document["sha256"] == checkpoint.load(str(self.folder / arch)).sha256
        except (OSError, ValueError, KeyError, MusicLMError):
            return None
        return document if is_same else None

    def measure(self, arch: str) -> dict[str, Any]:
        """Measure an architecture's best checkpoint and return its part of the report."""
        from .. import checkpoint, evaluation
        from ..generation.composer import Composer

        request, corpus = self.request, self.corpus
        loaded = checkpoint.load(str(self.folder / arch))
        composer = Composer(loaded, request.device)
        pace = self._pace(arch)
        last = json.loads((self.folder / arch / "metrics.jsonl").read_text("utf-8").splitlines()[-1])
        splits = ("validation", "test")
        found = {s: evaluation.measure_loss(composer.model, corpus.tokenizer, self._measured(s)) for s in splits}
        measurements: dict[str, Any] = {
            "arch": arch,
            "checkpoint": str(loaded.path),
            "sha256": loaded.sha256,
            "num_parameters": loaded.num_parameters,
            "steps": last["step"],
            "tokens": last["tokens"],
            "seconds": last["seconds"],
            "training_tokens_per_second": pace["tokens"] / pace["seconds"] if pace["seconds"] else None,
            "best_step": loaded.card["steps"],
            "validation_nats_per_token": found["validation"].nats_per_token,
            "test_nats_per_token": found["test"].nats_per_token,
            "bits_per_note": found["test"].bits_per_note,
            "bits_per_second": found["test"].bits_per_second,
            **self._music(composer, arch),
        }
        stored = measurements | {"budget": self._budget()}
        write_whole(self.folder / arch / "measured.json", (json.dumps(stored, indent=1) + "\n").encode())
        return measurements

    def _music(self, composer: Composer, arch: str) -> dict[str, Any]:
        """Return the generation speed of a model, the statistics of its samples, and the path of its continuation."""
        from .. import midi
        from ..evaluation import music_metrics
        from ..generation import provenance
        from ..generation.config import GenerationConfig, Length

        request = self.request
        measurements: dict[str, Any] = {
            "midi": None,
            "generation_tokens_per_second": None,
            "generation_tokens_per_second_in_batch": None,
            "sample_statistics": None,
            "problem": None,
        }
        config = GenerationConfig(length=Length(bars=request.bars))
        prompt_path, path = self._prompt(), self.folder / f"{arch}.mid"
        try:
            prompt = composer.prompt(midi.read(prompt_path))
            began = time.monotonic()
            (continuation,) = composer.generate(prompt, config, request.seed)
            measurements["generation_tokens_per_second"] = continuation.num_new_tokens / (time.monotonic() - began)
            record = provenance.record(
                composer,
                seed=request.seed,
                request=config,
                prompt=prompt_path.read_bytes(),
                prompt_quarters=prompt.quarters,
                index=0,
            )
            write_whole(path, provenance.to_midi(continuation, record))
            measurements["midi"] = str(path)
            began = time.monotonic()
            samples = composer.generate(None, dataclasses.replace(config, n=request.samples), request.seed)
            num_tokens = sum(sample.num_new_tokens for sample in samples)
            measurements["generation_tokens_per_second_in_batch"] = num_tokens / (time.monotonic() - began)
            measurements["sample_statistics"] = [
                music_metrics.of_score(sample.score, request.bars) for sample in samples
            ]
        except MusicLMError as error:  # an untrained model may generate no note: continue with the others
            measurements["problem"] = str(error)
        return measurements

    def _budget(self) -> dict[str, float | None]:
        return {name: getattr(self.request, name) for name in ("minutes", "steps", "epochs")}

    def _held_out(self, split: str) -> list[Piece]:
        from ..evaluation import sample_pieces

        return sample_pieces(self.corpus.pieces(split), self.request.most_tokens)

    def _measured(self, split: str) -> list[Piece]:
        """Return the pieces of a split as their loss is measured: the windows of pairs, where the tokenizer has pairs."""
        from ..evaluation import measured_pieces

        return measured_pieces(self.corpus.tokenizer, self._held_out(split))

    def _prompt(self) -> Path:
        """Return the file of the prompt; by default it is made of the first test piece, by hash, that is long enough."""
        from .. import evaluation, midi

        path = self.folder / "prompt.mid"
        if not path.exists():
            candidates = evaluation.sample_pieces(self.corpus.pieces("test"), self.request.most_tokens)
            decoded = (self.corpus.tokenizer.decode(piece.tokens) for piece in candidates)
            long_enough = (score for score in decoded if midi.num_bars(score) > PROMPT_BARS)
            score = next(long_enough, None) or self.corpus.tokenizer.decode(candidates[0].tokens)
            midi.write(midi.cut(score, 0.0, midi.bar_line(score, 0.0, PROMPT_BARS)), path)
        return path

    def report(self) -> dict[str, Any]:
        """Return the report, after the measurements that are missing, and write results.json.

        Raises:
            RunError: the training of every architecture diverged.
        """
        from .. import evaluation
        from ..evaluation import music_metrics

        request, corpus = self.request, self.corpus
        if len(self.diverged) == len(request.archs):
            raise RunError("; ".join(f"{arch}: {reason}" for arch, reason in self.diverged.items()))
        models = [self.measured(arch) or self.measure(arch) for arch in request.archs if arch not in self.diverged]
        reference = self._real(self._held_out("test"))
        train = evaluation.sample_pieces(corpus.pieces("train"), request.most_tokens)[: max(request.samples, 3)]
        statistics_of: dict[str, Any] = {
            "test pieces": music_metrics.of_set(reference),
            "training pieces": music_metrics.against(self._real(train), reference),
        }
        for model in models:
            samples = model.pop("sample_statistics")
            model["statistics"] = None if samples is None else music_metrics.against(samples, reference)
            model["mean_overlapped_area"] = model["statistics"] and music_metrics.mean_overlap(model["statistics"])
        document = {
            "folder": str(self.folder),
            "data": corpus.name,
            "tokenizer": corpus.tokenizer.name,
            "preset": request.preset,
            "budget": self._budget(),
            "seed": request.seed,
            "device": request.device,
            "precision": request.precision,
            "threads": request.threads,
            "train": _counts(corpus.pieces("train"), corpus),
            **{
                split: _counts(self._held_out(split), corpus, self._measured(split)) for split in ("validation", "test")
            },
            "models": models,
            "diverged": self.diverged,
            "baselines": self._baselines(),
            "statistics": {"num_samples": request.samples, "bars": request.bars, **statistics_of},
            "mean_overlapped_area_of_training_pieces": music_metrics.mean_overlap(statistics_of["training pieces"]),
            "prompt": str(self.folder / "prompt.mid"),
        }
        write_whole(self.folder / "results.json", (json.dumps(document, indent=1) + "\n").encode())
        return document

    def _real(self, pieces: Sequence[Piece]) -> list[Any]:
        from ..evaluation import music_metrics

        return [music_metrics.of_score(self.corpus.tokenizer.decode(p.tokens), self.request.bars) for p in pieces]

    def _baselines(self) -> dict[str, dict[str, float]]:
        from .. import evaluation

        found = {
            split: evaluation.baselines(self.corpus, split, self.request.most_tokens)
            for split in ("validation", "test")
        }
        test = _counts(self._held_out("test"), self.corpus, self._measured("test"))
        losses = {}
        for name, nats in found["test"].items():
            whole = evaluation.LossReport(
                nats=nats * test["num_tokens"], num_pieces=0, **{k: test[k] for k in _DIVISORS}
            )
            losses[name] = {
                "validation_nats_per_token": found["validation"][name],
                "test_nats_per_token": nats,
                "bits_per_note": whole.bits_per_note,
                "bits_per_second": whole.bits_per_second,
            }
        return losses


_DIVISORS = ("num_tokens", "num_notes", "seconds")


def _counts(pieces: Sequence[Piece], corpus: Corpus, measured: Sequence[Piece] | None = None) -> dict[str, Any]:
    """Return the numbers of pieces, and of tokens, notes and seconds that are measured of them: all if left out."""
    measured = pieces if measured is None else measured
    return {
        "num_pieces": len(pieces),
        "num_tokens": sum(int(corpus.tokenizer.eval_mask(piece.tokens).sum()) for piece in measured),
        "num_notes": sum(piece.num_notes for piece in measured),
        "seconds": sum(piece.seconds for piece in measured),
    }
