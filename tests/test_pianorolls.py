"""The piano-roll benchmark: frames to tokens, what is known of the next one, and what is summed over a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musiclm.data import Piece
from tests.data_files import benchmark

pianorolls = benchmark("pianorolls")
FRAMES = pianorolls.Frames()


@pytest.fixture
def roll() -> np.ndarray:
    """Forty frames of which many repeat and some are silent, (F, 88)."""
    draw = np.random.default_rng(0)
    made = (draw.random((40, 88)) < 0.05).astype(np.uint8)
    made[10:14] = made[9]
    made[20] = 0
    return made


def test_a_frame_is_its_keys_rising_and_a_mark(roll):
    ids = FRAMES.of_roll(roll)
    assert (ids[0], ids[-1]) == (FRAMES.bos, FRAMES.eos)
    frames = np.split(ids[1:-1], np.flatnonzero(ids[1:-1] == pianorolls.END) + 1)[:-1]
    assert len(frames) == len(roll)
    for frame, keys in zip(frames, roll, strict=True):
        assert (frame[:-1] - pianorolls.FIRST_KEY).tolist() == np.flatnonzero(keys).tolist()


def test_features_stream_and_never_look_ahead(roll):
    ids = torch.from_numpy(FRAMES.of_roll(roll))[None]
    whole, _ = FRAMES.features(ids)
    for cut in (1, 30, 77):
        first, state = FRAMES.features(ids[:, :cut])
        second, _ = FRAMES.features(ids[:, cut:], state)
        assert torch.equal(torch.cat([first, second], 1), whole)
    assert (whole >= 0).all()
    assert (whole < torch.tensor(FRAMES.feature_sizes)).all()


def test_features_are_what_they_say(roll):
    ids = FRAMES.of_roll(roll)
    features = pianorolls._features(ids)
    frame = so_far = above = 0
    for token, (num_notes, first, second, first_held, unchanged, sixteen, twelve) in zip(ids, features, strict=True):
        if token == pianorolls.END:
            frame, so_far, above = frame + 1, 0, 0
        elif token >= pianorolls.FIRST_KEY:
            so_far, above = so_far + 1, int(token) - pianorolls.FIRST_KEY + 1
        sounding = [] if frame == 0 else [k for k in np.flatnonzero(roll[frame - 1]).tolist() if k >= above]
        assert [first, second] == [*sounding, 88, 88][:2]
        assert (num_notes, sixteen, twelve) == (so_far, frame % 16, frame % 12)
        held = 0
        while first < 88 and held < frame and roll[frame - 1 - held, first]:
            held += 1
        assert first_held == min(held, pianorolls.MAX_HELD)
        same = 0
        while frame and same + 1 < frame and (roll[frame - 1 - same] == roll[frame - 2 - same]).all():
            same += 1
        assert unchanged == same
        if token == FRAMES.eos:
            break


def test_the_nats_of_a_frame_are_those_of_all_its_tokens_and_the_first_frame_is_given(roll):
    ids = FRAMES.of_roll(roll)
    piece = Piece(name="a", tokens=ids, num_notes=int(roll.sum()), seconds=40.0)
    nats = np.arange(1.0, len(ids))  # of tokens 1 …
    begin = int(np.flatnonzero(ids == pianorolls.END)[0])
    wanted = sum(nats[t - 1] for t in range(begin + 1, len(ids) - 1)) / (len(roll) - 1)
    assert pianorolls.nats_per_frame([(piece, nats)]) == pytest.approx(wanted)


def test_the_repeat_baseline_gains_where_frames_repeat(roll):
    still = {split: [np.repeat(roll, 4, axis=0)] for split in pianorolls.SPLITS}
    moving = {split: [roll] for split in pianorolls.SPLITS}
    assert pianorolls.repeat_baseline(still) < pianorolls.repeat_baseline(moving)
