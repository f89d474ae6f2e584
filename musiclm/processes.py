"""What processes that were started by another one share."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, see prctl(2)


def end_with_parent() -> None:
    """Let the system kill this process, one of `multiprocessing`, when its parent ends, however that ends (Linux).

    The parent is the thread that started the process.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before the call
        os._exit(1)
