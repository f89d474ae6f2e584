"""The Groove MIDI Dataset."""

from .base import Dataset

DATASET = Dataset(
    name="groove",
    title="Groove MIDI Dataset 1.0.0: 1,150 performances on electronic drums, 14 hours",
    licence="CC BY 4.0",
    address="https://magenta.tensorflow.org/datasets/groove",
    citation="Gillick et al.: Learning to Groove with Inverse Sequence Transformations, ICML 2019",
    split="train, validation, test: its file info.csv",
    labels=("drummer", "style", "tempo", "beat or fill", "time signature"),
    label_columns={"drummer": "drummer", "groove": "style"},
    style="drums",
    note="build from groove-v1.0.0-midionly.zip; only drums",
)
