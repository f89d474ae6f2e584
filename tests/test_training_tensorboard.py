"""Curves of a run for TensorBoard."""

from __future__ import annotations

import pytest

from musiclm.training import tensorboard
from musiclm.training.loop import Step, TrainingState


def taken(number: int, nats: float) -> Step:
    """Return a step of a run."""
    state = TrainingState(step=number, tokens=number, seconds=0.0, tensors={})
    return Step(
        number=number, nats=nats, tokens=number, seconds=0.0, rate=0.1, progress=0.0, model=None, state=lambda: state
    )


def test_a_resumed_run_purges_the_later_points(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((0, 40), (20, 30)):
        writer = tensorboard.TensorBoard(tmp_path, first)
        for step in range(first + 1, last + 1):
            writer.add(taken(step, nats=float(last)), 2.0 if step == 30 else None)
        writer.close()
    curves = EventAccumulator(str(tmp_path / tensorboard.FOLDER))
    curves.Reload()
    points = [(point.step, point.value) for point in curves.Scalars("nats per token/training")]
    assert points == [(1, 40.0), (10, 40.0), (20, 40.0), (30, 30.0)]
    assert [point.step for point in curves.Scalars("nats per token/validation")] == [30]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    writer = tensorboard.TensorBoard(tmp_path, 0)
    writer.add(taken(1, nats=1.0), None)
    writer.close()
    assert not list(tmp_path.iterdir())
