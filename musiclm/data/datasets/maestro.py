"""MAESTRO v3."""

from .base import Dataset

DATASET = Dataset(
    name="maestro",
    title="MAESTRO v3.0.0: 1,276 piano performances, 199 hours",
    licence="CC BY-NC-SA 4.0: a model trained on it is not for commercial use either",
    address="https://magenta.tensorflow.org/datasets/maestro",
    citation="Hawthorne et al.: Enabling Factorized Piano Music Modeling and Generation with the MAESTRO Dataset, ICLR 2019",
    split="962 train, 137 validation, 177 test: its csv file",
    labels=("composer", "title", "year"),
    label_columns={"composer": "canonical_composer", "title": "canonical_title"},
    style="piano",
    tokenizer="performance",
    note="build from maestro-v3.0.0-midi.zip; its times are those of performances, not of a score",
)
