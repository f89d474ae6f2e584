"""A command that `torchrun` starts in several processes: the first one decides, the others are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..training.ranks import Ranks
    from ..training.run import Run


def joined() -> Ranks:
    """Return the processes that train a run: this one alone, or those that `torchrun` started."""
    from ..training import ranks

    return ranks.join()


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
        return run
    told = ranks.of_first(None)
    if told is None:
        sys.exit(1)
    return Run(*told, ranks)
