"""The sustain pedal: how long the notes of a track sound."""

from __future__ import annotations

from typing import Any

import numpy as np

PEDAL = 64  # the number of the controller
DOWN = 64  # the value from which on the pedal is down


def pedal_release(track: Any, end: np.ndarray, *, same_time: float = 0.0) -> np.ndarray:
    """Return when the pedal releases each note, in the track's unit of time, (N,) of the type of `end`.

    That is `end` for a note whose key goes up while the pedal is up. A pedal that never goes up does so at its last
    event or at the last end, whichever is later. The next strike of the same key is not looked at.

    Args:
        track: a track of a score, in any unit of time.
        end: when the keys go up, (N,), at least one.
        same_time: relative: pedal events that are later than an end by less count as simultaneous with it.
    """
    controls = track.controls.numpy() if len(track.controls) else None
    is_pedal = controls["number"] == PEDAL if controls is not None else np.zeros(0, bool)
    if controls is None or not is_pedal.any():
        return end
    order = np.argsort(controls["time"][is_pedal], kind="stable")
    time = controls["time"][is_pedal][order].astype(end.dtype)
    is_down = controls["value"][is_pedal][order] >= DOWN
    until = end * (1 + same_time)
    last = np.searchsorted(time, until, side="right") - 1  # the last event of the pedal when the key goes up
    is_held = (last >= 0) & is_down[np.maximum(last, 0)]
    rises = time[~is_down]
    rise = np.append(rises, max(time[-1], end.max()))[np.searchsorted(rises, until, side="right")]
    return np.where(is_held, rise, end)
