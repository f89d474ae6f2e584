"""The Nottingham Music Database."""

from .base import Dataset

DATASET = Dataset(
    name="nottingham",
    title="Nottingham: 1,034 folk tunes with chords",
    licence="GPL-3",
    address="https://github.com/jukedeck/nottingham-dataset",
    citation="Foxley: Nottingham Music Database; cleaned by Jukedeck",
    note="small: a model learns from it in minutes",
)
