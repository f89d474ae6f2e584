"""Evaluation: the loss of models, trivial baselines, and musical metrics of scores."""

from .baselines import baseline_pieces, baselines
from .loss import LossReport, fit_temperature, masked_loss, masked_pieces, measure_loss, sample_pieces, token_losses
from .paired import measured_pieces, paired_pieces, predict
from .report import report

__all__ = [
    "LossReport", "baseline_pieces", "baselines", "fit_temperature", "masked_loss", "masked_pieces", "measure_loss",
    "measured_pieces", "paired_pieces", "predict", "report", "sample_pieces", "token_losses",
]  # fmt: skip
