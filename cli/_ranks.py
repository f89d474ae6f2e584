"""A command that `torchrun` starts in several processes: the first one decides and says what is wrong, the others follow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DivergedError, MusicLMError
from . import _console, _options

if TYPE_CHECKING:
    from ..training.ranks import Ranks
    from ..training.run import Run


def joined(resume: str | None, device: str) -> Ranks:
    """Return the processes that train a run: this one alone, or those that `torchrun` started.

    Args:
        resume: the folder of the run to continue, which has a device of its own; None for a new run.
        device: of a new run.
    """
    from ..training import ranks
    from ..training.config import stored_config

    if not ranks.are_launched():
        return ranks.ALONE
    plan = None if resume is None else stored_config(Path(resume))
    return ranks.join(device if plan is None else plan.device)


def opened(ranks: Ranks, open_run: Callable[[], Run]) -> Run:
    """Return the run, which the first process begins or continues; if it cannot, it says why and all of them end."""
    from ..training.run import Run

    if ranks.is_first:
        try:
            run = open_run()
        except BaseException:
            ranks.of_first(None)
            raise
        run.ranks = ranks
        ranks.of_first((run.folder.resolve(), run.plan))
        _choose_threads(run)
        return run
    told = ranks.of_first(None)
    if told is None:
        sys.exit(1)
    run = Run(*told, ranks)
    _choose_threads(run)
    return run


def _choose_threads(run: Run) -> None:
    """Choose the number of threads of each process, unless one process continues what one process trained.

    That one keeps the number of before, so that its result is the same, bit for bit.
    """
    if run.ranks.is_joined or run.plan.processes != run.ranks.size:
        run.plan.threads, run.plan.processes = _options.threads(), run.ranks.size
        run.write_plan()


def end_silently(ranks: Ranks, error: MusicLMError) -> bool:
    """Return whether another process says an error, so that this one is to end without a word; say it if it is this one's.

    Errors of the first process are for the command line to say.
    """
    from ..training.ranks import FailedElsewhere

    if ranks.is_first:
        return isinstance(error, FailedElsewhere)
    if not isinstance(error, FailedElsewhere | DivergedError):  # all processes diverge at once
        _console.say(f"process {ranks.rank}: {error}")
    return True
