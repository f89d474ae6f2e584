"""The LSTM (Hochreiter and Schmidhuber 1997) in both directions (Schuster and Paliwal 1997): an encoder of notes."""

from __future__ import annotations

from .layers import recurrent_encoder

Config = recurrent_encoder.RecurrentEncoderConfig
PRESETS = recurrent_encoder.PRESETS
TRAINING = recurrent_encoder.TRAINING


class Model(recurrent_encoder.RecurrentEncoder):
    """A stack of such layers, or with `both` 0 one that knows the past only."""

    cell = "lstm"
